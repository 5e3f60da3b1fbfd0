"""The graph of an encoder: its decoder under eager attention, its pooling, its normalisation."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor, nn

from st_llm2vec.encoding.text_reader import TextReader

LARGEST = 2**31 - 2**20  # bytes; protobuf's limit for a file, less room for the graph itself


class EncoderGraph(nn.Module):
    """An encoder as a function of tokens.

    Args:
        encoder: The encoder, of stock modules that pool tokens.
    """

    def __init__(self, encoder: TextReader) -> None:
        super().__init__()
        self.model = encoder.transformer.model
        # MultiVectorMask drops nothing here: it is there to make old readers of the folder fail.
        self.following = nn.ModuleList(
            module for module in list(encoder)[1:] if not isinstance(module, MultiVectorMask)
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor, prompt_length: Tensor | None = None) -> Tensor:
        """Encode a padded batch.

        Args:
            input_ids: Of shape ``(batch, tokens)``.
            attention_mask: Of shape ``(batch, tokens)``.
            prompt_length: Of shape ``(batch,)``: how many tokens at the beginning are not pooled.

        Returns:
            The vectors, of shape ``(batch, dimensions)``.
        """
        states = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        pooled = attention_mask
        if prompt_length is not None:
            first = attention_mask.argmax(dim=1) + prompt_length
            pooled = attention_mask * (torch.arange(input_ids.shape[1]) >= first[:, None])
        features = {"input_ids": input_ids, "attention_mask": pooled, "token_embeddings": states}
        for module in self.following:
            features = module(features)
        return features["sentence_embedding"]


def leaves_prompt_out(encoder: SentenceTransformer) -> bool:
    """Whether the stock pooling leaves the prompt's tokens out."""
    return not all(module.include_prompt for module in encoder if isinstance(module, Pooling))


def write_graph(encoder: TextReader, path: Path) -> None:
    """Write an encoder's graph, with any number of texts and of tokens.

    Args:
        encoder: The encoder, which is as it was afterwards.
        path: The file. Weights of more than 2 GB stand in another beside it.
    """
    model: Any = encoder.transformer.model
    size = sum(one.numel() * one.element_size() for one in model.parameters())
    two_texts = torch.tensor([[1, 2, 3], [1, 2, 3]])
    inputs = {"input_ids": two_texts, "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}
    if leaves_prompt_out(encoder):
        inputs["prompt_length"] = torch.tensor([1, 1])
    axes = {name: {0: "batch", 1: "tokens"} if values.ndim == 2 else {0: "batch"} for name, values in inputs.items()}
    with _eager(model), _quiet(), torch.no_grad():
        program = torch.onnx.export(
            EncoderGraph(encoder).eval(),
            kwargs={name: values.to(model.device) for name, values in inputs.items()},
            dynamo=True,
            verbose=False,
            optimize=False,  # ONNX Runtime does that when it loads the graph, in a fraction of the time
            input_names=list(inputs),
            output_names=["sentence_embedding"],
            dynamic_shapes=axes,
        )
        assert program is not None, "dynamo=True gives a program"
        program.save(str(path), external_data=size > LARGEST)


@contextmanager
def _eager(model: Any) -> Iterator[None]:
    """Attention in plain products, which is what an ONNX graph can hold, and no dropout."""
    kept, training = model.config._attn_implementation, model.training
    model.set_attn_implementation("eager")
    model.eval()
    try:
        yield
    finally:
        model.set_attn_implementation(kept)
        model.train(training)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes on its own parts."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            exporter.setLevel(level)
