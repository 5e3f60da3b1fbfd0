"""Names on the Hugging Face Hub work like folders, here and where the package is missing; no code is fetched here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from st_llm2vec import convert
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.folder.module_file import MODULE_NAME

from ..conftest import INSTRUCTION, TEXTS, cosine_distance
from ..elsewhere import BLOCK_THE_PACKAGE
from ..hub_server import Hub, serve_hub

ENCODE = """
import json, sys
import numpy as np

def vectors(encoder):
    return np.stack([encoder.encode(texts), encoder.encode_query(texts)])

def message(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"

out, texts = sys.argv[1], json.loads(sys.argv[2])
"""
WITH_THE_PACKAGE = """
from st_llm2vec import convert, load

found = {"decoder": vectors(convert("org/decoder", "llm2vec"))}
found["decoder cached"] = vectors(convert("org/decoder", "llm2vec", local_files_only=True))
for name in ("portable", "custom"):
    found[name] = vectors(load(f"org/{name}"))
    found[f"{name} cached"] = vectors(load(f"org/{name}", local_files_only=True))
np.savez(out, **found)
calls = {"load": load, "convert": convert}
messages = {name: message(call, "org/missing") for name, call in calls.items()}
messages["revision"] = message(load, "org/portable", revision="v9")
messages["decoder"] = message(load, "org/decoder")
print(json.dumps(messages))
"""
PLAIN = """
from sentence_transformers import SentenceTransformer

refusal = message(SentenceTransformer, "org/custom", device="cpu")
portable = SentenceTransformer("org/portable", device="cpu")
custom = SentenceTransformer("org/custom", trust_remote_code=True, device="cpu")
np.savez(out, portable=vectors(portable), custom=vectors(custom))
assert not any(name.startswith("st_llm2vec.") for name in sys.modules)
print(json.dumps({"untrusted": refusal}))
"""


def run_against(hub: Hub, script: str, folder: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Run a script in a new process that knows no other Hub and has nothing cached; its vectors and messages."""
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder / "out.npz"), json.dumps(TEXTS)],
        env=hub.environment(folder / "hf"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out.npz") as found:
        return dict(found), json.loads(done.stdout.splitlines()[-1])


def our_vectors(encoder: TextEncoder) -> np.ndarray:
    return np.stack([encoder.encode(TEXTS), encoder.encode_query(TEXTS)])


def save_encoders(decoder: str, folder: Path) -> dict[str, TextEncoder]:
    """Save an encoder of stock modules as ``portable`` and one that needs its module file as ``custom``."""
    encoders = {}
    for name, recipe in (("portable", "llm2vec"), ("custom", "echo")):
        encoders[name] = convert(decoder, recipe, max_length=256, prompts={"query": INSTRUCTION})
        encoders[name].save_pretrained(str(folder / name))
        assert (folder / name / f"{MODULE_NAME}.py").exists() == (name == "custom")
    return encoders


def test_convert_and_load_take_names_and_fetch_no_code(decoder: str, tmp_path: Path) -> None:
    expected = {name: our_vectors(encoder) for name, encoder in save_encoders(decoder, tmp_path).items()}
    expected["decoder"] = our_vectors(convert(decoder, "llm2vec"))
    expected |= {f"{name} cached": vectors for name, vectors in expected.items()}
    module_file = tmp_path / "custom" / f"{MODULE_NAME}.py"
    module_file.write_text("raise SystemExit('this was run')")
    folders = {"org/decoder": decoder, "org/portable": tmp_path / "portable", "org/custom": tmp_path / "custom"}
    with serve_hub(folders) as hub:
        found, messages = run_against(hub, ENCODE + WITH_THE_PACKAGE, tmp_path)

    assert found.keys() == expected.keys()
    for name, vectors in found.items():
        assert cosine_distance(vectors, expected[name]) < 1e-6, name
    for name in folders:
        assert hub.asked_for(name, "/model.safetensors"), name
        assert not hub.asked_for(name, ".py"), name
    assert not list((tmp_path / "hf").rglob("*.py"))
    assert "org/missing" in messages["load"] and "org/missing" in messages["convert"]
    assert "org/portable" in messages["revision"] and "v9" in messages["revision"]
    assert 'st_llm2vec.convert("org/decoder"' in messages["decoder"]


@pytest.mark.slow
def test_plain_sentence_transformers_takes_names(decoder: str, tmp_path: Path) -> None:
    expected = {name: our_vectors(encoder) for name, encoder in save_encoders(decoder, tmp_path).items()}
    with serve_hub({"org/portable": tmp_path / "portable", "org/custom": tmp_path / "custom"}) as hub:
        found, messages = run_against(hub, BLOCK_THE_PACKAGE + ENCODE + PLAIN, tmp_path)

    for name, vectors in expected.items():
        assert cosine_distance(found[name], vectors) < 1e-6, name
    assert "trust_remote_code" in messages["untrusted"]
    assert not hub.asked_for("org/portable", ".py")
    assert hub.asked_for("org/custom", f"/{MODULE_NAME}.py")
