"""Settings are checked when they are given, and one that was given holds."""

from __future__ import annotations

import json
import logging
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainingArguments

from st_llm2vec.training import MNTP, SimCSE, Stage, Supervised, build_stage, build_stages
from st_llm2vec.training.named_data import open_scored_pairs
from st_llm2vec.training.pipeline import default_plan, evaluate_on, override
from st_llm2vec.training.settings import build_arguments

TEXT = "The mill stood by the river for many years."


def simcse(decoder: str, data: Any, **more: Any) -> SimCSE:
    return SimCSE(model=decoder, output="never-made", data=data, **more)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"training": {"seed": "abc"}}, "seed is 'abc'; it must be a whole number"),
        ({"training": {"max_step": 3}}, "there is no 'max_step'; did you mean 'max_steps'?"),
        ({"training": {"bf16": "yes"}}, "bf16 is 'yes'; it must be true or false"),
        ({"training": {"report_to": "tensorboard"}}, "report_to names tensorboard, and that cannot be used here"),
        ({"training": {"report_to": ["tensorbord"]}}, "report_to names tensorbord"),
        ({"changes": {"max_lenth": 3}}, "no field 'max_lenth'; did you mean 'max_length'?"),
        ({"adapter": {"rank": 3}}, "adapter does not have these settings: there is no 'rank'"),
        ({"adapter": {"alfa": 3}}, "did you mean 'alpha'?"),
        ({"adapter": "lora"}, "adapter is 'lora'; it must be a mapping of its settings, such as {r: 16}, or nothing"),
        ({"adapter": {"targets": 5}}, "targets is 5; it must be a list or a text"),
        ({"changes": 5}, "changes is 5; it must be a mapping"),
        ({"data": 5}, "The data is named by 5; a text, or a list of them, is expected"),
        ({"data": [5]}, "The data is named by 5"),
        ({"data": {"path": "x.txt", "limit": "abc"}}, "limit is 'abc'; it must be a whole number of at least 1"),
        ({"data": {"path": "x.txt", "limit": -3}}, "limit is -3; it must be a whole number of at least 1"),
        ({"evaluation": 5}, "The data is named by 5"),
        ({"scale": "big"}, "scale is 'big'; it must be a number"),
        ({"max_length": "12"}, "max_length is '12'; it must be a whole number or nothing"),
        ({"data": {"path": "x.txt", "limt": 3}}, "there is no 'limt'; did you mean 'limit'?"),
    ],
)
def test_wrong_settings(
    decoder: str, texts_file: str, more: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.integrations.integration_utils.is_tensorboard_available", lambda: False)
    with pytest.raises(ValueError, match=re.escape(message)):
        simcse(decoder, more.pop("data", texts_file), **more).check()


def test_settings_of_elsewhere_are_told_what_they_are_here() -> None:
    given = {
        "max_seq_length": 128,
        "simcse_dropout": 0.3,
        "learning_rate": 1e-4,
        "colour": 3,
        "prompts": {"query": "Find:"},
    }
    with pytest.raises(ValueError) as error:
        build_stage("simcse", model="m", output="o", data="t.txt", **given)
    for told in ("block_size", "attention_dropout", "training: {learning_rate: ...}", "'colour'", "changes: {prompts:"):
        assert told in str(error.value)


def test_bfloat16_without_a_gpu_chooses_the_cpu(decoder: str, texts_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    assert simcse(decoder, texts_file, training={"bf16": True}).arguments().use_cpu


@pytest.mark.parametrize("switch", ["gradient_checkpointing", "activation_checkpointing"])
def test_checkpointing_by_either_name_and_without_upstreams_warning(tmp_path: Path, switch: str) -> None:
    if switch not in SentenceTransformerTrainingArguments.__dataclass_fields__:
        pytest.skip("Transformers has the older name only")
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        built = build_arguments({"output_dir": str(tmp_path), switch: True})
    assert built.gradient_checkpointing and built.gradient_checkpointing_kwargs == {"use_reentrant": False}


def test_patience_evaluates_and_saves_at_the_log_lines(decoder: str, texts_file: str, tmp_path: Path) -> None:
    scores = tmp_path / "scores.csv"
    scores.write_text(f"{TEXT},{TEXT},5.0\n{TEXT},Rain fell.,0.5\n")
    for training, steps in (({}, 10), ({"logging_steps": 3}, 3), ({"eval_steps": 7}, 7)):
        made = simcse(decoder, texts_file, evaluation=str(scores), patience=2, training=training)
        made.check()
        assert (made.arguments().eval_steps, made.arguments().save_steps) == (steps, steps)


@pytest.mark.parametrize("data", [5, [5], {"path": 5}])
def test_pairs_that_are_no_name(decoder: str, data: Any) -> None:
    with pytest.raises(ValueError, match="The data is named by 5; a text, or a list of them, is expected"):
        Supervised(model=decoder, output="never-made", data=data).check()


class TestPlans:
    def steps(self, plan: dict[str, Any]) -> list[tuple[float, int | None]]:
        stages = build_stages(plan, "never-made", "no/model")
        return [(stage.arguments().max_steps, stage.stop_after) for stage in stages]

    def test_a_setting_of_all_stages_holds_in_the_default_plan(self) -> None:
        plan = default_plan("llm2vec", "texts.txt")
        assert self.steps(plan) == [(-1, 1000)] * 2
        assert self.steps(override(plan, "training.max_steps", 2)) == [(2, None)] * 2
        assert self.steps(override(plan, "stages.1.training.max_steps", 5000)) == [(-1, 1000), (5000, None)]
        plan["stages"][0]["dtype"] = "float32"
        assert [one.dtype for one in build_stages(override(plan, "dtype", "bfloat16"), "o", "m")] == ["bfloat16"] * 2

    @pytest.mark.parametrize(
        ("key", "message"),
        [
            ("trainin.max_steps", "there is no 'trainin'; did you mean 'training'"),
            ("scale", "scale cannot be changed"),
            ("stages.9.scale", "There is no stages.9.scale in the plan"),
            ("stages.0.scal", "does not have these settings: there is no 'scal'"),
            ("stages.1.scal", "did you mean 'scale'"),
        ],
    )
    def test_unknown_settings(self, key: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            build_stages(override(default_plan("llm2vec", "texts.txt"), key, 3), "never-made", "no/model")

    @pytest.mark.parametrize(
        ("key", "message"),
        [
            ("trainig", r"notes\): there is no 'trainig'; did you mean 'training'"),
            ("learning_rate", r"an argument of the trainer, training: \{learning_rate"),
            ("mlm_probability", r"a setting of a stage, stages: \[\{stage: ..., mlm_probability"),
            ("max_length", "a setting of a stage"),
            ("lora_r", r"adapter: \{r: ..., alpha: ...\}"),
            ("torch_dtype", "the setting is dtype"),
            ("max_seq_length", "for MNTP it is block_size"),
            ("model_name_or_path", "the plan's model says it"),
            ("published", "There are model, recipe, .*notes"),
        ],
    )
    def test_a_plan_has_no_setting_that_would_go_unread(self, key: str, message: str) -> None:
        plan = {**default_plan("llm2vec", "texts.txt"), "notes": {"published": {"mteb": 56.8}}}
        build_stages(plan, "never-made", "no/model")
        with pytest.raises(ValueError, match=message):
            build_stages({**plan, key: 1}, "never-made", "no/model")

    @pytest.mark.parametrize(
        ("training", "message"),
        [
            ({"output_dir": "elsewhere"}, "output_dir is not read: the command's --output"),
            ({"do_eval": True}, "do_eval is not read: the setting is evaluation"),
            ({"eval_strategy": "steps"}, "eval_strategy needs an evaluation"),
            ({"mlm_probability": 0.2}, "there is no 'mlm_probability': it is a setting of the stage itself"),
            ({"overwrite_output_dir": True}, "an interrupted run goes on"),
        ],
    )
    def test_arguments_that_no_stage_reads(self, training: dict[str, Any], message: str) -> None:
        plan = {"recipe": "llm2vec", "stages": [{"stage": "mntp", "data": "texts.txt", "training": training}]}
        with pytest.raises(ValueError, match=message):
            build_stages(plan, "never-made", "no/model")[0].arguments()

    @pytest.mark.parametrize("name", ["mntp", "supervised", "retrieval", "blended", "prompteol_cse", "scored"])
    def test_epochs_go_before_the_papers_steps(self, name: str) -> None:
        stage = {"stage": name, "data": "rows.jsonl", "training": {"num_train_epochs": 2}}
        for plan, steps in (
            ({"stages": [stage]}, -1),
            ({"stages": [stage], "training": {"max_steps": 7}}, -1),
            ({"stages": [{**stage, "training": {"num_train_epochs": 2, "max_steps": 7}}]}, 7),
        ):
            (built,) = build_stages(plan, "never-made", "no/model")
            assert (built.arguments().max_steps, built.arguments().num_train_epochs) == (steps, 2)

    def test_a_type_as_torch_writes_it(self) -> None:
        plan = {"dtype": "torch.bfloat16", "stages": [{"stage": "mntp", "data": "texts.txt"}]}
        assert build_stages(plan, "never-made", "no/model")[0].dtype == "bfloat16"

    def test_a_model_that_a_stage_names(self) -> None:
        stage = {"stage": "mntp", "data": "texts.txt", "model_name_or_path": "no/model"}
        with pytest.raises(ValueError, match="model_name_or_path of a stage is the plan's model here"):
            build_stages({"stages": [stage]}, "never-made")

    @pytest.mark.parametrize("key", ["lora_r", "dataset_file_path", "evaluation_strategy", "mask_token_type"])
    def test_names_of_llm2vec_under_training(self, key: str) -> None:
        plan = {**default_plan("llm2vec", "texts.txt"), "training": {key: 1}}
        with pytest.raises(ValueError, match=f"there is no '{key}': [^;]"):
            build_stages(plan, "never-made", "no/model")[0].arguments()

    def test_evaluating_all_stages_that_make_vectors(self) -> None:
        plan = evaluate_on(default_plan("llm2vec", "texts.txt"), "sts.csv")
        first, second = build_stages(plan, "never-made", "no/model")
        assert first.evaluation is None and second.evaluation == "sts.csv"
        assert second.training["eval_steps"] == 100
        plan = evaluate_on(override(default_plan("llm2vec", "texts.txt"), "training.max_steps", 4), "sts.csv")
        assert plan["stages"][1]["training"]["eval_steps"] == 1
        plan = default_plan("prompteol", pairs="pairs.jsonl")
        for key, value in (("eval_steps", 7), ("eval_on_start", False)):
            (made,) = build_stages(evaluate_on(override(plan, f"training.{key}", value), "sts.csv"), "out", "no/model")
            assert made.training[key] == value
        with pytest.raises(ValueError, match="makes vectors to evaluate on"):
            evaluate_on({"stages": [{"stage": "mntp"}]}, "sts.csv")

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("stages", 5, "The plan has no stages"),
            ("stages", [5], r"A stage of the plan is 5\. Its stage must be one of mntp"),
            ("stages", [{"stage": "superviced"}], "is 'superviced'; did you mean 'supervised'"),
            ("stages.1.stage", "simcs", "Its stage must be one of mntp, simcse"),
            ("stages.1.training", 5, "training must be a mapping"),
            ("training", 5, "training must be a mapping"),
            ("stages.1.stop_after", "abc", "stop_after is 'abc'; it must be a whole number"),
        ],
    )
    def test_evaluating_a_plan_with_wrong_settings(self, key: str, value: Any, message: str) -> None:
        plan = override(default_plan("llm2vec", "texts.txt"), key, value)
        with pytest.raises(ValueError, match=message):
            build_stages(evaluate_on(plan, "sts.csv"), "never-made", "no/model")


def test_a_configuration_of_llm2vecs_experiments_is_told_for_what_it_is() -> None:
    given = {"model_name_or_path": "org/decoder", "per_device_train_batch_size": 32, "lora_r": 16}
    with pytest.raises(ValueError, match="no stages, but model_name_or_path, lora_r, .*docs/coming_from/llm2vec.md"):
        build_stages(given, "never-made", "no/model")


class TestScoredPairs:
    def test_columns(self, tmp_path: Path) -> None:
        rows = [(TEXT, "Rain fell.", 0.5), (TEXT, TEXT, 5)]
        for names in (("sentence1", "sentence2", "score"), ("first", "second", "similarity"), ("a", "b", "label")):
            file = tmp_path / f"{names[0]}.jsonl"
            file.write_text("\n".join(json.dumps({"id": 7, **dict(zip(names, row, strict=True))}) for row in rows))
            pairs = open_scored_pairs(str(file))
            assert pairs.column_names == ["sentence1", "sentence2", "score"]
            assert [tuple(row.values()) for row in pairs] == rows
        bare = tmp_path / "bare.csv"
        bare.write_text("\n".join(f"{first},{second},{score}" for first, second, score in rows) + "\n")
        assert [tuple(row.values()) for row in open_scored_pairs(str(bare))] == rows

    def test_what_holds_no_scores(self, pairs_file: str) -> None:
        with pytest.raises(ValueError, match="two columns of texts and one of numbers"):
            open_scored_pairs(pairs_file)


def test_rows_that_are_not_told_from_each_other_may_share_texts(
    decoder: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every row of two classes holds both names: no two of them would fit one batch without duplicates."""
    (tmp_path / "moods.csv").write_text("text,label\n" + "\n".join(f"text {n},{n % 2}" for n in range(20)) + "\n")
    source = {
        "path": str(tmp_path / "moods.csv"),
        "task": "classification",
        "columns": {"text": "text", "label": "label"},
    }
    made = Supervised(
        model=decoder, output=str(tmp_path / "out"), data=[{**source, "classes": {"by": "names"}, "negatives": 1}]
    )
    made.check_data()
    assert made.arguments(made._data).batch_sampler == "batch_sampler" and not caplog.text
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("\n".join(json.dumps({"query": f"q {n}", "positive": f"p {n}"}) for n in range(80)))
    told = Supervised(model=decoder, output=str(tmp_path / "out"), data=str(pairs))
    assert told.arguments(told._data).batch_sampler == "no_duplicates"


class TestDataThatTeachesNothing:
    def write(self, folder: Path, rows: list[dict[str, Any]]) -> str:
        file = folder / "pairs.jsonl"
        file.write_text("\n".join(map(json.dumps, rows)) + "\n")
        return str(file)

    def test_texts(self, decoder: str, texts_file: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        file = tmp_path / "texts.txt"
        for lines, message in (([TEXT], "There is one row in"), ([TEXT] * 40, "All 40 rows of .* have the same text")):
            file.write_text("\n".join(lines) + "\n")
            with pytest.raises(ValueError, match=message):
                simcse(decoder, str(file)).check()
        file.write_text(f"{TEXT}\nRain fell.\n")
        with caplog.at_level(logging.WARNING, "st_llm2vec"):
            simcse(decoder, str(file)).check()
        assert "has few different texts (2 in" in caplog.text
        caplog.clear()
        simcse(decoder, texts_file, training={"per_device_train_batch_size": 8}).check()
        assert not caplog.text
        with pytest.raises(ValueError, match="A batch holds one row"):
            simcse(decoder, texts_file, training={"per_device_train_batch_size": 1}).check()

    @pytest.mark.parametrize("rows", [1, 40])
    def test_pairs(self, decoder: str, tmp_path: Path, rows: int) -> None:
        pairs = [{"query": "the mill", "positive": f"{TEXT} {number}"} for number in range(rows)]
        made = Supervised(model=decoder, output="never-made", data={"path": self.write(tmp_path, pairs)})
        with pytest.raises(ValueError, match="one row in .*jsonl" if rows == 1 else "the same text in 'query'"):
            made.check()

    def test_hard_negatives_are_something_to_tell_apart(self, decoder: str, tmp_path: Path) -> None:
        pairs = [{"query": "the mill", "positive": TEXT, "negative": "Rain fell."}]
        Supervised(model=decoder, output="never-made", data={"path": self.write(tmp_path, pairs)}).check()


class TestChangedFiles:
    @pytest.mark.parametrize("finished", [True, False])
    def test_a_run_knows_the_files_that_it_began_with(
        self, decoder: str, tmp_path: Path, pairs_file: str, finished: bool
    ) -> None:
        data, scores = tmp_path / "pairs.jsonl", tmp_path / "scores.csv"
        rows = Path(pairs_file).read_text()
        data.write_text(rows)
        scores.write_text(f"{TEXT},{TEXT},5.0\n{TEXT},Rain fell.,0.5\n")

        def made() -> Stage:
            return Supervised(
                model=decoder, output=str(tmp_path / "out"), data={"path": str(data)}, evaluation=str(scores)
            )

        made().begin()
        data.write_text(rows[: rows.index("\n") + 1] * 2)
        made().begin()  # nothing is trained yet
        (tmp_path / "out/checkpoints/checkpoint-1").mkdir(parents=True)
        if finished:
            made().folder.finish()
        data.touch()
        assert made().begin() is not finished
        data.write_text(rows)
        with pytest.raises(ValueError, match=f"holds another run: the file {data} has changed since"):
            made().begin()
        data.unlink()
        if finished:
            assert not made().begin(), "a finished run does not need its data any more"

    def test_another_file_of_a_pattern(self, decoder: str, tmp_path: Path, texts_file: str) -> None:
        (tmp_path / "data").mkdir()
        text = Path(texts_file).read_text()
        (tmp_path / "data/1.txt").write_text(text)

        def made() -> Stage:
            return MNTP(model=decoder, output=str(tmp_path / "out"), data=str(tmp_path / "data/*.txt"))

        made().begin()
        (tmp_path / "out/checkpoints/checkpoint-1").mkdir(parents=True)
        (tmp_path / "data/2.txt").write_text(text)
        with pytest.raises(ValueError, match=r"2.txt was not read then"):
            made().begin()

    def test_a_folder_that_records_no_files(self, decoder: str, tmp_path: Path, texts_file: str) -> None:
        made = simcse(decoder, texts_file)
        made.output = str(tmp_path / "out")
        made.begin()
        made.folder.finish()
        record = json.loads((tmp_path / "out/training_run.json").read_text())
        (tmp_path / "out/training_run.json").write_text(json.dumps({**record, "files": {}}))
        assert not made.begin()


def test_flag_embedding_rows(tmp_path: Path) -> None:
    from st_llm2vec.data import build_training_data

    rows = [
        {
            "query": "mill",
            "pos": [TEXT, "A mill."],
            "neg": ["Dust.", "Rain."],
            "pos_scores": [1, 2],
            "prompt": "Find it:",
        },
        {"query": "rain", "pos": ["Rain fell."], "neg": ["Dust."], "pos_scores": [3], "prompt": "Find it:"},
    ]
    data = build_training_data([{"path": Dataset.from_list(rows), "negatives": 2}])
    assert data.dataset.to_list() == [
        {"query": "mill", "positive": TEXT, "negative_1": "Dust.", "negative_2": "Rain."},
        {"query": "mill", "positive": "A mill.", "negative_1": "Dust.", "negative_2": "Rain."},
        {"query": "rain", "positive": "Rain fell.", "negative_1": "Dust.", "negative_2": "Dust."},
    ]
    assert data.prompts == {"query": "Find it:"}
    rows[1]["prompt"] = "Name it:"
    with pytest.raises(ValueError, match="have 2 instructions in 'prompt'"):
        build_training_data([{"path": Dataset.from_list(rows)}])
    given = build_training_data([{"path": Dataset.from_list(rows), "query_instruction": "Get it:"}])
    assert given.prompts == {"query": "Get it:"}


def test_an_adapters_other_settings_are_those_of_the_stages_paper() -> None:
    stage = build_stage("prompteol_cse", model="m", output="o", data="d", adapter={"alpha": 32})
    assert (stage.adapter.r, stage.adapter.alpha) == (64, 32)
