"""Make the environment that llm2vec 0.2.3 runs in: it needs Transformers 4.44.2, which this library cannot use.

    python -m benchmarks.llm2vec_environment                # in runs/benchmarks/llm2vec-0.2.3
    python -m benchmarks.llm2vec_environment DIR

PyTorch comes first and as requirements.lock pins it, so that both sides run the same kernels. What llm2vec needs for its
evaluation scripts only (datasets, evaluate, scikit-learn) is left out.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEFAULT = ROOT / "runs" / "benchmarks" / "llm2vec-0.2.3"
PACKAGE = "llm2vec==0.2.3"
NEEDS = (
    "transformers==4.44.2",
    "tokenizers==0.19.1",
    "peft==0.13.2",
    "accelerate==0.34.2",
    "huggingface-hub==0.36.2",
    "safetensors==0.8.0",
    "numpy==2.2.6",
    "tqdm",
)


def torch_pin() -> str:
    """PyTorch as requirements.lock names it."""
    return re.search(r"^torch==\S+", (ROOT / "requirements.lock").read_text(), re.MULTILINE).group()


def make(folder: Path) -> Path:
    """Make the environment where it is not there yet; a half-made one is made anew.

    Returns:
        Its Python.
    """
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.exists():
        venv.create(folder, with_pip=True, clear=True)
        install = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, torch_pin()], check=True)
        subprocess.run([*install, torch_pin(), *NEEDS], check=True)
        subprocess.run([*install, "--no-deps", PACKAGE], check=True)
        subprocess.run([python, "-c", "import llm2vec"], check=True)
        ready.touch()
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=DEFAULT)
    folder = parser.parse_args().folder
    make(folder)
    print(f"{PACKAGE} is ready in {folder}; python -m benchmarks.encoding --llm2vec {folder} measures it.")


if __name__ == "__main__":
    main()
