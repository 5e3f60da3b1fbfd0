"""An exported file's vectors in llama.cpp, where ``node-llama-cpp`` is at hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from st_llm2vec.encoding.text_reader import TextReader
from st_llm2vec.proof.distance import largest_cosine_distance
from st_llm2vec.proof.texts import TEXTS

PLACE = "ST_LLM2VEC_LLAMA_CPP"
"""The environment variable that names the folder where ``npm install node-llama-cpp`` was run."""
# One thread: those of ggml wait by spinning, which takes minutes on a busy machine.
EMBED = """
import {readFileSync, writeFileSync} from "fs"; import {getLlama} from "node-llama-cpp";
const [file, given, made] = process.argv.slice(2);
const llama = await getLlama({gpu: false, build: "never", logLevel: "error", maxThreads: 1});
const model = await llama.loadModel({modelPath: file});
const size = model.trainContextSize;
const precise = {flashAttention: false, experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32"};
const plain = model.createContext.bind(model);
model.createContext = (options) => plain({...options, ...precise});
const context = await model.createEmbeddingContext({contextSize: size, batchSize: size});
const vectors = [];
for (const text of JSON.parse(readFileSync(given, "utf8"))) {
    const tokens = model.tokenize(text, true);
    vectors.push([...(await context.getEmbeddingFor(tokens)).vector]);
}
writeFileSync(made, JSON.stringify(vectors));
process.exit(0);
"""


def find_llama_cpp() -> Path | None:
    """The folder with ``node-llama-cpp``, named by ``ST_LLM2VEC_LLAMA_CPP``; ``None`` where it, or Node, is not at hand."""
    folder = Path(os.environ.get(PLACE, ""))
    at_hand = PLACE in os.environ and (folder / "node_modules" / "node-llama-cpp").is_dir() and shutil.which("node")
    return folder if at_hand else None


def llama_cpp_vectors(path: str | Path, texts: Sequence[str], place: Path) -> np.ndarray:
    """Encode texts in llama.cpp, with keys and values in float32.

    Args:
        path: A GGUF file.
        texts: The strings, prompts included; each must become a token at least.
        place: The folder with ``node-llama-cpp``.

    Returns:
        The vectors, of shape ``(texts, dimensions)``.

    Raises:
        ValueError: If llama.cpp cannot read the file.
    """
    with tempfile.TemporaryDirectory(dir=place, prefix=".embedding-") as folder:
        script, given, made = (Path(folder) / name for name in ("embed.mjs", "texts.json", "vectors.json"))
        script.write_text(EMBED, encoding="utf-8")
        given.write_text(json.dumps(list(texts)), encoding="utf-8")
        command = ["node", str(script), str(Path(path).resolve()), str(given), str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not made.is_file():
            raise ValueError(f"llama.cpp could not read {path}: {(done.stderr or done.stdout).strip()[-500:]}")
        return np.asarray(json.loads(made.read_text(encoding="utf-8")))


def verify_gguf(encoder: TextReader, path: str | Path, place: Path) -> dict[str, float]:
    """Compare an exported file's vectors in llama.cpp with the encoder's.

    Args:
        encoder: The encoder.
        path: The exported file.
        place: The folder with ``node-llama-cpp``.

    Returns:
        The largest cosine distance over ``proof.texts.TEXTS``, of ``"documents"`` and of ``"queries"``.

    Raises:
        ValueError: If llama.cpp cannot read the file.
    """
    texts = list(TEXTS)
    prompts = {"documents": encoder.prompts.get("document") or "", "queries": encoder.prompts.get("query") or ""}
    told = [prompt + text for prompt in prompts.values() for text in texts]
    found = llama_cpp_vectors(path, told, place)
    expected = {"documents": encoder.encode_document(texts), "queries": encoder.encode_query(texts)}
    parts = zip(prompts, (found[: len(texts)], found[len(texts) :]), strict=True)
    return {name: largest_cosine_distance(np.asarray(expected[name]), part) for name, part in parts}
