"""``torch_compile=True`` trains: compiled, the passes and gradients are the same."""

from __future__ import annotations

import pytest
import torch

from st_llm2vec.losses import HardNegativesRankingLoss
from st_llm2vec.packed.attention import Segments, packed_attention_forward
from st_llm2vec.packed.enable import padding_free

from ..losses.test_padding_free import assert_equal, backward, make


def test_gradients_of_compiled_attention() -> None:
    torch.manual_seed(0)
    states = [torch.randn(1, 2, 7, 8, requires_grad=True) for _ in range(3)]
    layout = Segments((3, 4)).to_tensor()

    def attend(*parts: torch.Tensor) -> torch.Tensor:
        return packed_attention_forward(torch.nn.Module(), *(2 * one for one in parts), layout)[0].square().sum()

    torch._dynamo.reset()
    try:
        compiled = torch.autograd.grad(torch.compile(attend, backend="aot_eager")(*states), states)
    finally:
        torch._dynamo.reset()
    for one, other in zip(compiled, torch.autograd.grad(attend(*states), states), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_of_a_compiled_encoder(checkpointing: bool) -> None:
    encoder = make("llama", "llm2vec")
    loss = HardNegativesRankingLoss(encoder)
    encoder.train()
    assert padding_free(encoder.transformer)
    plain = backward(encoder, loss, 2)
    if checkpointing:
        encoder.transformer.model.gradient_checkpointing_enable({"use_reentrant": False})
    torch._dynamo.reset()
    loss.model = torch.compile(encoder, backend="aot_eager")
    try:
        assert_equal(backward(encoder, loss, 2), plain)
    finally:
        torch._dynamo.reset()
