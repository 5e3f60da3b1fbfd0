"""Show what the other backends of Sentence Transformers make of a portable encoder, each in an environment of its own.

    python scripts/other_backends.py             # makes the environments in a temporary folder and prints the table
    python scripts/other_backends.py --keep DIR  # keeps them there, for the next time

Every environment is made with pip from the package index that is configured, with PyTorch as requirements.lock pins it.
The table in docs/backends.md is this script's, its long errors shortened.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import tempfile
import venv
from pathlib import Path

from older_readers import ROOT, describe_error, save_encoder

ENVIRONMENTS = {
    "onnx": ("onnx", ("sentence-transformers[onnx]>=6.2,<7",)),
    "onnx-st5": ("onnx", ("sentence-transformers[onnx]>=5,<6",)),
    "openvino": ("openvino", ("sentence-transformers[openvino]>=6.2,<7",)),
}
READ = """
import sys, json, logging, warnings
warnings.filterwarnings("ignore")
import numpy, sentence_transformers, transformers
folder, backend = sys.argv[1:]
found = {"sentence-transformers": sentence_transformers.__version__, "transformers": transformers.__version__}
texts = ["Once upon a time there was a little girl.", "Hello", "The old clock struck seven, and nobody noticed."]
try:
    exported = sentence_transformers.SentenceTransformer(folder, backend=backend, device="cpu").encode(texts)
    torch = sentence_transformers.SentenceTransformer(folder, device="cpu").encode(texts)
    lengths = numpy.linalg.norm(exported, axis=1) * numpy.linalg.norm(torch, axis=1)
    distance = float((1 - (exported * torch).sum(1) / lengths).max())
    found["outcome"] = "vectors are not numbers" if numpy.isnan(distance) else f"cosine distance {distance:.1e}"
except BaseException as error:
    found["outcome"] = "error"
    found["error"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
print(json.dumps(found))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="folder for the environments")
    keep = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as temporary:
        folders = encoders(Path(temporary))
        print("| backend | Sentence Transformers | Transformers | " + " | ".join(folders) + " |")
        print("|---" * (3 + len(folders)) + "|")
        for name, (backend, packages) in ENVIRONMENTS.items():
            python = environment((keep or Path(temporary)) / name, packages)
            if python is None:
                print(f"| `{backend}` | {packages[0]} | | " + "cannot be installed | " * len(folders), flush=True)
                continue
            outcomes = [read(python, folder, backend) for folder in folders.values()]
            versions = [outcomes[0][package] for package in ("sentence-transformers", "transformers")]
            print("| " + " | ".join([f"`{backend}`", *versions, *map(describe, outcomes)]) + " |", flush=True)


def encoders(folder: Path) -> dict[str, Path]:
    """A bidirectional encoder, the same without its requirement, and a causal one."""
    for recipe in ("llm2vec", "prompteol"):
        save_encoder(recipe, folder / recipe)
    shutil.copytree(folder / "llm2vec", folder / "unguarded")
    path = folder / "unguarded" / "config_sentence_transformers.json"
    settings = json.loads(path.read_text())
    del settings["requirements"]
    path.write_text(json.dumps(settings))
    return {
        "bidirectional (`llm2vec`)": folder / "llm2vec",
        "the same, its requirement removed": folder / "unguarded",
        "causal (`prompteol`)": folder / "prompteol",
    }


def environment(folder: Path, packages: tuple[str, ...]) -> Path | None:
    """A virtual environment with these packages; its Python, or nothing if they do not go together."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        torch = re.search(r"^torch==\S+", (ROOT / "requirements.lock").read_text(), re.MULTILINE).group()
        done = subprocess.run([python, "-m", "pip", "install", "--quiet", torch, *packages], check=False)
        if done.returncode:
            shutil.rmtree(folder)
            return None
        # optimum-intel wants torchvision, which is needed for images alone and must be built for the very same PyTorch.
        subprocess.run([python, "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision"], check=False)
    return python


def read(python: Path, folder: Path, backend: str) -> dict[str, str]:
    """What a backend makes of a folder in this environment."""
    done = subprocess.run([python, "-I", "-c", READ, str(folder), backend], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def describe(outcome: dict[str, str]) -> str:
    return f"refused: {describe_error(outcome['error'])}" if outcome["outcome"] == "error" else outcome["outcome"]


if __name__ == "__main__":
    main()
