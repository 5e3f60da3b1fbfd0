from __future__ import annotations

import pytest
import torch

from st_llm2vec.modules import CausalAttentionError, probe_attention, set_attention
from st_llm2vec.modules.attention import AttentionProbe, prove_attention, repair_attention
from tests.promises import Promise
from tests.tiny_decoders import tiny_decoder


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_the_flag_frees_llama(implementation: str) -> None:
    model = tiny_decoder("llama", implementation)
    assert probe_attention(model).kind == "causal"
    set_attention(model, "bidirectional")
    probe = probe_attention(model)
    assert (probe.kind, probe.implementation) == ("bidirectional", implementation)
    assert all(probe.layers)
    set_attention(model, "causal")
    assert probe_attention(model).kind == "causal"


@pytest.mark.promise(Promise.NEVER_CAUSAL)
def test_stablelm_under_sdpa_depends_on_the_padding_until_repaired() -> None:
    model = tiny_decoder("stablelm", "sdpa")
    set_attention(model, "bidirectional")
    probe = probe_attention(model)
    assert (probe.kind, probe.unpadded, probe.right_padded) == ("mixed", False, True)
    with pytest.raises(CausalAttentionError, match="causal without padding"):
        prove_attention(model, "bidirectional", "it")
    assert repair_attention(model, "bidirectional")
    assert prove_attention(model, "bidirectional", "it").kind == "bidirectional"


@pytest.mark.promise(Promise.NEVER_CAUSAL)
def test_layers_that_depend_on_the_padding_are_noticed() -> None:
    """Llama 4's chunked layers see the future under SDPA only as long as nothing is padded."""
    model = tiny_decoder("llama4_text", "sdpa")
    set_attention(model, "bidirectional")
    probe = probe_attention(model)
    assert probe.unpadded and probe.right_padded and probe.left_padded
    assert probe.kind == "mixed"
    assert "4 layers without padding and through 1 with it" in probe.describe()


def test_a_hybrid_is_called_one() -> None:
    model = tiny_decoder("lfm2")
    set_attention(model, "bidirectional")
    probe = prove_attention(model, "bidirectional", "it")
    assert probe.kind == "hybrid"
    assert "stay causal" in probe.describe()


def test_a_bidirectional_model_is_no_causal_one() -> None:
    model = tiny_decoder("llama")
    set_attention(model, "bidirectional")
    with pytest.raises(ValueError, match="told to attend causally"):
        prove_attention(model, "causal", "it")


def test_an_overflow_is_not_taken_for_attention() -> None:
    model = tiny_decoder("llama").half()
    set_attention(model, "bidirectional")
    for layer in model.layers:
        layer.mlp.down_proj.weight.data.fill_(6e4)
        layer.mlp.up_proj.weight.data.fill_(1e3)
    with pytest.raises(ValueError, match="not finite in float16.*dtype=torch.float32"):
        prove_attention(model, "bidirectional", "it")


def test_the_probe_leaves_the_model_as_it_was() -> None:
    model = tiny_decoder("llama").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    probe_attention(model)
    assert model.training
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_the_probe_in_words() -> None:
    probe = AttentionProbe("sdpa", False, True, True, (False, False), (False, False))
    assert probe.describe() == (
        "depends on the batch under sdpa: bidirectional right-padded and left-padded, causal without padding"
    )
    assert probe.to_dict()["kind"] == "mixed"
