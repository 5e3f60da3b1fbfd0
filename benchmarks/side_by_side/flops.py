"""What a forward pass has to compute, and what the machine can: for the share of the machine that is used."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch


def matmul_parameters(shape: Mapping[str, Any]) -> int:
    """Weights that every token is multiplied with: all but embeddings and norms.

    Args:
        shape: ``hidden_size``, ``intermediate_size``, ``num_hidden_layers``, ``num_attention_heads`` and
            ``num_key_value_heads`` of a Llama.
    """
    hidden, heads = shape["hidden_size"], shape["num_attention_heads"]
    keys = hidden // heads * shape.get("num_key_value_heads", heads)
    layer = 2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * shape["intermediate_size"]
    return layer * shape["num_hidden_layers"]


def forward_flops(shape: Mapping[str, Any], lengths: Sequence[int]) -> int:
    """Floating-point operations of a forward pass over texts, without padding, attention in both directions.

    Two for each weight and token; in each layer, for a text of n tokens, 2 n^2 x width for the scores and as many for
    the weighted sum.

    Args:
        shape: As for :func:`matmul_parameters`.
        lengths: Tokens of each text.
    """
    attention = 4 * shape["hidden_size"] * shape["num_hidden_layers"] * sum(length * length for length in lengths)
    return 2 * matmul_parameters(shape) * sum(lengths) + attention


def matmul_rate(dtype: str, device: str, size: int | None = None, repeats: int = 5) -> float:
    """Operations per second of a big square matrix product, the best that the machine reaches now.

    Args:
        dtype: Name of a type of torch.
        device: Where.
        size: Rows and columns; 2,048 on a CPU and 8,192 elsewhere if not given.
        repeats: Products, of which the median counts.
    """
    size = size or (2048 if device == "cpu" else 8192)
    first, second = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2))
    seconds = []
    for _ in range(repeats + 2):
        begun = time.perf_counter()
        torch.mm(first, second)
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return 2 * size**3 / statistics.median(seconds[2:])


def copy_rate(device: str, mib: int | None = None, repeats: int = 5) -> float:
    """Bytes per second of a copy within a device's memory, those read and those written counted.

    Args:
        device: Where.
        mib: Size of what is copied; 64 MiB on a CPU and 4 GiB elsewhere if not given.
        repeats: Copies, of which the median counts.
    """
    source = torch.ones((mib or (64 if device == "cpu" else 4096)) * 2**18, device=device)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(repeats + 2):
        begun = time.perf_counter()
        target.copy_(source)
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return 2 * source.nbytes / statistics.median(seconds[2:])
