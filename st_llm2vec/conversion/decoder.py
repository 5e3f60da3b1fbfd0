"""Load a decoder into a stock ``Transformer``, and refuse what is no decoder or is not all there."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from sentence_transformers.base.modules import Transformer
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from st_llm2vec.encoding.dtype import resolve_dtype
from st_llm2vec.folder.check_finite import require_finite
from st_llm2vec.folder.check_manifest import require_tokenizer_fits
from st_llm2vec.folder.check_stored import require_weights
from st_llm2vec.folder.check_weights import judge_report
from st_llm2vec.folder.files import require_readable
from st_llm2vec.folder.gguf_file import is_gguf, load_gguf
from st_llm2vec.host.quiet_loading import without_collection, without_reports
from st_llm2vec.layouts.reload import as_stock, preloaded
from st_llm2vec.proof.same_tokens import tokenizer_of


def load_transformer(
    name: str,
    dtype: Any,
    attn_implementation: str | None,
    hub: Mapping[str, Any],
    quantization_config: Any = None,
    device: str | None = None,
) -> Transformer:
    """Load a decoder's body from a folder, a GGUF file or the Hub.

    Args:
        name: The folder, the file or the repository's name.
        dtype: Weights' type, ``None`` for the stored one, or ``"auto"`` for the device's own.
        attn_implementation: Attention implementation, or ``None`` for Transformers' choice.
        hub: ``revision``, ``token`` and ``local_files_only``. Code in a repository is never run.
        quantization_config: How to quantise the weights, or ``None``.
        device: Where the model will run, for ``"auto"``.

    Returns:
        A stock ``Transformer`` that reads plain texts, whatever chat template the tokenizer has.

    Raises:
        ValueError: If there is no model, it is an encoder-decoder, or weights or tokenizer are missing.
    """
    if is_gguf(name):
        return _load_gguf_transformer(name, resolve_dtype(dtype, device), attn_implementation, quantization_config)
    if Path(name).is_dir():
        _require_decoder_files(Path(name), name)
        require_weights(Path(name), name)
    model = load_model(name, dtype, attn_implementation, hub, quantization_config, device)
    try:
        transformer = _around(model, name, hub)
    except Exception as error:  # The tokenizers library raises bare exceptions for files that it cannot read.
        raise ValueError(
            f"{name} has no tokenizer that could be loaded (tokenizer.json, tokenizer_config.json): {error}"
        ) from error
    require_tokenizer_fits(model, tokenizer_of(transformer, name), name)
    return transformer


def load_model(
    name: str,
    dtype: Any,
    attn_implementation: str | None,
    hub: Mapping[str, Any],
    quantization_config: Any = None,
    device: str | None = None,
) -> PreTrainedModel:
    """Load the body of a decoder in a folder or on the Hub; arguments and errors as for :func:`load_transformer`."""
    folder = Path(name)
    if folder.is_dir():
        _require_decoder_files(folder, name)
    elif folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ValueError(f"There is no folder {name}.")
    hub = _hub_options(hub)
    try:
        config = AutoConfig.from_pretrained(name, **hub)
    except Exception as error:  # A field of the wrong type raises what the configuration's own checks raise.
        raise ValueError(f"{name} could not be read as a Transformers model (config.json): {error}") from error
    if getattr(config, "st_llm2vec_layout", None) == "text":
        raise ValueError(
            f"{name} is an encoder that this package made, and its tokenizer has been taught its prompts. Load it with "
            f'st_llm2vec.load("{name}"), or convert the decoder that it was made from.'
        )
    _refuse_encoder_decoder(name, config)
    quantized = quantization_config is not None or getattr(config, "quantization_config", None) is not None
    wanted = {
        "dtype": resolve_dtype(dtype, device, quantized),
        "attn_implementation": attn_implementation,
        "quantization_config": quantization_config,
    }
    options: dict[str, Any] = {key: value for key, value in wanted.items() if value is not None}
    options |= {"config": config, "output_loading_info": True, **hub}
    if not folder.is_dir():
        options["use_safetensors"] = True  # pickles can run code
    try:
        with without_reports():
            model, report = cast("tuple[Any, Any]", AutoModel.from_pretrained(name, **options))
            if report["missing_keys"] and config.get_text_config(decoder=True).tie_word_embeddings:
                whole, report = cast("tuple[Any, Any]", AutoModelForCausalLM.from_pretrained(name, **options))
                model = whole.base_model
    except Exception as error:  # Sizes that cannot be, shards that are damaged: each library raises its own.
        raise ValueError(f"{name} could not be loaded: {error}") from error
    judge_report(model, report, name)
    require_finite(model, name)
    return cast("PreTrainedModel", model)


def _load_gguf_transformer(
    name: str, dtype: Any, attn_implementation: str | None, quantization_config: Any
) -> Transformer:
    if quantization_config is not None:
        raise ValueError(
            f"{name} is a GGUF file, whose weights are dequantised when they are read; they cannot be quantised again on "
            "the way. Convert it without quantization_config, save the encoder, and load that one quantised."
        )
    with without_reports():
        model, tokenizer, report = load_gguf(name, dtype, attn_implementation)
    judge_report(model, report, name)
    _refuse_encoder_decoder(name, model.config)
    return wrap_model(model, tokenizer)


def _require_decoder_files(folder: Path, name: str) -> None:
    if (folder / "adapter_config.json").is_file():
        # Transformers would load the adapter's base and attach the adapter to it, so that a folder lost its base.
        raise ValueError(
            f"{name} is an adapter, not a decoder. If LLM2Vec made it, import it: `st-llm2vec import {name}`. Otherwise "
            "merge it into its base first, with PEFT's merge_and_unload(), then convert that."
        )
    if not (folder / "config.json").is_file():
        raise ValueError(f"{name} has no config.json, so it is not a model's folder. Give the folder that holds one.")
    require_readable(folder, name)


def _hub_options(hub: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are set, and never code from a repository."""
    return {"trust_remote_code": False, **{key: value for key, value in hub.items() if value}}


def wrap_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> Transformer:
    """Put a loaded decoder into a stock ``Transformer``, without copying its weights.

    Args:
        model: The decoder, with or without its output head.
        tokenizer: Its tokenizer; by default the one of the folder or repository it was loaded from.

    Raises:
        ValueError: If it is no Transformers model, has an adapter attached, or no tokenizer is known.
    """
    if hasattr(model, "peft_config"):
        raise ValueError("The model has an adapter attached; merge it first with merge_and_unload(), then convert it.")
    if not isinstance(model, PreTrainedModel):
        raise ValueError(f"A loaded decoder must be a Transformers model, not a {type(model).__name__}.")
    if tokenizer is None:
        if not model.config._name_or_path:
            raise ValueError("A loaded model without a source needs its tokenizer too: convert(model, tokenizer=...).")
        tokenizer = AutoTokenizer.from_pretrained(model.config._name_or_path, trust_remote_code=False)
    body = cast("PreTrainedModel", model.base_model)
    name = body.config._name_or_path or type(model).__name__
    require_finite(body, name)
    require_tokenizer_fits(body, tokenizer, name)
    with tempfile.TemporaryDirectory() as folder:
        body.config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return _around(body, folder, {})


def _refuse_encoder_decoder(name: str, config: Any) -> None:
    if config.is_encoder_decoder:
        raise ValueError(
            f"{name} is an encoder-decoder model ({config.model_type}); a decoder-only language model is needed. "
            f'Its encoder works as it is: SentenceTransformer("{name}").'
        )


@without_collection()
def _around(model: PreTrainedModel, source: str, hub: Mapping[str, Any]) -> Transformer:
    """Build a stock ``Transformer`` around a model that is already in memory."""
    transformer = preloaded(model)(
        source,
        processor_kwargs=_hub_options(hub),
        config_kwargs=_hub_options(hub),
        modality_config={"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        module_output_name="token_embeddings",
    )
    return as_stock(transformer, model)
