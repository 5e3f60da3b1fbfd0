"""The search for PromptEOL's demonstration on two real decoders: what it finds, what that scores, what a candidate costs.

    python scripts/real_decoders.py             # brings the decoders
    python -m benchmarks.demonstrations         # every row that is not there yet, then docs/demonstrations.md

STS-B's CSV files are read from `ST_LLM2VEC_DATA`. Each row runs in a process of its own and is kept in
benchmarks/results/demonstrations.jsonl, and so is every candidate's every row (`--work`): an interrupted run goes on. `--again`
measures all rows anew.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.kept_rows import ROOT, measure_rows, parse_options
from benchmarks.real_decoders import machine
from st_llm2vec.demonstrations.candidates import built_in_candidates, read_scored_pairs, read_sentences
from st_llm2vec.demonstrations.dev_sets import ScoredPairs
from st_llm2vec.demonstrations.generated import generated_candidates
from st_llm2vec.demonstrations.search import KeptNumbers, search
from st_llm2vec.demonstrations.trial import Candidate, open_trial, show
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.packed.enable import padding_free
from st_llm2vec.recipe.config import Demonstration
from tests.real.models import MODELS, NAMES

MODULE = "benchmarks.demonstrations"
DATA = Path(os.environ.get("ST_LLM2VEC_DATA", ROOT.parent / "shared" / "data")) / "sts"
RESULTS = ROOT / "benchmarks" / "results" / "demonstrations.jsonl"
TARGET = ROOT / "docs" / "demonstrations.md"
FIELDS = ("decoder", "part")
DEV_PAIRS = {"smollm2": 500, "gemma3": 200}
SEARCH, TESTED = "search", ("found", "built-in", "none")
GENERATED, FIRST_ROWS, SHOWN = 40, 16, 12
NONE, BUILT_IN = Candidate((), "none"), built_in_candidates()[0]
INTRODUCTION = """# The search for a demonstration

Written by `python -m benchmarks.demonstrations` on {machine}; nothing here is typed by hand. [evaluation.md](evaluation.md)
says how to search for another decoder or another task.

PromptEOL shows a decoder one sentence with its word before it asks for a word of the text. Which one it shows matters. Candidates
are the {built_in} sentences and words that the package carries, and {generated} sentences of STS-B's training part for which the
decoder itself found the word, so that no other model is needed. All of them are scored on {first} pairs of STS-B's dev part, the
best third on three times as many, and so on, up to the first 500 (SmolLM2) or 200 pairs (Gemma 3) of it. Spearman, times 100,
float32. The test part (1,379 pairs) is scored once, for the demonstration that dev has chosen and those beside it.

| decoder | demonstration | dev | test |
|---|---|---:|---:|"""
COST = """
## What a candidate costs

Seconds of one core for {first} pairs, the first stage. The demonstration and the template before the text are the same for all
texts, and pass the model once in a batch; without that each text carries them. *The search* is all candidates and stages, *all on
all pairs* what the same candidates would take without stages, both at the first stage's cost of a pair.

| decoder | candidates | a candidate, s | without the shared prefix, s | the search, s | all on all pairs, s |
|---|---:|---:|---:|---:|---:|"""
FURTHEST = """
## {decoder}: the {shown} that came furthest

Stages (pairs: candidates): {stages}.

| demonstration | word | from | pairs | dev |
|---|---|---|---:|---:|"""


def measure(decoder: str, part: str, work: Path) -> dict[str, Any]:
    """One row."""
    row: dict[str, Any] = {"decoder": decoder, "part": part, "machine": machine()}
    folder = str(MODELS / NAMES[decoder])
    trial = open_trial(folder, "prompteol", dtype=torch.float32, device="cpu")
    dev = read_scored_pairs(DATA / "stsb-en-dev.csv", DEV_PAIRS[decoder])
    candidates = [*built_in_candidates(), *_generated(decoder, folder, work)]
    options: dict[str, Any] = {"against": (BUILT_IN, NONE), "first_rows": FIRST_ROWS, "cache": work / decoder}
    found = search(trial, candidates, dev, **options)
    if part == SEARCH:
        return {**row, **found.to_dict(), "cost": _cost(trial, dev, BUILT_IN)}
    named = dict(zip(TESTED, (found.found.candidate, BUILT_IN, NONE), strict=True))
    test = KeptNumbers(trial, read_scored_pairs(DATA / "stsb-en-test.csv"), work / decoder)
    return {**row, "test": test.measure(named[part]).score}


def _generated(decoder: str, folder: str, work: Path) -> list[Candidate]:
    """The decoder's own words, generated once."""
    file = work / f"{decoder}-words.json"
    if not file.is_file():
        sentences = read_sentences(DATA / "stsb-en-train.csv")
        words = generated_candidates(folder, sentences, GENERATED, dtype=torch.float32)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps([asdict(one.demonstrations[0]) for one in words], indent=1), encoding="utf-8")
    written = json.loads(file.read_text(encoding="utf-8"))
    return [Candidate((Demonstration(**one),), "generated") for one in written]


def _cost(trial: TextEncoder, dev: ScoredPairs, candidate: Candidate) -> dict[str, float]:
    """Seconds of a core for a candidate's first stage, with the prefix passed once and with every text; best of three."""
    packed = padding_free(trial.transformer)
    assert packed is not None and packed.shares_prefix
    rows, found = range(FIRST_ROWS), {}
    for name, shares in (("shared", True), ("not shared", False)):
        packed.shares_prefix = shares
        taken = []
        for _ in range(3):
            begun = time.process_time()
            dev.measure(show(trial, candidate.demonstrations), rows)
            taken.append(time.process_time() - begun)
        found[name] = min(taken)
    packed.shares_prefix = True
    return found


def write_page(rows: list[dict[str, Any]]) -> None:
    """Write docs/demonstrations.md."""
    searches = {row["decoder"]: row for row in rows if row["part"] == SEARCH}
    tests = {(row["decoder"], row["part"]): f"{row['test']:.1f}" for row in rows if row["part"] in TESTED}
    generated = " or ".join(dict.fromkeys(str(_from(row, "generated")) for row in searches.values()))
    about = {"machine": rows[-1]["machine"], "built_in": len(built_in_candidates()), "generated": generated}
    lines = [INTRODUCTION.format(first=FIRST_ROWS, **about)]
    for decoder, row in searches.items():
        named = {"none": row["against"][1], "built-in": row["against"][0], "found": row["found"]}
        for name, one in named.items():
            test = tests.get((decoder, name), "")
            said = "none" if name == "none" else f"{name}: {_said(one)}"
            lines.append(f"| {NAMES[decoder]} | {said} | {one['score']:.1f} | {test} |")
    lines.append(COST.format(first=FIRST_ROWS))
    lines += [_cost_line(decoder, row) for decoder, row in searches.items()]
    for decoder, row in searches.items():
        stages = ", ".join(f"{pairs}: {count}" for pairs, count in row["stages"])
        lines.append(FURTHEST.format(decoder=NAMES[decoder], shown=SHOWN, stages=stages))
        lines += [_line(one) for one in row["tried"][:SHOWN]]
    TARGET.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _from(row: dict[str, Any], source: str) -> int:
    return sum(one["candidate"]["source"] == source for one in row["tried"])


def _said(tried: dict[str, Any]) -> str:
    [one] = tried["candidate"]["demonstrations"]
    return f"{one['text']} *{one['response']}*"


def _line(tried: dict[str, Any]) -> str:
    shown = tried["candidate"]["demonstrations"] or [{"text": "none", "response": ""}]
    cells = (shown[0]["text"], shown[0]["response"], tried["candidate"]["source"], str(tried["rows"]))
    return f"| {' | '.join(cells)} | {tried['score']:.1f} |"


def _cost_line(decoder: str, row: dict[str, Any]) -> str:
    a_pair = row["cost"]["shared"] / FIRST_ROWS
    met, everything = sum(one["rows"] for one in row["tried"]), len(row["tried"]) * DEV_PAIRS[decoder]
    numbers = (f"{row['cost'][name]:.1f}" for name in ("shared", "not shared"))
    whole = (f"{pairs * a_pair:,.0f}" for pairs in (met, everything))
    return f"| {' | '.join((NAMES[decoder], str(len(row['tried'])), *numbers, *whole))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / ".work" / "demonstrations", help="where numbers are kept")
    given = parse_options(parser, FIELDS)
    if given.one:
        print(json.dumps(measure(*given.one, given.work)))
        return
    there = [name for name in NAMES if (MODELS / NAMES[name]).is_dir()]
    wanted = [(name, SEARCH) for name in there] + [(name, part) for part in TESTED for name in there]
    measure_rows(MODULE, RESULTS, FIELDS, wanted, write_page, given.again, ("--work", str(given.work.absolute())))


if __name__ == "__main__":
    main()
