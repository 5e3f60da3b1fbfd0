from __future__ import annotations

import pytest
import torch

from st_llm2vec.modules import LatentAttentionPooling, SpanPooling

STATES = torch.arange(24, dtype=torch.float32).reshape(2, 4, 3)
MASK = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("mean", (STATES[0, 1] + STATES[0, 2]) / 2),
        ("weighted_mean", (STATES[0, 1] + 2 * STATES[0, 2]) / 3),
        ("last_token", STATES[0, 2]),
    ],
)
def test_only_the_span_is_pooled(mode, expected: torch.Tensor) -> None:
    pooled = SpanPooling(3, mode)({"token_embeddings": STATES, "pooling_mask": MASK})["sentence_embedding"]
    torch.testing.assert_close(pooled[0], expected)
    assert not pooled[1].any(), "an empty span has the zero vector"


def test_half_precision_keeps_its_type_and_sums_in_single() -> None:
    states = torch.full((1, 4096, 1), 0.1, dtype=torch.bfloat16)
    features = {"token_embeddings": states, "pooling_mask": torch.ones(1, 4096)}
    pooled = SpanPooling(1)(features)["sentence_embedding"]
    assert pooled.dtype == torch.bfloat16
    torch.testing.assert_close(pooled, states[:, 0])


def test_no_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="no pooling_mask"):
        SpanPooling(3)({"token_embeddings": STATES})


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="Unknown pooling mode 'max'"):
        SpanPooling(3, "max")


def test_latent_attention_ignores_what_is_not_pooled() -> None:
    torch.manual_seed(0)
    pooling = LatentAttentionPooling(8, num_latents=4, num_heads=2)
    states = torch.randn(2, 5, 8)
    mask = torch.tensor([[0, 1, 1, 1, 0], [0, 0, 0, 0, 0]])
    batch = {"token_embeddings": states, "attention_mask": torch.ones(2, 5), "pooling_mask": mask}
    alone = {"token_embeddings": states[:1, 1:4], "attention_mask": torch.ones(1, 3)}
    pooled = pooling(dict(batch))["sentence_embedding"]
    torch.testing.assert_close(pooled[:1], pooling(alone)["sentence_embedding"])
    assert not pooled[1].any()


def test_latent_attention_learns() -> None:
    torch.manual_seed(0)
    pooling = LatentAttentionPooling(8, num_latents=4, num_heads=2)
    features = {"token_embeddings": torch.randn(2, 3, 8), "attention_mask": torch.ones(2, 3)}
    pooling(features)["sentence_embedding"].square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in pooling.parameters())


def test_latent_attention_in_float32_takes_states_of_half_precision() -> None:
    torch.manual_seed(0)
    pooling = LatentAttentionPooling(8, num_latents=4, num_heads=2)
    states, mask = torch.randn(2, 3, 8).bfloat16(), torch.tensor([[1, 1, 0], [1, 1, 1]])
    half, full = (
        pooling({"token_embeddings": one, "attention_mask": mask})["sentence_embedding"]
        for one in (states, states.float())
    )
    assert torch.equal(half, full.bfloat16())


def test_latent_attention_at_nv_embeds_size_says_how_large_it_is() -> None:
    with torch.device("meta"):
        pooling = LatentAttentionPooling(4096)
    attention = 4 * 4096 * 32768
    feed_forward = 4096 * 32768 + 32768 + 16384 * 4096 + 4096
    assert pooling.num_parameters == attention + feed_forward + 512 * 4096 + 6 * 4096
    assert f"{pooling.num_parameters:,}" in repr(pooling)


def test_latent_attention_is_nv_embeds_formula() -> None:
    """Written out by hand, token by token and head by head (arXiv 2405.17428, section 3.2)."""
    torch.manual_seed(0)
    pooling = LatentAttentionPooling(8, num_latents=4, num_heads=2, head_dimension=6).double()
    states = torch.randn(3, 8, dtype=torch.float64)
    norm = torch.nn.functional.layer_norm
    latents = norm(pooling.latents, (8,))
    key, value = (latents @ pooling.to_key_value.weight.T).split(12, dim=1)
    rows = []
    for state in states:
        query = norm(state, (8,)) @ pooling.to_query.weight.T
        heads = []
        for head in (slice(0, 6), slice(6, 12)):
            weights = torch.softmax(key[:, head] @ query[head] / 6**0.5, dim=0)
            heads.append(weights @ value[:, head])
        state = state + torch.cat(heads) @ pooling.to_output.weight.T
        inner = pooling.feed_forward.project_in(norm(state, (8,)))
        gated = inner[:32] * torch.nn.functional.gelu(inner[32:])
        rows.append(state + pooling.feed_forward.project_out(gated))
    features = {"token_embeddings": states[None], "attention_mask": torch.ones(1, 3)}
    torch.testing.assert_close(pooling(features)["sentence_embedding"][0], torch.stack(rows).mean(0))
