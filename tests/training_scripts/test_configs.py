"""The plans of published models: each builds, and each value says where it comes from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from st_llm2vec import convert, get_recipe
from st_llm2vec.data import TrainingSource
from st_llm2vec.training import Stage, build_stages, read_plan

FOLDER = Path(__file__).parents[2] / "training_scripts"
PLANS = sorted((FOLDER / "configs").glob("*.yaml"))
ACCELERATE = sorted((FOLDER / "accelerate").glob("*.yaml"))
VALUE = re.compile(r"\s*(- )?[\w.]+: *[^\s#]")

by_name = pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)


def test_the_published_models_are_there() -> None:
    names = {path.stem for path in PLANS}
    bases = ("sheared_llama_1.3b", "llama2_7b", "mistral_7b", "llama3_8b", "llama3.1_8b")
    assert {f"llm2vec_{base}_{kind}" for base in bases for kind in ("unsupervised", "supervised")} <= names
    assert {"nv_embed_v1", "nv_embed_v2", "e5_mistral_7b", "echo_mistral_7b"} <= names
    sizes = ("opt_1.3b", "opt_2.7b", "opt_6.7b", "opt_13b", "llama_7b", "llama_13b")
    assert {f"prompteol_cse_{size}" for size in sizes} <= names


@by_name
def test_a_plan_builds_and_its_steps_have_the_published_batch(path: Path, tmp_path: Path) -> None:
    plan = read_plan(path)
    stages = build_stages(plan, tmp_path / "run")
    notes = plan["notes"]
    assert set(notes["devices"]) == set(notes["batch"]) == {stage.called for stage in stages}
    for stage in stages:
        get_recipe(stage.recipe).replace(**stage.changes)
        for source in sources(stage):
            assert TrainingSource.from_dict(source).query_instruction is not None or stage.called == "prompteol_cse"
        arguments = stage.arguments()
        assert isinstance(arguments.learning_rate, float)  # YAML reads 1e-4 as text
        rows = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
        assert rows * notes["devices"][stage.called] == notes["batch"][stage.called]


def sources(stage: Stage) -> list[dict]:
    """What a contrastive stage reads; none for the stages that read texts."""
    found = stage.data if isinstance(stage.data, list) else [stage.data]
    return [source for source in found if isinstance(source, dict)]


@by_name
def test_every_value_has_its_source_beside_it(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    bare = [line for line in lines if VALUE.match(line) and not re.search(r"  # \S", line)]
    assert not bare
    explained = {
        line.split()[1] for line in lines if re.match(r"# (paper|file|script|code|data|mteb|README|\[\w\]) ", line)
    }
    for line in lines:
        source = line.rpartition("  # ")[2] if VALUE.match(line) else ""
        if source.startswith("["):
            assert source.split("]")[0] + "]" in explained, line
    assert {"paper", "[U]"} <= explained


@by_name
def test_a_plan_has_its_published_score_and_says_that_it_was_not_run(path: Path) -> None:
    plan = read_plan(path)
    [score] = [
        value for name, value in plan["notes"]["published"].items() if name in ("mteb_56_average", "sts_7_average")
    ]
    [row] = [
        line for line in (FOLDER / "README.md").read_text(encoding="utf-8").splitlines() if f"| `{path.stem}` |" in line
    ]
    _, _, stages, shown, run, _ = (cell.strip() for cell in row.split("|"))
    assert stages == ", ".join(entry["stage"] for entry in plan["stages"])
    assert shown.startswith("none found" if score is None else f"{score:.2f}")
    assert run == ("yes" if plan["notes"]["run_here"] else "no")


@pytest.mark.parametrize("name", ["llm2vec_mistral_7b_supervised", "llm2vec_llama3_8b_supervised"])
def test_what_a_plan_changes_of_its_recipe_converts(name: str, decoder: str) -> None:
    changes = read_plan(FOLDER / "configs" / f"{name}.yaml")["changes"]
    encoder = convert(decoder, "llm2vec", **changes)
    plain = encoder.encode("a cat")
    assert abs(plain @ convert(decoder, "llm2vec").encode("a cat")) < 0.999
    assert abs(plain @ encoder.encode("a cat", prompt="Find the animal;")) < 0.999


@pytest.mark.parametrize("path", ACCELERATE, ids=lambda path: path.stem)
def test_a_launcher_config_is_read_and_says_whether_it_was_run(path: Path) -> None:
    assert load_config_from_file(str(path)).num_processes == 8
    header = "".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    assert "Not run" in header
    assert yaml.safe_load(path.read_text())["distributed_type"] in ("MULTI_GPU", "FSDP", "DEEPSPEED")
