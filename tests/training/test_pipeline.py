"""Plans: which keys and settings they have, what goes before what, and evaluating all of their stages."""

from __future__ import annotations

from typing import Any

import pytest

from st_llm2vec.training import build_stages
from st_llm2vec.training.pipeline import default_plan, evaluate_on, override


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

    def test_an_adapters_fields_go_before_the_plans(self) -> None:
        plan = {"model": "no/model", "adapter": {"r": 64, "targets": ["q_proj"]}, "stages": []}
        plan["stages"] = [
            {"stage": "mntp", "data": "a.txt", "adapter": {"dropout": 0.2}},
            {"stage": "simcse", "data": "a.txt"},
        ]
        first, second = (one.adapter for one in build_stages(plan, "never-made"))
        assert (first.r, first.targets, first.dropout) == (64, ["q_proj"], 0.2) and second.r == 64
        plan["stages"][0]["adapter"] = None
        assert build_stages(plan, "never-made")[0].adapter is None

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
