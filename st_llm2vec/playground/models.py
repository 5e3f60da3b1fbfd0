"""What may be compared: recipes on the decoders that the page was started with, and saved encoders beside them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from st_llm2vec.assets import decoder_path
from st_llm2vec.conversion.convert import convert
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.folder.load import load
from st_llm2vec.inspection import is_encoder
from st_llm2vec.recipe.config import RECIPES
from st_llm2vec.reporting.page import short_names

OWN = "the decoder in the box"
OFFERED = tuple(name for name, config in RECIPES.items() if config.pooling != "latent_attention")
"""The recipes that make something of a decoder without training; latents are random before it."""
FIRST = ("prompteol-icl", "llm2vec", "echo")
KEPT = 6


class Models:
    """The models of one page; what is used of them is loaded once and kept.

    One request at a time has an encoder, since a tokenizer takes no two calls at once and a processor is no faster for it.
    Names come from whoever starts the page: a request names one of them, and nothing else is ever loaded.

    Args:
        names: Decoders and saved encoders, each a folder or a name on the Hugging Face Hub.
        dtype: Weights' type, as for :func:`st_llm2vec.convert`.
        kept: How many encoders stay in memory; the one that was used longest ago goes first.

    Raises:
        ValueError: If there are no models.
    """

    def __init__(self, names: Sequence[str], dtype: str | None = None, kept: int = KEPT) -> None:
        if not names:
            raise ValueError("There is no model to try: name a decoder or an encoder.")
        names = list(dict.fromkeys(names))
        labels = [
            OWN if name == decoder_path() else label for label, name in zip(short_names(names), names, strict=True)
        ]
        self._names = dict(zip(labels, names, strict=True))
        self.encoders = tuple(label for label, name in self._names.items() if is_encoder(name))
        self.decoders = tuple(label for label in labels if label not in self.encoders)
        self._dtype, self._limit = dtype, kept
        self._kept: OrderedDict[tuple[str, str | None], TextEncoder] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def opened(self, model: str, recipe: str | None = None) -> Iterator[TextEncoder]:
        """An encoder for one request; others wait.

        Args:
            model: A label of ``decoders`` or ``encoders``.
            recipe: How a decoder is converted; ``None`` for an encoder.

        Raises:
            ValueError: If there is no such model or recipe, or the model cannot be converted so.
        """
        if model not in self._names:
            raise ValueError(f"There is no model {model!r} on this page; it was started with {', '.join(self._names)}.")
        if model in self.encoders and recipe is not None:
            raise ValueError(f"{model} is a saved encoder and has its recipe; name none.")
        if model in self.decoders and recipe not in OFFERED:
            raise ValueError(f"There is no recipe {recipe!r} on this page; there are {', '.join(OFFERED)}.")
        with self._lock:
            yield self._encoder(model, recipe)

    def _encoder(self, model: str, recipe: str | None) -> TextEncoder:
        wanted = model, recipe
        if wanted not in self._kept:
            while len(self._kept) >= self._limit:
                self._kept.popitem(last=False)
            name = self._names[model]
            if recipe is None:
                self._kept[wanted] = load(name, dtype=self._dtype)
            else:
                self._kept[wanted] = convert(name, recipe, dtype=self._dtype, measure=False)
        self._kept.move_to_end(wanted)
        return self._kept[wanted]
