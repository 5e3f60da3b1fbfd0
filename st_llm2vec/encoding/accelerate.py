"""One call that makes any Sentence Transformers encoder as fast as this package's own."""

from __future__ import annotations

import logging
import os
import shutil
from functools import partial
from typing import Any, TypeVar, cast

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer

from st_llm2vec.encoding.inference import infer, is_instructed
from st_llm2vec.encoding.text_reader import TextReader
from st_llm2vec.modules.attention import decoder_layers
from st_llm2vec.packed.enable import enable_padding_free

logger = logging.getLogger(__name__)

Encoder = TypeVar("Encoder", bound=SentenceTransformer)
WARM_UP = ["The compass needle points to the north.", "Rain."]
COMPILER_OPTIONS = {"cpp.dynamic_threads": True}  # each stream has its own number of threads
COMPILERS = ("g++", "clang++", "c++", "cl")


def accelerate(model: Encoder, *, compile: bool = False) -> Encoder:
    """Let an encoder read batches without padding, by their tokens, and compile its layers if asked to.

    Encoders of this package read so from the start; this is for any other ``SentenceTransformer`` with a decoder or
    encoder inside, and for compiling. The vectors stay what they are. Nothing of it is saved with the encoder. What
    cannot be read without padding (a model without exchangeable attention, recurrent layers) stays padded, and a
    warning says why.

    Args:
        model: The encoder; it is changed in place.
        compile: Whether to compile the decoder's layers with ``torch.compile``, for any lengths. That takes some
            seconds, once. Where no C++ compiler is found or compilation fails, a warning says so and the encoder runs on
            as it was.

    Returns:
        The same encoder.

    Raises:
        ValueError: If its first module is no ``Transformer``.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from st_llm2vec import accelerate, convert, decoder_path
        >>> encoder = accelerate(convert(decoder_path(), "sgpt"))
        >>> encoder.encode(["A violin.", "A violin is carved from spruce."]).shape
        (2, 192)
    """
    transformer = model[0]
    if not isinstance(transformer, Transformer):
        raise ValueError(
            f"The first module of this encoder is {type(transformer).__name__}; only a Transformer can be accelerated."
        )
    padded_because = enable_padding_free(transformer)
    if padded_because is not None:
        logger.warning("Batches stay padded: %s.", padded_because)
    if not isinstance(model, TextReader):
        model._inference = partial(_inference, model)  # type: ignore[method-assign]
    if compile:
        _compile_layers(model)
    return model


def _inference(model: SentenceTransformer, inputs: list[Any], **options: Any) -> Any:
    """What an accelerated encoder does in the place of its class's own ``_inference``.

    Raises:
        ValueError: If a text has an instruction of its own and the encoder's module is a stock one, which reads none.
    """
    told = next((one for one in inputs if is_instructed(one)), None)
    if told is not None and type(cast("Transformer", model[0])).preprocess is Transformer.preprocess:
        raise ValueError(
            f"{str(told)[:60]!r} has an instruction of its own, which Sentence Transformers' own modules do not read. Load the "
            "encoder with st_llm2vec.load, or encode the texts of each instruction by themselves, with prompt=."
        )
    with torch.inference_mode():
        return infer(model, inputs, partial(type(model)._inference, model), **options)


def _compile_layers(model: SentenceTransformer) -> None:
    transformer = cast("Transformer", model[0])
    layers = decoder_layers(transformer.model)
    if layers is None:
        logger.warning("Not compiled: %s keeps its layers in no list.", type(transformer.model).__name__)
        return
    if next(transformer.model.parameters()).device.type == "cpu" and not _has_compiler():
        logger.warning("Not compiled: torch.compile needs a C++ compiler (g++ or clang++), and none was found.")
        return
    for layer in layers:
        layer.compile(dynamic=True, options=COMPILER_OPTIONS)
    try:
        model.encode(WARM_UP, show_progress_bar=False)
    except Exception as error:  # whatever the compiler raises, the layers run as they are
        for layer in layers:
            layer._compiled_call_impl = None
        logger.warning("Not compiled: %s", str(error).strip().split("\n")[0])


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX"), *COMPILERS) if name)
