from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling

from st_llm2vec.modules import BidirectionalTransformer, CausalAttentionError, probe_attention
from st_llm2vec.modules.transformer import add_position_ids

from ..conftest import TEXTS, cosine_distance
from ..promises import Promise


def test_composed_by_hand(decoder: str) -> None:
    module = BidirectionalTransformer(decoder)
    assert probe_attention(module.model).kind == "bidirectional"
    model = SentenceTransformer(modules=[module, Pooling(module.get_embedding_dimension(), "mean")])
    assert model.encode(TEXTS).shape == (len(TEXTS), 192)


@pytest.mark.promise(Promise.NEVER_CAUSAL)
def test_it_refuses_what_stays_causal(tiny: Callable[..., str]) -> None:
    with pytest.raises(CausalAttentionError):
        BidirectionalTransformer(tiny("gpt_neo"))


def test_it_repairs_at_load(tiny: Callable[..., str], tmp_path: Path) -> None:
    module = BidirectionalTransformer(tiny("nemotron"), model_kwargs={"attn_implementation": "sdpa"})
    assert probe_attention(module.model).kind == "bidirectional"
    (tmp_path / "saved").mkdir()
    module.save(str(tmp_path / "saved"))
    again = BidirectionalTransformer.load(str(tmp_path / "saved"))
    assert probe_attention(again.model).kind == "bidirectional"


def test_left_padded_batches_get_positions(tiny: Callable[..., str]) -> None:
    model = BidirectionalTransformer(tiny("gpt2")).model
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    features = add_position_ids({"attention_mask": mask}, model)
    assert features["position_ids"].tolist() == [[0, 0, 0, 1], [0, 1, 2, 3]]
    assert "position_ids" not in add_position_ids({"attention_mask": mask.flip(1)}, model)


def test_instructions_by_row_through_the_module(decoder: str) -> None:
    formatter = {"template": "{bos}{text}", "instruction_template": "{bos}{instruction} {text}"}
    module = BidirectionalTransformer(decoder, formatter=formatter)
    model = SentenceTransformer(modules=[module, Pooling(module.get_embedding_dimension(), "mean")])
    features = model.preprocess([["Find it", TEXTS[0]], {"text": TEXTS[1], "instruction": None}])
    with torch.no_grad():
        rows = model(features)["sentence_embedding"]
    assert cosine_distance(rows[0].numpy(), model.encode(TEXTS[0], prompt="Find it")) < 1e-6
    assert cosine_distance(rows[1].numpy(), model.encode(TEXTS[1])) < 1e-6
    pairs = [["Find it", text] for text in TEXTS]
    assert cosine_distance(model.encode(pairs), model.encode(TEXTS, prompt="Find it")) < 1e-6


def test_plain_sentence_transformers_never_deals_out_a_list_of_instructions(decoder: str) -> None:
    formatter = {"template": "{bos}{text}", "instruction_template": "{bos}{instruction} {text}"}
    module = BidirectionalTransformer(decoder, formatter=formatter)
    model = SentenceTransformer(modules=[module, Pooling(module.get_embedding_dimension(), "mean")])
    with pytest.raises(ValueError, match=r"sorts the texts .* give \[\[instruction, text\], ...\]"):
        model.encode(TEXTS[:2], prompt=["Find it", "Name it"])


def test_settings_of_the_processor_are_honoured_or_refused(decoder: str) -> None:
    module = BidirectionalTransformer(decoder, formatter={"template": "{bos}{text}{eos}"})
    whole = module.preprocess(["word " * 50])["input_ids"].shape[1]

    def length(**settings: Any) -> int:
        return module.preprocess(["word " * 50], max_length=40, processing_kwargs=settings)["input_ids"].shape[1]

    assert length() == length(text={}) == 40 < whole
    assert length(text={"max_length": 9, "truncation": "longest_first", "padding": True}) == 9
    assert length(text={"truncation": False}, common={"return_tensors": "pt"}) == whole
    module.processing_kwargs = {"text": {"max_length": 12}}
    assert length() == 12 and length(text={"max_length": 7}) == 7
    for settings in (
        {"text": {"max_length": 0}},
        {"text": {"padding": "max_length"}},
        {"text": {"add_special_tokens": False}},
        {"text": {"truncation": "only_second"}},
        {"chat_template": {"add_generation_prompt": True}},
        {"common": {"return_tensors": "np"}},
    ):
        with pytest.raises(ValueError, match="which this encoder cannot honour"):
            length(**settings)
