"""Attention within a packed sequence: what each token sees, and that it is what a padded batch would give it."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.masking_utils import (
    causal_mask_function,
    sliding_window_bidirectional_mask_function,
    sliding_window_causal_mask_function,
)

from st_llm2vec.packed import attention as packed
from st_llm2vec.packed import cpu_kernel
from st_llm2vec.packed import gpu_kernel as varlen
from st_llm2vec.packed.attention import EVERYTHING, NO_WINDOW, Segments, current_segments, packed_attention, packed_mask
from st_llm2vec.packed.gpu_fallback import dense_attention

LENGTHS = (2, 3, 3, 9)
HEADS, WIDTH, SCALE = 4, 8, 0.3
BANDS = {
    "bidirectional": (EVERYTHING, EVERYTHING),
    "causal": (EVERYTHING, 0),
    "window": (3, 3),
    "causal window": (3, 0),
    "wide window": (20, 20),
}


def states(tokens: int, heads: int = HEADS, seed: int = 0) -> Tensor:
    return torch.randn(1, heads, tokens, WIDTH, generator=torch.Generator().manual_seed(seed))


def one_by_one(query: Tensor, key: Tensor, value: Tensor, segments: Segments) -> Tensor:
    """Each text alone, with an explicit mask; a text sees the prefix as if it stood before it."""
    grouped = query.shape[1] != key.shape[1]
    pieces, start = [], segments.prefix
    spans = [(range(segments.prefix), range(segments.prefix))] if segments.prefix else []
    for length in segments.lengths:
        own = range(start, start + length)
        spans.append((own, [*range(segments.prefix), *own]))
        start += length
    for queries, keys in spans:
        places = torch.arange(len(keys))
        distance = places[len(keys) - len(queries) :, None] - places
        mask = torch.ones_like(distance, dtype=torch.bool)
        mask &= distance <= segments.left if segments.left != EVERYTHING else True
        mask &= distance >= -segments.right if segments.right != EVERYTHING else True
        parts = (query[:, :, list(queries)], key[:, :, list(keys)], value[:, :, list(keys)])
        pieces.append(scaled_dot_product_attention(*parts, attn_mask=mask, scale=SCALE, enable_gqa=grouped))
    return torch.cat(pieces, dim=2).transpose(1, 2)


@pytest.mark.parametrize("key_heads", (HEADS, 2))
@pytest.mark.parametrize("band", BANDS)
def test_each_text_attends_to_itself_alone(band: str, key_heads: int) -> None:
    segments = Segments(LENGTHS, 0, *BANDS[band])
    query = states(sum(LENGTHS)).requires_grad_()
    key, value = (states(sum(LENGTHS), key_heads, seed).requires_grad_() for seed in (1, 2))
    expected = one_by_one(query, key, value, segments)
    attended = packed_attention(query, key, value, segments.to_tensor(), SCALE, 0.0, 0.0)
    assert torch.allclose(attended, expected, atol=1e-6)
    gradients = [
        torch.autograd.grad((one**2).sum(), (query, key, value), retain_graph=True) for one in (attended, expected)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_an_older_pytorch_gets_no_keys_that_share_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its fused kernel would write where there is no memory of its own."""
    monkeypatch.setattr(cpu_kernel, "KNOWS_GROUPS", False)
    monkeypatch.setattr(packed, "fused_attention", lambda *args: pytest.fail("the kernel was called"))
    monkeypatch.setattr(packed, "prefix_attention", lambda *args: pytest.fail("the kernel was called"))
    test_each_text_attends_to_itself_alone("bidirectional", 2)
    segments = Segments(LENGTHS, 5, EVERYTHING, 0)
    query, key, value = (states(5 + sum(LENGTHS), heads, seed) for seed, heads in enumerate((HEADS, 2, 2)))
    with torch.no_grad():
        attended = packed_attention(query, key, value, segments.to_tensor(), SCALE, 0.0, 0.0)
    assert torch.allclose(attended, one_by_one(query, key, value, segments), atol=1e-6)


@pytest.mark.parametrize("band", ("bidirectional", "causal"))
def test_gradients_in_bfloat16_keep_states_of_the_row_in_their_own_type(band: str) -> None:
    segments = Segments(LENGTHS, 0, *BANDS[band])
    halves = [states(sum(LENGTHS), heads, heads).bfloat16().requires_grad_() for heads in (HEADS, 2, 2)]
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one) or one, lambda one: one):
        attended = packed_attention(*halves, segments.to_tensor(), SCALE, 0.0, 0.0)
    tokens = sum(LENGTHS)
    assert [tuple(one.shape) for one in kept[:3]] == [(1, heads, tokens, WIDTH) for heads in (HEADS, 2, 2)]
    assert [one.numel() for one in kept[3:]] == [HEADS * tokens * WIDTH, HEADS * tokens]
    assert all(one.dtype == torch.bfloat16 for one in kept[:4])
    wholes = [one.detach().float().requires_grad_() for one in halves]
    expected = one_by_one(*wholes, segments)
    for one, other in zip(
        torch.autograd.grad(attended.sum(), halves), torch.autograd.grad(expected.sum(), wholes), strict=True
    ):
        assert torch.allclose(one.float(), other, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("merged", (True, False))
@pytest.mark.parametrize("key_heads", (HEADS, 2))
def test_a_prefix_stands_before_every_text(key_heads: int, merged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not merged:
        monkeypatch.setattr(cpu_kernel, "takes_prefix", lambda *_: False)
    segments = Segments(LENGTHS, 4, EVERYTHING, 0)
    query, key, value = (states(4 + sum(LENGTHS), heads, heads) for heads in (HEADS, key_heads, key_heads))
    with torch.no_grad():
        attended = packed_attention(query, key, value, segments.to_tensor(), SCALE, 0.0, 0.0)
    assert torch.allclose(attended, one_by_one(query, key, value, segments), atol=1e-6)


def test_a_prefix_is_for_causal_texts_only() -> None:
    tokens = states(4 + sum(LENGTHS))
    for left, right in ((EVERYTHING, EVERYTHING), (3, 0)):
        with pytest.raises(ValueError, match="causal attention without a window"):
            packed_attention(tokens, tokens, tokens, Segments(LENGTHS, 4, left, right).to_tensor(), SCALE, 0.0, 0.0)


def test_capped_scores() -> None:
    segments = Segments((5,), 0, EVERYTHING, 0)
    query, key, value = (states(5, heads, heads) * 5 for heads in (HEADS, 2, 2))
    scores = query @ key.repeat_interleave(2, dim=1).transpose(2, 3) * SCALE
    capped = 2 * torch.tanh(scores / 2)
    weights = capped.masked_fill(~torch.ones(5, 5, dtype=torch.bool).tril(), -torch.inf).softmax(dim=-1)
    expected = (weights @ value.repeat_interleave(2, dim=1)).transpose(1, 2)
    attended = packed_attention(query, key, value, segments.to_tensor(), SCALE, 0.0, 2.0)
    assert torch.allclose(attended, expected, atol=1e-5)
    assert not torch.allclose(attended, packed_attention(query, key, value, segments.to_tensor(), SCALE, 0.0, 0.0))


def test_dropout_drops() -> None:
    segments, tokens = Segments(LENGTHS), states(sum(LENGTHS))
    passes = [packed_attention(tokens, tokens, tokens, segments.to_tensor(), SCALE, 0.5, 0.0) for _ in range(2)]
    assert not torch.allclose(*passes)


def test_the_band_is_read_off_the_models_own_mask() -> None:
    def chunks(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query // 3 == key // 3) & (key <= query)

    expected = {
        causal_mask_function: (EVERYTHING, 0),
        sliding_window_causal_mask_function(4): (3, 0),
        sliding_window_bidirectional_mask_function(4): (4, 4),
        sliding_window_bidirectional_mask_function(50): (EVERYTHING, EVERYTHING),
        chunks: (NO_WINDOW, NO_WINDOW),
    }
    token = current_segments.set(Segments(LENGTHS))
    try:
        for function, band in expected.items():
            layout = packed_mask(mask_function=function)
            assert layout is not None
            assert Segments.from_tensor(layout) == Segments(LENGTHS, 0, *band)
    finally:
        current_segments.reset(token)


def test_a_mask_that_is_no_band_is_refused_where_it_is_read() -> None:
    tokens = states(sum(LENGTHS))
    with pytest.raises(ValueError, match="no window"):
        packed_attention(
            tokens, tokens, tokens, Segments(LENGTHS, 0, NO_WINDOW, NO_WINDOW).to_tensor(), SCALE, 0.0, 0.0
        )


@pytest.mark.parametrize("prefix", (0, 4))
def test_what_the_variable_length_kernel_is_asked_for(prefix: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel needs a GPU; in its place a loop over its documented arguments, causal masks at the lower right."""

    def loop(
        query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int, **options
    ) -> Tensor:
        assert (max_q, max_k) == (int(cu_seq_q.diff().max()), int(cu_seq_k.diff().max()))
        assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
        left, right = options["window_size"]
        pieces = []
        for (start, end), (first, last) in zip(
            cu_seq_q.unfold(0, 2, 1).tolist(), cu_seq_k.unfold(0, 2, 1).tolist(), strict=True
        ):
            places = torch.arange(last - first)
            distance = places[last - first - (end - start) :, None] - places
            mask = (distance <= left if left >= 0 else True) & (distance >= (-right if right >= 0 else -1000))
            parts = [part.transpose(0, 1)[None] for part in (query[start:end], key[first:last], value[first:last])]
            attended = scaled_dot_product_attention(
                *parts, attn_mask=mask, scale=options["scale"], enable_gqa=options.get("enable_gqa", False)
            )
            pieces.append(attended[0].transpose(0, 1))
        return torch.cat(pieces)

    monkeypatch.setattr(varlen, "varlen_attn", loop)
    monkeypatch.setattr(varlen, "takes", lambda _: True)
    segments = Segments(LENGTHS, prefix, EVERYTHING, 0) if prefix else Segments(LENGTHS, 0, 3, 3)
    query, key, value = (states(prefix + sum(LENGTHS), heads, heads) for heads in (HEADS, 2, 2))
    attended = packed_attention(query, key, value, segments.to_tensor(), SCALE, 0.0, 0.0)
    assert torch.allclose(attended, one_by_one(query, key, value, segments), atol=1e-6)


@pytest.mark.parametrize("softcap", (0.0, 2.0))
@pytest.mark.parametrize(("prefix", "left", "right"), ((0, -1, -1), (0, -1, 0), (0, 3, 3), (4, -1, 0)))
def test_texts_side_by_side_attend_as_one_by_one(prefix: int, left: int, right: int, softcap: float) -> None:
    """What a GPU does where its variable-length kernel is not to be had."""
    segments = Segments(LENGTHS, prefix, left, right)
    query, key, value = (states(prefix + sum(LENGTHS), heads, heads) for heads in (HEADS, 2, 2))
    for state in (query, key, value):
        state.requires_grad_()
    under = partial(packed._attend_under, causal=False, scale=SCALE, dropout=0.0, softcap=softcap)
    own = dense_attention(query, key, value, segments, under)
    wanted = packed_attention(query, key, value, segments.to_tensor(), SCALE, 0.0, softcap)[0, prefix:]
    assert torch.allclose(own, wanted, atol=1e-6)
    gradients = [torch.autograd.grad(each.sin().sum(), (query, key, value)) for each in (own, wanted)]
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(*gradients, strict=True))
