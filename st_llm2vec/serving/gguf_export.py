"""An encoder as a GGUF file, for llama.cpp and what is built on it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from sentence_transformers.sentence_transformer.modules import Pooling, WordWeights

from st_llm2vec.folder.declare import pools_prompt_and_text
from st_llm2vec.folder.disk_errors import disk_errors
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.folder.load import load
from st_llm2vec.folder.staging import replacing_file
from st_llm2vec.modules.attention import configured_attention
from st_llm2vec.serving.exportable import CannotExport, longest_input, require_plain
from st_llm2vec.serving.gguf_tokenizer import GgufTokenizer, read_tokenizer
from st_llm2vec.serving.gguf_weights import architecture, hyperparameters, require_window, weights

GgufType = Literal["f32", "f16", "bf16", "q8_0"]
TYPES = ("f32", "f16", "bf16", "q8_0")
POOLINGS = {"mean": "MEAN", "lasttoken": "LAST", "cls": "CLS"}
"""llama.cpp's ``pooling_type`` by the stock ``Pooling``'s name."""


def export_gguf(encoder: TextEncoder | str | Path, path: str | Path, type: GgufType = "f32") -> Path:
    """Write an encoder as a GGUF file, with tokenizer, attention, pooling, prompts and provenance.

    llama.cpp pools every token of what it is given, so what is exported is an encoder that does: put a saved prompt before
    the text. The prompts stand in the metadata, ``st_llm2vec.prompts``, as JSON. The longest input is the context's length,
    which llama.cpp refuses to exceed where Sentence Transformers cuts.

    Args:
        encoder: The encoder, or its folder.
        path: The file, which ends in ``.gguf``. It is written whole or not at all.
        type: Type of the matrices: ``"f32"``, ``"f16"``, ``"bf16"`` or ``"q8_0"`` (8 bits, a scale for 32 values). Vectors
            such as norms stay in float32.

    Returns:
        The file.

    Raises:
        CannotExport: If llama.cpp cannot give the encoder's vectors; the message says why.
        ValueError: If the name or the type cannot be, or the package ``gguf`` is missing.
    """
    path = Path(path)
    if path.suffix != ".gguf":
        raise ValueError(f"{path} does not end in .gguf, by which programs know such files; name it so.")
    if type not in TYPES:
        raise ValueError(f"type={type!r} is not one of {', '.join(TYPES)}.")
    if importlib.util.find_spec("gguf") is None:
        raise ValueError("Writing a GGUF file needs the package gguf: `pip install st-llm2vec[gguf]`.")
    if not isinstance(encoder, TextEncoder):
        encoder = load(encoder, device="cpu")
    try:
        _write(encoder, path, type)
    except CannotExport as error:
        raise CannotExport(f"The encoder cannot be exported to GGUF: {error}.") from error
    return path


def gguf_refusal(encoder: TextEncoder) -> str | None:
    """Why an encoder cannot be exported.

    Args:
        encoder: The encoder.

    Returns:
        The reason, a part of a sentence; ``None`` if it can.
    """
    try:
        _require_exportable(encoder)
    except CannotExport as error:
        return str(error)
    return None


def _require_exportable(encoder: TextEncoder) -> tuple[Any, GgufTokenizer, str, int]:
    model: Any = encoder.transformer.model
    require_plain(encoder)
    if not pools_prompt_and_text(encoder):
        left_out = ["BOS"] * any(isinstance(module, WordWeights) for module in encoder)
        left_out += ["the prompt"] * any(
            isinstance(module, Pooling) and not module.include_prompt for module in encoder
        )
        does = f"leaves {' and '.join(left_out)} out of what it pools, and llama.cpp pools every token that it reads"
        if encoder.layout not in ("prefix", "text"):
            does = "reads texts through a template, and llama.cpp reads the bare string"
        raise CannotExport(f"it {does}; the recipes mean and last-token can be exported")
    pooling: Any = next(module.pooling_mode for module in encoder if hasattr(module, "pooling_mode"))
    if pooling not in POOLINGS:
        raise CannotExport(f"llama.cpp has no pooling {pooling}")
    if type(encoder[-1]).__name__ != "Normalize":
        raise CannotExport("llama.cpp gives vectors of length one, and this encoder does not")
    longest = longest_input(encoder)
    arch = architecture(model)
    require_window(model, longest)
    embeddings: Any = model.get_input_embeddings()
    return arch, read_tokenizer(encoder.tokenizer, len(embeddings.weight)), POOLINGS[pooling], longest


def _write(encoder: TextEncoder, path: Path, kind: str) -> None:
    import gguf

    arch, tokenizer, pooling, longest = _require_exportable(encoder)
    model: Any = encoder.transformer.model
    with disk_errors(path), replacing_file(path) as fresh:
        writer = gguf.GGUFWriter(fresh, gguf.MODEL_ARCH_NAMES[arch])
        writer.add_file_type(gguf.LlamaFileType[f"{'ALL' if kind == 'f32' else 'MOSTLY'}_{kind.upper()}"])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        _provenance(writer, encoder, path.stem)
        hyperparameters(model, writer, longest)
        writer.add_causal_attention(configured_attention(model) == "causal")
        writer.add_pooling_type(gguf.PoolingType[pooling])
        _add_tokenizer(writer, tokenizer)
        for tensor, values in weights(model, arch):
            quantization = _quantization(values, kind)
            writer.add_tensor(tensor, gguf.quants.quantize(values, quantization), raw_dtype=quantization)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _quantization(values: np.ndarray, kind: str) -> Any:
    import gguf

    if values.ndim == 1:
        return gguf.GGMLQuantizationType.F32
    if kind == "q8_0" and values.shape[-1] % 32:
        return gguf.GGMLQuantizationType.F16
    return gguf.GGMLQuantizationType[kind.upper()]


def _provenance(writer: Any, encoder: TextEncoder, name: str) -> None:
    import st_llm2vec

    writer.add_name(name)
    writer.add_description("A text encoder made with st-llm2vec; put the prompt before the text.")
    writer.add_tags(["sentence-transformers", "feature-extraction"])
    writer.add_string("st_llm2vec.version", st_llm2vec.__version__)
    prompts = {key: text for key, text in encoder.prompts.items() if text}
    writer.add_string("st_llm2vec.prompts", json.dumps(prompts, ensure_ascii=False))
    if encoder.manifest is not None:
        base = str(encoder.manifest.base.get("name") or "")
        writer.add_string("st_llm2vec.recipe", encoder.manifest.config.name)
        writer.add_string("st_llm2vec.base", base if "/" in base and not Path(base).exists() else Path(base).name)


def _add_tokenizer(writer: Any, tokenizer: GgufTokenizer) -> None:
    writer.add_tokenizer_model(tokenizer.model)
    writer.add_tokenizer_pre(tokenizer.pre)
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_types(tokenizer.types)
    if tokenizer.scores:
        writer.add_token_scores(tokenizer.scores)
        writer.add_add_space_prefix(tokenizer.adds_prefix_space)
    if tokenizer.merges:
        writer.add_token_merges(tokenizer.merges)
    for name, index in tokenizer.special.items():
        getattr(writer, f"add_{name}_token_id")(index)
    writer.add_add_bos_token(tokenizer.adds_bos)
    writer.add_add_eos_token(False)
