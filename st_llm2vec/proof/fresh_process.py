"""Read an encoder's folder as a stranger would: in a process of its own, offline, where this package is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from st_llm2vec.modules import attention
from st_llm2vec.modules.attention import AttentionProbe

# Runs with -I, so that neither the current folder nor PYTHONPATH brings this package back, and then makes sure of it.
# The attention probe needs nothing of this package, so its source comes along as text.
READER = """
import importlib.abc, json, sys, types

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "st_llm2vec":
            raise ModuleNotFoundError("st_llm2vec is kept out here", name=name)

sys.meta_path.insert(0, Refuse())
request = json.load(sys.stdin)
sys.path.extend(entry for entry in request["path"] if entry not in sys.path)
try:
    import st_llm2vec
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("st_llm2vec could be imported, so the comparison would prove nothing.")

import numpy
from sentence_transformers import SentenceTransformer

encoder = SentenceTransformer(request["folder"], trust_remote_code=request["trust_remote_code"], device=request["device"])

def vectors(batch_size):
    options = {"batch_size": batch_size, "show_progress_bar": False}
    ways = [encoder.encode(request["texts"], prompt_name=name, **options) for name in request["prompt_names"]]
    return numpy.stack(ways).astype("float32")

found = {"together": vectors(32)}
if request["alone"]:
    found["alone"] = vectors(1)
numpy.savez(request["output"], **found)
probe = sys.modules["attention_probe"] = types.ModuleType("attention_probe")
exec(compile(request["probe"], "attention.py", "exec"), probe.__dict__)
print(json.dumps(probe.probe_attention(encoder[0].model).to_dict()))
"""


@dataclass(frozen=True)
class PlainReading:
    """What plain Sentence Transformers made of a folder.

    Args:
        vectors: The texts in one batch, for each prompt; ``(prompts, texts, dimension)``.
        alone: The same, each text in a batch of its own, if it was asked for.
        probe: The attention probe of the model as it was loaded there.
    """

    vectors: np.ndarray
    alone: np.ndarray | None
    probe: AttentionProbe


def read_without_package(
    folder: Path,
    texts: Sequence[str],
    prompt_names: Sequence[str | None] = (None,),
    *,
    trust_remote_code: bool,
    alone: bool = False,
    device: str | None = None,
) -> PlainReading:
    """Encode with ``SentenceTransformer`` in a fresh process, offline, where this package cannot be imported.

    Args:
        folder: The saved encoder.
        texts: The texts.
        prompt_names: Names of its prompts to encode them with, ``None`` for none.
        trust_remote_code: Whether the folder's own module file may run, which custom layouts need.
        alone: Whether to encode each text in a batch of its own too.
        device: The device; Sentence Transformers chooses if not given.

    Returns:
        The vectors, and what the attention is there.

    Raises:
        ValueError: If the folder cannot be read there.
    """
    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary) / "vectors.npz"
        request = {
            "folder": str(folder.absolute()),
            "texts": list(texts),
            "prompt_names": list(prompt_names),
            "output": str(output),
            "trust_remote_code": trust_remote_code,
            "alone": alone,
            "device": device,
            "probe": Path(attention.__file__).read_text(encoding="utf-8"),
            "path": [entry for entry in sys.path if Path(entry).is_absolute()],
        }
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(Path(temporary) / "modules")}
        done = subprocess.run(
            [sys.executable, "-I", "-c", READER],
            input=json.dumps(request),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise ValueError(f"SentenceTransformer could not read {folder} without st_llm2vec: {reason}")
        with np.load(output) as found:
            probe = AttentionProbe.from_dict(json.loads(done.stdout.splitlines()[-1]))
            return PlainReading(found["together"], found["alone"] if alone else None, probe)
