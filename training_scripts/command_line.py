"""The command line that the stages' scripts share: a plan, what to change of it, and where the run goes."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from st_llm2vec import assets, decoder_path
from st_llm2vec.training import Stage, build_stages, read_plan
from st_llm2vec.training.pipeline import SHARED_FIELDS, change, read_value

# A run that shows that everything works, within seconds on a CPU. It teaches nothing.
TINY = {"max_steps": 3, "per_device_train_batch_size": 4, "warmup_steps": 1, "logging_steps": 1, "save_steps": 1}


def read_command_line(header: str, *names: str) -> list[Stage]:
    """Read the stages that a script trains from its command line.

    Args:
        header: The script's header, shown by ``--help``.
        names: The stages' names, in the order in which they are trained.

    Returns:
        The stages, ready to start.
    """
    parser = argparse.ArgumentParser(description=header, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", help="a plan, such as those in training_scripts/configs; else the paper's defaults")
    parser.add_argument("--model", help="where to start: a decoder, or the folder of the stage before")
    parser.add_argument("--output", required=True, help="the run's folder; the same command again continues in it")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes", help=SET_HELP)
    parser.add_argument("--tiny", action="store_true", help="three steps of the decoder in the box on a few texts")
    args = parser.parse_args()
    try:
        if args.tiny and args.config:
            raise ValueError("--tiny has settings of its own; leave --config out.")
        plan = tiny_plan(args.output, names) if args.tiny else read_plan(args.config) if args.config else {}
        plan = only(plan, names, args.model)
        for one in args.changes:
            plan = set_value(plan, one)
        stages = build_stages(plan, args.output, args.model)
        for stage in stages:
            stage.arguments()  # refuses what is no training argument, and finds out how many processes there are
        return stages
    except ValueError as error:
        parser.error(str(error))


SET_HELP = (
    "change a field of the stage or of its training arguments, e.g. data=texts.txt, adapter.r=8, "
    "training.learning_rate=1e-4; with the stage's name in front, of that stage only: blended.training.max_steps=100"
)


def only(plan: dict[str, Any], names: tuple[str, ...], model: str | None) -> dict[str, Any]:
    """A plan with these stages only, in which each carries all its settings."""
    entries = plan.get("stages", [{"stage": name} for name in names])
    places = [place for place, entry in enumerate(entries) if entry["stage"] in names]
    if [entries[place]["stage"] for place in places] != list(names):
        raise ValueError(
            f"The plan has the stages {', '.join(entry['stage'] for entry in entries)}; this script trains "
            f"{', then '.join(names)}."
        )
    shared = {name: plan[name] for name in SHARED_FIELDS if name in plan}
    if places[0] > 0:
        shared.pop("changes", None)  # they are made when the first stage converts the decoder
        if model is None:
            raise ValueError(
                f"The plan begins with {entries[0]['stage']}; name the folder that the stage before left: --model FOLDER."
            )
    training = shared.get("training", {})
    stages = [
        {**shared, **entries[place], "training": {**training, **entries[place].get("training", {})}} for place in places
    ]
    return {"model": plan.get("model"), "stages": stages}


def set_value(plan: dict[str, Any], text: str) -> dict[str, Any]:
    """Make one change, KEY=VALUE, in the stages that it is for."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set {text} is not KEY=VALUE, such as training.max_steps=100.")
    first, _, rest = key.partition(".")
    names = [entry["stage"] for entry in plan["stages"]]
    parsed = read_value(value)
    for place, name in enumerate(names):
        if first not in names or first == name:
            plan = change(plan, f"stages.{place}.{rest if first == name else key}", parsed)
    return plan


def tiny_plan(output: str, names: tuple[str, ...]) -> dict[str, Any]:
    """The decoder in the box, and the package's few texts: a title, its text, and another title's text."""
    corpus = Path(assets.__file__).parent / "corpus.jsonl"
    texts = [json.loads(line) for line in corpus.read_text(encoding="utf-8").splitlines()]
    pairs = Path(f"{output}-pairs.jsonl")
    if not pairs.exists():
        rows = [
            {"query": one["title"], "positive": one["text"], "negative": texts[place - 1]["text"]}
            for place, one in enumerate(texts)
        ]
        pairs.parent.mkdir(parents=True, exist_ok=True)
        staging = pairs.with_name(f".{pairs.name}-{os.getpid()}")
        staging.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        os.replace(staging, pairs)
    titles = {"path": str(pairs), "name": "titles", "query_instruction": "Find the text with this title:"}
    same = {"path": str(pairs), "name": "same", "query_instruction": "Find the same topic:", "symmetric": True}
    fields: dict[str, dict[str, Any]] = {
        "mntp": {"data": str(corpus), "block_size": 64},
        "simcse": {"data": str(corpus), "max_length": 64},
        "supervised": {"data": [titles, same], "max_length": 64},
        "retrieval": {"data": [titles], "max_length": 64},
        "blended": {"data": [titles, same], "max_length": 64},
        "prompteol_cse": {"data": {"path": str(pairs)}, "max_length": 64},
    }
    return {
        "model": decoder_path(),
        "training": TINY,
        "stages": [{"stage": name, **fields[name]} for name in names],
    }
