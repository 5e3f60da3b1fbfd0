"""The head's logits are those of the whole causal language model, for every family."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

from st_llm2vec.losses.output_head import OutputHead, tied_weights
from tests.tiny_decoders import FAMILIES, tiny_config, tiny_decoder

WITHOUT_HEAD = {"mistral4"}  # Transformers has no causal language model of it


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - WITHOUT_HEAD))
def test_the_head_equals_the_whole_model(family: str) -> None:
    torch.manual_seed(0)
    whole = AutoModelForCausalLM.from_config(tiny_config(family, vocab_size=128)).eval()
    body = AutoModel.from_config(whole.config).eval()
    tied, own = tied_weights(body)
    parameters = dict(whole.named_parameters(remove_duplicate=False))
    head = OutputHead(body, {name: parameters[name].detach() for name in own})
    ids = torch.randint(5, 100, (1, 7))
    inner = next(child for child in whole.children() if type(child) is type(body))
    with torch.no_grad():
        states = inner(input_ids=ids, use_cache=False)[0][0]
        expected = whole(input_ids=ids, use_cache=False).logits[0]
        found = head(states, {name: parameters[name] for name in tied})
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_family_without_a_head_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match="no causal language model around Mistral4Model"):
        tied_weights(tiny_decoder("mistral4"))
