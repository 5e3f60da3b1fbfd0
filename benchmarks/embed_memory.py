"""Does `st-llm2vec embed` keep its memory whatever the corpus, and its output however often it is killed?

    python benchmarks/embed_memory.py                          # 10,000 and 100,000 texts, ten kills
    python benchmarks/embed_memory.py --small 500 --large 2000 --shard-rows 500 --kills 2

The texts are numbered captions of a dozen words; the encoder is the decoder in the box with the recipe `llm2vec`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from st_llm2vec import convert, decoder_path

NOUNS = (
    "ship",
    "violin",
    "harbour",
    "lantern",
    "meadow",
    "clock",
    "child",
    "letter",
    "river",
    "garden",
    "mill",
    "bell",
)
VERBS = ("passes", "finds", "leaves", "remembers", "crosses", "hides", "follows", "mends", "paints", "watches")


def write_corpus(path: Path, rows: int) -> None:
    words = random.Random(rows)
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            first, second, third = words.sample(NOUNS, 3)
            text = f"The old {first} {words.choice(VERBS)} the {second} near a quiet {third}, number {number}."
            file.write(json.dumps({"text": text}) + "\n")


def command(encoder: Path, corpus: Path, output: Path, arguments: argparse.Namespace) -> list[str]:
    options = ["--shard-rows", str(arguments.shard_rows), "--batch-size", str(arguments.batch_size), "--json"]
    program = [sys.executable, "-m", "st_llm2vec", "embed", str(encoder)]
    return [*program, "--input", str(corpus), "--output", str(output), *options]


def measured(arguments: list[str]) -> dict[str, Any]:
    """Run to the end; seconds, and the peak of the resident memory in MB."""
    begun = time.perf_counter()
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE)
    answer = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(arguments)} ended with status {status}.")
    return {**json.loads(answer), "seconds": time.perf_counter() - begun, "peak_mb": usage.ru_maxrss / 1024}


def killed(arguments: list[str], output: Path, shards: int, after: float) -> int:
    """Kill some seconds after so many shards are there, and count them."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(output.glob("shards/[0-9]*"))) < shards:
        time.sleep(0.01)
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return len(list(output.glob("shards/[0-9]*")))


def digest(folder: Path) -> str:
    """Of all files: their names and their bytes."""
    found = hashlib.sha256()
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        found.update(str(file.relative_to(folder)).encode() + file.read_bytes())
    return found.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=100_000)
    parser.add_argument("--shard-rows", type=int, default=2_000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        convert(decoder_path(), "llm2vec").save(str(work / "encoder"))
        runs = {}
        for rows in (arguments.small, arguments.large):
            write_corpus(work / f"{rows}.jsonl", rows)
            full = command(work / "encoder", work / f"{rows}.jsonl", work / f"out-{rows}", arguments)
            runs[rows] = run = measured(full)
            print(
                f"{rows:>9,} texts: peak {run['peak_mb']:,.0f} MB, {run['seconds']:,.0f} s, "
                f"{run['tokens'] / run['seconds']:,.0f} tokens/s with loading",
                flush=True,
            )
        growth = runs[arguments.large]["peak_mb"] - runs[arguments.small]["peak_mb"]
        print(f"growth: {growth:+,.0f} MB", flush=True)

        output = work / "killed"
        resumed = command(work / "encoder", work / f"{arguments.large}.jsonl", output, arguments)
        chance = random.Random(arguments.seed)
        shards = sorted((work / f"out-{arguments.large}" / "shards").iterdir(), key=lambda file: file.stat().st_mtime)
        each = (shards[-1].stat().st_mtime - shards[0].stat().st_mtime) / max(len(shards) - 1, 1)
        for number, at in enumerate(sorted(chance.sample(range(len(shards) - 1), arguments.kills)), start=1):
            made = killed(resumed, output, at, chance.uniform(0, 0.9) * each)
            print(f"kill {number:>2}: {made} of {len(shards)} shards are there", flush=True)
        run = measured(resumed)
        same = digest(output) == digest(work / f"out-{arguments.large}")
        print(f"resumed to the end: {run['rows']:,} rows, output identical to the byte: {same}", flush=True)
        shutil.rmtree(output)
        if not same:
            raise SystemExit("The output differs from that of an uninterrupted run.")


if __name__ == "__main__":
    main()
