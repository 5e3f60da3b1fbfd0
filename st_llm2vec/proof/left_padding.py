"""Whether a model reads the padding before a text."""

from __future__ import annotations

import inspect

import torch
from transformers import PreTrainedModel

from st_llm2vec.modules.attention import without_cache
from st_llm2vec.proof.tolerances import PADDED_STATES


def needs_position_ids(model: PreTrainedModel) -> bool:
    """Whether left padding shifts the model's positions unless they are given (absolute positions, as in GPT-2)."""
    return "position_ids" in inspect.signature(model.forward).parameters and left_padding_changes(model)


@torch.no_grad()
def left_padding_changes(model: PreTrainedModel) -> bool:
    """Whether a text's last state changes when padding stands before it and no positions are given."""
    training = model.training
    model.eval()
    vocabulary = int(model.config.get_text_config(decoder=True).vocab_size)
    ids = torch.arange(10, 16, device=next(model.parameters()).device).remainder(vocabulary).unsqueeze(0)
    padded = torch.cat([ids[:, :1].expand(1, 4), ids], dim=1)
    mask = torch.ones_like(padded)
    mask[:, :4] = 0
    options = without_cache(model)
    alone = model(input_ids=ids, attention_mask=torch.ones_like(ids), **options).last_hidden_state[0, -1]
    shifted = model(input_ids=padded, attention_mask=mask, **options).last_hidden_state[0, -1]
    model.train(training)
    return (alone - shifted).abs().max().item() > PADDED_STATES.of(alone.dtype) * alone.abs().max().item()
