"""Encoding: this library beside plain Sentence Transformers and llm2vec, interleaved, on the same weights and texts.

    python -m benchmarks.llm2vec_environment          # once; without it llm2vec is left out
    python -m benchmarks.encoding                     # docs/benchmarks/encoding.{json,md}
    python -m benchmarks.encoding --growing           # docs/benchmarks/encoding_growing.{json,md}

`make gpu` does the same at 1.3B and 7B on a GPU, in benchmarks/gpu/.

Vectors are compared, and the command fails where they differ. Models have random weights; real texts are read from
--data, and generated where it is not there. Leave the machine alone while it runs.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import llm2vec_environment
from benchmarks.side_by_side.contenders import CONTENDERS, Field
from benchmarks.side_by_side.flops import matmul_parameters
from benchmarks.side_by_side.growing import SIZES, grow
from benchmarks.side_by_side.machine import command, describe_machine
from benchmarks.side_by_side.measure import between_texts, disagreements, encode_in_turns
from benchmarks.side_by_side.report import DOCS, encoding_page, growing_page, write_page
from benchmarks.side_by_side.shapes import SHAPES, build, tokenizer
from benchmarks.side_by_side.texts import Source, Texts
from st_llm2vec import InstructionFormatter
from st_llm2vec.folder.manifest_file import read_manifest
from st_llm2vec.modules.formatter import UNLIMITED

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("ST_LLM2VEC_DATA", ROOT.parent / "shared" / "data"))
RECIPE_OF = {
    "short": "llm2vec",
    "even": "llm2vec",
    "long-tailed": "llm2vec",
    "long": "llm2vec",
    "demonstrations": "prompteol",
}
FOLDERS = ("--work", "--llm2vec", "--data", "--output")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, metavar="SHAPE", help=", ".join(SHAPES))
    parser.add_argument("--datasets", nargs="+", choices=RECIPE_OF, default=list(RECIPE_OF))
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, metavar="NAME", help=", ".join(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each contender; all cores by default")
    parser.add_argument("--growing", action="store_true", help="1,000 to 100,000 texts instead")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="numbers of texts for --growing")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmarks", help="models, vectors and logs")
    parser.add_argument("--llm2vec", type=Path, default=llm2vec_environment.DEFAULT, help="llm2vec's environment")
    parser.add_argument("--data", type=Path, default=DATA, help="real texts")
    parser.add_argument("--output", type=Path, default=DOCS)
    given = parser.parse_args(arguments)
    given.work, given.in_process = given.work.resolve(), False
    given.shapes = given.shapes or ["base", "deep", "grouped"]
    given.contenders = given.contenders or [name for name, one in CONTENDERS.items() if not one.on_gpu]
    return given


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """All shapes, recipes and sets of texts."""
    texts = Texts(Source(given.data), tokenizer())
    found: dict[str, Any] = {"shapes": {}, "texts": {}, "results": [], "missing": [], "loading": []}
    for shape in given.shapes:
        sizes = asdict(SHAPES[shape])
        parameters = matmul_parameters(sizes) + sizes["vocab_size"] * sizes["hidden_size"]
        found["shapes"][shape] = {**sizes, "parameters": parameters}
        for recipe in dict.fromkeys(RECIPE_OF[name] for name in given.datasets):
            datasets = [name for name in given.datasets if RECIPE_OF[name] == recipe]
            measure_recipe(given, shape, recipe, datasets, texts, found)
    found["disagreements"] = disagreements(found["results"])
    return found


def measure_recipe(
    given: argparse.Namespace, shape: str, recipe: str, datasets: list[str], texts: Texts, found: dict[str, Any]
) -> None:
    """The sets of texts of one recipe, on one shape, with the same processes."""
    vectors = given.work / "vectors"
    written = {name: texts.write(name, given.work / "texts") for name in datasets}
    if recipe == "prompteol":
        written = {name: with_template(build(shape, recipe, given.work), one) for name, one in written.items()}
    field = Field(shape, recipe, given.contenders, given.work, given.llm2vec, given.threads, given.in_process)
    found["loading"] += [
        {"shape": shape, "recipe": recipe, "contender": name, **field.loaded[name]}
        for name in given.contenders
        if name in field.loaded
    ]
    for name, one in written.items():
        rows = encode_in_turns(field, one, found["shapes"][shape], given.rounds, vectors)
        apart = between_texts(vectors / f"{rows[0]['contender']}.npy") if rows else None
        found["results"] += [{"shape": shape, "dataset": name, "between_texts": apart, **row} for row in rows]
        found["missing"] += [
            {"shape": shape, "dataset": name, "contender": who, "reason": why} for who, why in field.absent().items()
        ]
        found["texts"][name] = describe_texts(one)
        medians = ", ".join(f"{row['contender']} {row['median_seconds']:.2f} s" for row in rows)
        print(f"{shape}, {name}: {medians}", flush=True)
    field.close()


def with_template(folder: Path, texts: dict[str, Any]) -> dict[str, Any]:
    """The lengths of whole prompts, and how many of their tokens all texts share."""
    formatter = InstructionFormatter(**read_manifest(folder).config.formatter_config())
    around = formatter([""], None, tokenizer(), UNLIMITED)["input_ids"].shape[1]
    lengths = [length - 1 + around for length in texts["lengths"]]
    return {**texts, "lengths": lengths, "note": f"{around} of them the template's"}


def describe_texts(texts: dict[str, Any]) -> dict[str, Any]:
    """A set of texts in numbers."""
    lengths = texts["lengths"]
    numbers = {
        "count": len(lengths),
        "tokens": sum(lengths),
        "mean": sum(lengths) / len(lengths),
        "longest": max(lengths),
    }
    return {**numbers, "source": texts["source"], "note": texts.get("note", "")}


def main(arguments: list[str] | None = None) -> None:
    given = parse(arguments)
    head = {
        "command": command("benchmarks.encoding", FOLDERS, arguments),
        "machine": describe_machine(given.threads),
        "rounds": given.rounds,
    }
    if given.growing:
        texts = Texts(Source(given.data), tokenizer())
        found = {**head, **grow(given, texts)}
        write_page("encoding_growing", found, growing_page(found), given.output)
        return
    found = {**head, **measure(given)}
    write_page("encoding", found, encoding_page(found), given.output)
    if found["disagreements"]:
        raise SystemExit("\n".join(found["disagreements"]))


if __name__ == "__main__":
    main()
