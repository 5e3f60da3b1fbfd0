"""An encoder as an ONNX graph, pooling and normalisation included, and a tokenizer beside it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from st_llm2vec.folder.disk_errors import disk_errors
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.folder.load import load
from st_llm2vec.folder.staging import replacing
from st_llm2vec.proof.distance import largest_cosine_distance
from st_llm2vec.proof.texts import FEW_TEXTS, TEXTS
from st_llm2vec.proof.tolerances import SERVED_VECTORS
from st_llm2vec.serving.exportable import CannotExport, longest_input, require_plain
from st_llm2vec.serving.onnx_encoder import GRAPH, SETTINGS, OnnxEncoder
from st_llm2vec.serving.onnx_graph import leaves_prompt_out, write_graph

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
LONGEST_TRIED = 1024  # tokens; eager attention takes memory with their square


def export_onnx(encoder: TextEncoder | str | Path, folder: str | Path) -> Path:
    """Write an encoder as an ONNX graph, and compare its vectors in ONNX Runtime before it is there.

    The folder holds ``model.onnx``, which takes ``input_ids`` and ``attention_mask`` of shape ``(batch, tokens)`` and gives
    ``sentence_embedding`` of shape ``(batch, dimensions)``, in float32; the tokenizer; and ``onnx_encoder.json``, which says
    prompts, longest input and inputs. Where the prompt is not pooled, the graph takes ``prompt_length`` of shape ``(batch,)``
    too. :class:`~st_llm2vec.serving.onnx_encoder.OnnxEncoder` reads it.

    Args:
        encoder: The encoder, with weights in float32, or its folder.
        folder: The folder to write. It is written whole or not at all.

    Returns:
        The folder.

    Raises:
        CannotExport: If a graph over one tokenizer's tokens cannot give the encoder's vectors, or does not; the message says
            why.
        ValueError: If the folder is an encoder's, or a package is missing.
    """
    folder = Path(folder)
    if (folder / "modules.json").exists():
        raise ValueError(f"{folder} is an encoder's folder; name another for its graph.")
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"Writing an ONNX graph needs {', '.join(missing)}: `pip install st-llm2vec[onnx]`.")
    if not isinstance(encoder, TextEncoder):
        encoder = load(encoder, device="cpu", dtype=torch.float32)
    reason = onnx_refusal(encoder)
    if reason is not None:
        raise CannotExport(f"The encoder cannot be exported to ONNX: {reason}.")
    with disk_errors(folder), replacing(folder, lambda name: name.startswith(GRAPH)) as fresh:
        write_graph(encoder, fresh / GRAPH)
        _write_tokenizer(encoder, fresh)
        (fresh / SETTINGS).write_text(
            json.dumps(_settings(encoder), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        distance = max(compare(encoder, fresh).values())
        if distance > SERVED_VECTORS.full:
            raise CannotExport(
                f"The encoder cannot be exported to ONNX: the graph's vectors are {distance:.1e} away from its own, which "
                f"is more than {SERVED_VECTORS.full}. Nothing was written."
            )
    return folder


def onnx_refusal(encoder: TextEncoder) -> str | None:
    """Why an encoder cannot be exported.

    Args:
        encoder: The encoder.

    Returns:
        The reason, a part of a sentence; ``None`` if there is none to see before it is tried.
    """
    try:
        require_plain(encoder)
    except CannotExport as error:
        return str(error)
    model: Any = encoder.transformer.model
    if encoder.layout not in ("prefix", "text"):
        return "it reads texts through a template, which is no part of a graph over tokens"
    if model.dtype != torch.float32:
        return f"its weights are in {str(model.dtype).removeprefix('torch.')}; load it with dtype=torch.float32"
    return None


def compare(encoder: TextEncoder, folder: str | Path) -> dict[str, float]:
    """Compare an exported graph's vectors in ONNX Runtime with the encoder's, in batches and alone.

    Args:
        encoder: The encoder.
        folder: The exported folder.

    Returns:
        The largest cosine distance over ``proof.texts.TEXTS`` in batches, and over a few and one of the longest input (1,024
        tokens at most) alone, of ``"documents"`` and of ``"queries"``.
    """
    exported = OnnxEncoder(folder)
    together, alone = list(TEXTS), [*FEW_TEXTS, "word " * min(exported.max_length, LONGEST_TRIED)]
    found = {}
    for name, encode, task in (
        ("documents", encoder.encode_document, "document"),
        ("queries", encoder.encode_query, "query"),
    ):
        prompt = task if task in exported.prompts else None
        found[name] = max(
            largest_cosine_distance(np.asarray(encode(texts)), exported.encode(texts, prompt, batch_size=size))
            for texts, size in ((together, 8), (alone, 1))
        )
    return found


def _write_tokenizer(encoder: TextEncoder, folder: Path) -> None:
    """The encoder's tokenizer, which cuts at the longest input."""
    tokenizer = encoder.tokenizer
    kept = tokenizer.model_max_length
    tokenizer.model_max_length = longest_input(encoder)
    try:
        tokenizer.save_pretrained(folder)
    finally:
        tokenizer.model_max_length = kept


def _settings(encoder: TextEncoder) -> dict[str, Any]:
    import st_llm2vec

    prompts = {name: text for name, text in encoder.prompts.items() if text}
    settings: dict[str, Any] = {
        "st_llm2vec": st_llm2vec.__version__,
        "recipe": encoder.manifest.config.name if encoder.manifest is not None else None,
        "dimension": encoder.get_embedding_dimension(),
        "max_length": longest_input(encoder),
        "prompts": prompts,
    }
    if leaves_prompt_out(encoder):
        lengths = {name: encoder.preprocess(["a"], prompt=text)["prompt_length"] for name, text in prompts.items()}
        settings["prompt_lengths"] = {name: int(length) for name, length in lengths.items()}
    return settings
