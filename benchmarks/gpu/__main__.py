"""Everything that only a GPU can show, in one command and at most 8 minutes.

    make gpu                                # docs/benchmarks/gpu.{json,md}
    python -m benchmarks.gpu --sections families training
    python -m benchmarks.gpu --tiny         # every branch on a CPU, at a tiny size

It needs a Python with a CUDA build of PyTorch and this project's requirements, no network, 20 GB of disk (or of memory,
with --work on it) for 7B weights, and 80 GB of GPU memory; with less, leave encoding-7b out. The page is written after each
section, so what was measured is kept when a later one fails. Leave the machine alone while it runs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.encoding import DATA
from benchmarks.gpu import families, learn, page, throughput, train
from benchmarks.side_by_side.flops import copy_rate, matmul_rate
from benchmarks.side_by_side.machine import command, describe_machine
from benchmarks.side_by_side.report import DOCS, write_page
from benchmarks.side_by_side.worker import describe_error

SECTIONS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "families": families.measure,
    "training": train.measure,
    "encoding": partial(throughput.measure, shape="1.3b"),
    "encoding-7b": partial(throughput.measure, shape="7b"),
    "learning": learn.measure,
}
FOLDERS = ("--work", "--data", "--output", "--decoder")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=8, help="no section is begun after them")
    parser.add_argument("--decoder", help="what learns; the decoder in the box if not given")
    parser.add_argument("--tiny", action="store_true", help="on a CPU, at a tiny size")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--work", type=Path, help="for models and runs; a temporary folder if not given")
    parser.add_argument("--data", type=Path, default=DATA, help="real texts; generated where it is not there")
    parser.add_argument("--output", type=Path, default=DOCS)
    given = parser.parse_args(arguments)
    given.device, given.matmul = ("cpu" if given.tiny else "cuda"), None
    given.end = time.monotonic() + 60 * given.minutes
    if given.tiny:
        given.rounds, given.matmul = 1, 128
    elif not torch.cuda.is_available():
        raise SystemExit(f"torch {torch.__version__} sees no GPU. --tiny tries every branch on a CPU.")
    return given


def main(arguments: list[str] | None = None) -> None:
    given = parse(arguments)
    kept = given.work is not None
    given.work = given.work.resolve() if kept else Path(tempfile.mkdtemp(prefix="st-llm2vec-gpu-"))
    found: dict[str, Any] = {
        "command": command("benchmarks.gpu", FOLDERS, arguments),
        "machine": describe_machine(given.threads, given.device),
        "matmul": {dtype: matmul_rate(dtype, given.device, given.matmul) for dtype in ("float32", "bfloat16")},
        "copy": copy_rate(given.device),
        "sections": {},
        "seconds": {},
    }
    try:
        for name in given.sections:
            begun = time.monotonic()
            if begun > given.end:
                found["sections"][name] = {"problems": [f"{name}: not begun, the {given.minutes:g} minutes were over."]}
            else:
                found["sections"][name] = _measured(SECTIONS[name], name, given)
            found["seconds"][name] = time.monotonic() - begun
            print(f"{name}: {found['seconds'][name]:.0f} s", flush=True)
            write_page("gpu", found, page.lines(found), given.output)
    finally:
        if not kept:
            shutil.rmtree(given.work, ignore_errors=True)
    problems = [problem for section in found["sections"].values() for problem in section["problems"]]
    if problems:
        raise SystemExit("\n".join(problems))


def _measured(section: Callable[[argparse.Namespace], dict[str, Any]], name: str, given: argparse.Namespace) -> Any:
    try:
        return section(given)
    except Exception as error:  # noqa: BLE001 - the other sections are worth measuring whatever fails in this one
        traceback.print_exc()
        return {"problems": [f"{name}: {describe_error(error)}"]}


if __name__ == "__main__":
    main()
