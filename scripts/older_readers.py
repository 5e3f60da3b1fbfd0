"""Show that older readers refuse a portable encoder instead of running it causally, each in an environment of its own.

    python scripts/older_readers.py             # makes the environments in a temporary folder and prints the table
    python scripts/older_readers.py --keep DIR  # keeps them there, for the next time

Every environment is made with pip from the package index that is configured, with PyTorch as requirements.lock pins it.
The table in docs/backends.md is this script's, its long errors shortened.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
READERS = {
    "st5": ("sentence-transformers>=5,<6", "transformers<5.2"),
    "st5-transformers4": ("sentence-transformers>=5,<6", "transformers<5"),
    "st6-old-transformers": ("sentence-transformers>=6,<7", "transformers<5.2"),
    "st6-between": ("sentence-transformers>=6,<7", "transformers>=5.2,<5.17"),
}
READ = """
import sys, json, logging, warnings
warnings.filterwarnings("ignore")
import sentence_transformers, transformers
found = {"sentence-transformers": sentence_transformers.__version__, "transformers": transformers.__version__}
try:
    model = sentence_transformers.SentenceTransformer(sys.argv[1], device="cpu")
    found["outcome"] = "loaded"
    first, second = (model.encode(text, output_value="token_embeddings") for text in ("one two three", "one two four"))
    found["first token sees the last"] = bool((first[0] - second[0]).abs().max() > 1e-6)
except BaseException as error:
    found["outcome"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
print(json.dumps(found))
"""
RECIPES = ("llm2vec", "prompteol")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="folder for the environments")
    keep = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        for recipe in RECIPES:
            save_encoder(recipe, Path(temporary) / recipe)
        print("| Sentence Transformers | Transformers | bidirectional (`llm2vec`) | causal (`prompteol`) |")
        print("|---|---|---|---|")
        for name, packages in READERS.items():
            python = environment(folder / name, packages)
            outcomes = [read(python, Path(temporary) / recipe) for recipe in RECIPES]
            versions = [outcomes[0][package] for package in ("sentence-transformers", "transformers")]
            print("| " + " | ".join([*versions, *map(describe, outcomes)]) + " |", flush=True)
            if outcomes[0].get("first token sees the last") is False:
                sys.exit("A bidirectional encoder was loaded causally.")


def save_encoder(recipe: str, folder: Path) -> None:
    """An encoder of the decoder in the box."""
    from st_llm2vec import convert, decoder_path

    convert(decoder_path(), recipe, max_length=128).save_pretrained(str(folder))


def environment(folder: Path, packages: tuple[str, ...]) -> Path:
    """A virtual environment with these packages; its Python."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        torch = re.search(r"^torch==\S+", (ROOT / "requirements.lock").read_text(), re.MULTILINE).group()
        subprocess.run([python, "-m", "pip", "install", "--quiet", torch, *packages], check=True)
    return python


def read(python: Path, folder: Path) -> dict[str, str]:
    """What this environment makes of a folder."""
    done = subprocess.run([python, "-I", "-c", READ, str(folder)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def describe(outcome: dict[str, str]) -> str:
    if outcome["outcome"] == "loaded":
        sees = outcome["first token sees the last"]
        return "loads; " + ("the first token sees the last" if sees else "causal")
    return f"refused: {describe_error(outcome['outcome'])}"


def describe_error(error: str) -> str:
    """An error on one line of a table, without paths."""
    short = re.sub(r"'?(/[\w.-]+)+'?", "…", error).replace("|", "\\|")
    return short if len(short) <= 140 else f"{short[:140]} …"


if __name__ == "__main__":
    main()
