"""Plain Sentence Transformers where this package is missing.

One process imports it, which takes seconds, and a fork of that process reads each folder, so that no folder meets what
another one left behind.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from st_llm2vec import probe_attention
from st_llm2vec.proof.fresh_process import PlainReading

BLOCK_THE_PACKAGE = """
import importlib.abc, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "st_llm2vec":
            raise ModuleNotFoundError("st_llm2vec is not installed here")

sys.meta_path.insert(0, Block())
"""
READ_FOLDERS = """
import json, os, traceback
import numpy as np
from sentence_transformers import SentenceTransformer

def read(folder, texts, instruction, trust):
    for step in ("first", "again"):
        model = SentenceTransformer(folder, trust_remote_code=trust, device="cpu")
        ways = [model.encode(texts), model.encode_document(texts)]
        if model.prompts["query"]:
            ways += [model.encode_query(texts), model.encode(texts, prompt_name="query")]
            ways += [model.encode(texts, prompt=model.prompts["query"]), model.encode(texts, prompt=instruction)]
        model.save_pretrained(folder + "-again")
        folder += "-again"
        np.save(f"{folder}/{step}.npy", np.stack(ways))
    assert not any(name.startswith("st_llm2vec.") for name in sys.modules)

for line in sys.stdin:
    child = os.fork()
    if not child:
        try:
            read(**json.loads(line))
        except BaseException:
            print(json.dumps(traceback.format_exc()), flush=True)
        else:
            print(json.dumps("read"), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


class Elsewhere:
    """The process in which the package is missing.

    Args:
        process: It, waiting for folders.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def vectors(self, folder: Path, texts: list[str], instruction: str, trust: bool = False) -> list[np.ndarray]:
        """Every way of encoding, as the folder stands, and after it was saved there (beside it) and loaded again."""
        asked: dict[str, Any] = {"texts": texts, "instruction": instruction, "trust": trust}
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps({"folder": str(folder), **asked}), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer == '"read"\n', json.loads(answer or '"the process died"')
        return [np.load(f"{folder}{'-again' * step}/{name}.npy") for step, name in ((1, "first"), (2, "again"))]


def read_here(
    folder: Path, texts: Sequence[str], prompt_names: Sequence[str | None], *, trust_remote_code: bool, **options: Any
) -> PlainReading:
    """What ``read_without_package`` reads, in this process, for tests of what is made of it; a new one takes seconds."""
    encoder = SentenceTransformer(str(folder), trust_remote_code=trust_remote_code, device="cpu")
    together, alone = (
        np.stack([encoder.encode(list(texts), prompt_name=name, batch_size=size) for name in prompt_names])
        for size in (32, 1)
    )
    return PlainReading(together, alone, probe_attention(encoder[0].model))


@contextmanager
def start_elsewhere(home: Path) -> Iterator[Elsewhere]:
    """Start the process, with ``home`` for what it caches; end it."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", BLOCK_THE_PACKAGE + READ_FOLDERS]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield Elsewhere(process)
        finally:
            process.kill()
