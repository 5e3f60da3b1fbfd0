"""A decoder that reads through one recipe with any demonstrations, without being compiled for each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from st_llm2vec.conversion.convert import apply_attention, prepare_tokenizer
from st_llm2vec.conversion.decoder import load_transformer
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.layouts.choose import own_modules, set_output_layer
from st_llm2vec.layouts.special_tokens import read_as_text
from st_llm2vec.modules.transformer import BidirectionalTransformer
from st_llm2vec.recipe.config import Demonstration, EncoderConfig, get_recipe
from st_llm2vec.recipe.manifest import Manifest

Demonstrations = tuple[Demonstration, ...]


@dataclass(frozen=True)
class Candidate:
    """Demonstrations that may be chosen.

    Args:
        demonstrations: They stand before every text, in this order; none for the bare recipe.
        source: Where they come from, for the table.
    """

    demonstrations: Demonstrations
    source: str = ""

    def __str__(self) -> str:
        return " / ".join(f"{one.text} {one.response}" for one in self.demonstrations) or "(none)"


def open_trial(
    decoder: str | Path,
    recipe: str | Path | Mapping[str, Any] | EncoderConfig,
    dtype: torch.dtype | str | None = None,
    device: str | None = None,
) -> TextEncoder:
    """Load a decoder as an encoder whose demonstrations :func:`show` exchanges in no time.

    ``convert`` proves that stock modules read a recipe's tokens, which takes seconds and is the same for all candidates. Here
    the specification itself reads, the recipe's ``InstructionFormatter``. Vectors are those of ``convert``.

    Args:
        decoder: A folder, a GGUF file or a name on the Hub.
        recipe: A recipe with a place for demonstrations.
        dtype: As for ``convert``.
        device: As for ``convert``.

    Returns:
        The encoder. It is for trying, not for saving.

    Raises:
        ValueError: If the recipe takes no demonstrations, or the decoder cannot be loaded.

    Example:
        >>> from st_llm2vec import decoder_path
        >>> trial = show(open_trial(decoder_path(), "prompteol"), (Demonstration("A dog runs.", "Run"),))
        >>> trial.encode(["the sea"]).shape
        (1, 192)
    """
    config = get_recipe(recipe)
    if config.demonstration_template is None:
        raise ValueError(
            f"The recipe {config.name!r} takes no demonstrations: it has no demonstration_template. Those that do are "
            "prompteol, prompteol-cot, prompteol-knowledge, reverse-eol and bge-en-icl."
        )
    name = str(decoder)
    transformer = load_transformer(name, dtype, None, {}, device=device)
    probe, _ = apply_attention(transformer.model, config.attention, name)
    prepare_tokenizer(transformer, config, name, {})
    set_output_layer(transformer, config.layer)
    config = read_as_text(transformer, config)
    transformer.model.config.st_llm2vec_layout = "custom"
    return TextEncoder(
        modules=own_modules(transformer, config),
        device=device,
        prompts=dict(config.prompts),
        default_prompt_name=config.default_prompt_name,
        base_is_stored=False,
        manifest=Manifest(config=config, base={"name": name}, layout="custom", attention=probe.to_dict()),
    )


def show(trial: TextEncoder, demonstrations: Sequence[Demonstration]) -> TextEncoder:
    """Let every text stand behind these demonstrations from now on.

    Args:
        trial: What :func:`open_trial` returned; it is changed.
        demonstrations: The demonstrations; none of them for the bare recipe.

    Returns:
        The same encoder.

    Raises:
        ValueError: If they cannot be.
    """
    assert trial.manifest is not None
    config = trial.manifest.config.replace(demonstrations=tuple(demonstrations))
    cast("BidirectionalTransformer", trial[0]).read_through(config.formatter_config())
    trial.manifest = Manifest(
        config=config, base=trial.manifest.base, layout="custom", attention=trial.manifest.attention
    )
    return trial
