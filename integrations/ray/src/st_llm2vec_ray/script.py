"""``st-llm2vec-ray``: embed a corpus on a Ray cluster from the command line."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import fields

import ray

from st_llm2vec.cli.console import quiet
from st_llm2vec.corpus import EmbeddingSettings, Progress, open_corpus
from st_llm2vec_ray.job import embed_corpus_on_ray

NUMBERS = ("batch_size", "truncate_dim", "calibration_rows", "max_chars", "shard_rows")


def main(arguments: list[str] | None = None) -> int:
    """Run the job.

    Args:
        arguments: The command's arguments; those of the process if not given.

    Returns:
        The exit code.
    """
    given = vars(_parser().parse_args(arguments))
    about_ray = {name: given.pop(name) for name in ("address", "actors", "gpus_per_actor", "cpus_per_actor")}
    output, address = given.pop("output"), about_ray.pop("address")
    corpus = ("dataset", "config", "split", "column", "id_column")
    described = {name: given.pop(name) for name in corpus} | {"revision": given.pop("dataset_revision")}
    inputs = given.pop("input")
    quiet()
    try:
        settings = EmbeddingSettings(**{name: value for name, value in given.items() if value is not None})
        source = open_corpus(inputs, **described)
        if not ray.is_initialized():
            ray.init(address=address, logging_level="warning")
        summary = embed_corpus_on_ray(source, output, settings, on_progress=_show, **about_ray)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps({"output": output, **summary}) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="st-llm2vec-ray", description="Embed a corpus on a Ray cluster.")
    parser.add_argument("encoder", help="a folder that every node sees, or a name on the Hugging Face Hub")
    parser.add_argument("--output", "-o", required=True, help="a folder that every node sees")
    parser.add_argument("--input", "-i", action="append", help="a file or folder that every node sees; may be repeated")
    for name in ("dataset", "config", "split", "dataset-revision", "column", "id-column"):
        parser.add_argument(f"--{name}", help="as for st-llm2vec embed")
    parser.add_argument("--address", help="the cluster; auto for the one this machine is part of, none for a local one")
    parser.add_argument("--actors", type=_actors, default=1, help="a number, or the least and the most: 4 or 4,16")
    parser.add_argument("--gpus-per-actor", type=float, default=0)
    parser.add_argument("--cpus-per-actor", type=float, default=1)
    for field in fields(EmbeddingSettings):
        option = f"--{field.name.replace('_', '-')}"
        if field.name == "normalize":
            parser.add_argument(option, action="store_true", help="as for st-llm2vec embed")
        elif field.name != "encoder":
            kind = int if field.name in NUMBERS else str
            parser.add_argument(option, type=kind, help="as for st-llm2vec embed")
    return parser


def _actors(text: str) -> int | tuple[int, int]:
    least, _, most = text.partition(",")
    return (int(least), int(most)) if most else int(least)


def _show(progress: Progress) -> None:
    left = "" if progress.seconds_left is None else f", {progress.seconds_left:,.0f} s left"
    sys.stderr.write(
        f"{progress.rows:,} of {progress.total:,} rows, {progress.texts_per_second:,.0f} texts/s, "
        f"{progress.tokens_per_second:,.0f} tokens/s{left}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
