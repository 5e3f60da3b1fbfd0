"""Is an encoder that was just loaded what its folder says?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from st_llm2vec.encoding.rendering import puts_text_verbatim
from st_llm2vec.encoding.text_reader import TextReader
from st_llm2vec.folder.check_finite import require_finite
from st_llm2vec.folder.check_manifest import disagreements, require_tokenizer_fits
from st_llm2vec.folder.check_weights import require_all_weights
from st_llm2vec.folder.files import read_modules
from st_llm2vec.folder.weights import fingerprint, keeps_fingerprint
from st_llm2vec.layouts.choose import prove_reading
from st_llm2vec.modules.adapter import has_adapter, restore_adapter
from st_llm2vec.modules.attention import configured_attention, prove_attention
from st_llm2vec.modules.transformer import BidirectionalTransformer


def require_sound(encoder: TextReader, folder: Path, source: str | Path, cache_folder: str | None = None) -> None:
    """Hold an encoder against the folder that it was loaded from, and mend what loading left wrong.

    Args:
        encoder: The encoder; its adapter is restored where a stock module loaded it, and so is a lost border between
            instruction and text.
        folder: The folder.
        source: Its name, for the message.
        cache_folder: Where downloads are kept.

    Raises:
        ValueError: If a weight is missing, unused or not finite, the tokenizer or an adapter's base is another model's, or
            the modules are not what the manifest says.
        CausalAttentionError: If the encoder is meant to be bidirectional and is not.
    """
    transformer = encoder.transformer
    _require_own_template(encoder, source)
    path = read_modules(folder, source)[0]["path"] if (folder / "modules.json").is_file() else ""
    ours = isinstance(transformer, BidirectionalTransformer)  # which has restored and proven what it loaded by itself
    if not ours and has_adapter(transformer.model):
        restore_adapter(transformer.model, str(folder / path))
    require_all_weights(folder / path, transformer.model, source, cache_folder)
    _require_same_base(encoder, source)
    require_finite(encoder, str(source))
    require_tokenizer_fits(transformer.model, encoder.tokenizer, source)
    if not ours:
        prove_meant_attention(encoder, str(source))
    found = disagreements(encoder)
    if found:
        raise ValueError(
            f"{source} is not what its st_llm2vec.json says: {found[0]}. A file of the folder was changed since it was saved; "
            "restore it, or save the encoder again. A folder of your own making needs no st_llm2vec.json: remove it."
        )
    if encoder.manifest is not None:
        prove_reading(list(encoder), encoder.manifest.config, encoder.layout, str(source))


def _require_own_template(encoder: TextReader, source: str | Path) -> None:
    """Raise if texts would be read through a chat template that this package does not write: it might print without end."""
    if getattr(encoder.transformer, "formatter", None) is not None:
        return  # it reads texts by its own formatter, and renders no template
    template = encoder.tokenizer.chat_template
    if "message" in encoder.transformer.modality_config and not (
        isinstance(template, str) and puts_text_verbatim(template)
    ):
        raise ValueError(
            f"The chat template of {source} is not one that this package writes, and is not rendered here. If you trust it, "
            "load it with SentenceTransformer; or convert the decoder again."
        )


def prove_meant_attention(encoder: TextReader, name: str) -> None:
    """Raise if an encoder is meant to attend in both directions and does not.

    Args:
        encoder: The encoder.
        name: Its name, for the message.

    Raises:
        CausalAttentionError: If it is causal.
    """
    model = encoder.transformer.model
    meant = encoder.manifest is not None and encoder.manifest.config.attention == "bidirectional"
    if meant or configured_attention(model) == "bidirectional":
        prove_attention(model, "bidirectional", name)


def compares_base(encoder: TextReader) -> bool:
    """Whether the weights under the encoder's adapter can be held against those that it was saved on."""
    model, manifest = encoder.transformer.model, encoder.manifest
    return bool(manifest and manifest.adapter_base) and has_adapter(model) and keeps_fingerprint(model)


def _require_same_base(encoder: TextReader, source: str | Path) -> None:
    """Raise if the weights under an adapter are not those that it was saved on."""
    model: Any = encoder.transformer.model
    if compares_base(encoder) and encoder.manifest and fingerprint(model) != encoder.manifest.adapter_base:
        base = next(iter(model.peft_config.values())).base_model_name_or_path
        raise ValueError(
            f"The adapter in {source} was saved on other weights than its base {base} holds now: their fingerprint is not "
            "the one in st_llm2vec.json. Put back the base that it was trained on, or train it again on this one."
        )
