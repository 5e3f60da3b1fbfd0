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

from st_llm2vec import load
from st_llm2vec.training import MNTP, SimCSE, Stage, Supervised, build_stage
from st_llm2vec.training.named_data import open_scored_pairs
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
    moods = {**source, "classes": {"by": "names"}, "negatives": 1}
    training = {"max_steps": 2, "per_device_train_batch_size": 4, "use_cpu": True}
    options = {"data": [moods, {"path": str(pairs)}], "max_length": 16, "training": training}
    both = Supervised(model=decoder, output=str(tmp_path / "looked at"), **options)
    both.check_data()
    encoder = both.start()
    both.attach(encoder)
    batches = both.trainer(encoder, both._data).get_train_dataloader().batch_sampler
    sizes = {(min(batch) < 20, len(batch)) for batch in batches}
    assert sizes == {(True, 4), (False, 4)} and "less to tell apart" not in caplog.text
    Supervised(model=decoder, output=str(tmp_path / "both"), **options).run()
    assert load(tmp_path / "both").manifest.stages[-1]["steps"] == 2


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
