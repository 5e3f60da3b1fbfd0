from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import BertConfig, BertModel

from st_llm2vec.conversion.convert import convert
from st_llm2vec.evaluation.sentence_score import sentence_score
from st_llm2vec.inspection import Inspection, inspect_encoder, inspect_model, is_encoder
from st_llm2vec.inspection import recipes as foreseen
from st_llm2vec.modules.latent_attention import LatentAttentionPooling
from st_llm2vec.recipe.config import RECIPES

from ..stand_ins import stand_in


@pytest.fixture(scope="module")
def found(decoder: str) -> Inspection:
    return inspect_model(decoder, measure=False)


@pytest.fixture
def few_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Foresee four recipes alone, where a test asks for something else."""
    few = ("prompteol-icl", "echo", "prompteol", "llm2vec")
    monkeypatch.setattr(foreseen, "MOST_TELLING", few)
    monkeypatch.setattr(foreseen, "RECIPES", {name: RECIPES[name] for name in few})


def test_the_facts_of_a_decoder(found: Inspection) -> None:
    assert (found.model_type, found.architecture, found.dtype) == ("llama", "LlamaModel", "float32")
    assert (found.parameters, found.layers, found.width) == (1_463_232, 2, 192)
    assert (found.vocabulary, found.context) == (4096, 512)
    assert found.attention == "causal under sdpa, with and without padding"
    assert {probe.implementation: probe.kind for probe in found.bidirectional} == {
        "sdpa": "bidirectional",
        "eager": "bidirectional",
    }
    assert not (found.refusal or found.needs_repair or found.left_padding_changes or found.position_ids)
    assert found.tokenizer.family == "byte-level BPE"
    assert (found.tokenizer.bos, found.tokenizer.eos, found.tokenizer.pad) == ("<s>", "</s>", "<pad>")
    assert not found.tokenizer.chat_template
    assert found.recommended == "llm2vec"
    assert "served by vLLM, llama.cpp or the like, train mean instead" in found.advice


@pytest.mark.parametrize(
    ("model_type", "tokenizer"),
    [
        ("llama", "byte-level"),
        pytest.param("llama", "metaspace+bos", marks=pytest.mark.slow),
        pytest.param("gpt2", "byte-level+bos", marks=pytest.mark.slow),
        pytest.param("stablelm", "byte-level+bos", marks=pytest.mark.slow),
    ],
)
def test_every_recipe_is_foreseen_as_convert_makes_it(
    tiny: Callable[..., str], model_type: str, tokenizer: str
) -> None:
    folder = tiny(model_type, tokenizer)
    foreseen = {one.recipe: (one.layout, one.reason) for one in inspect_model(folder, measure=False).recipes}
    assert foreseen == {recipe: outcome(folder, recipe) for recipe in RECIPES}


def test_a_tokenizer_class_that_a_load_builds_anew_is_foreseen(tmp_path: Path) -> None:
    """Transformers builds Qwen2's tokenizer anew, and what it was taught is lost: what counts is what a load gives."""
    folder = stand_in("qwen2", tmp_path)
    foreseen = {one.recipe: one.layout for one in inspect_model(folder, measure=False).recipes}
    for recipe in ("llm2vec", "e5-mistral"):
        assert foreseen[recipe] == convert(folder, recipe).layout


def outcome(folder: str, recipe: str) -> tuple[str, str]:
    try:
        manifest = convert(folder, recipe).manifest
    except ValueError as error:
        return "impossible", str(error)
    return manifest.layout, manifest.reason


def test_a_recipe_that_leaves_no_room_is_impossible(tiny: Callable[..., str]) -> None:
    found = inspect_model(tiny("llama", max_position_embeddings=48), measure=False)
    outlook = next(one for one in found.recipes if one.recipe == "prompteol-knowledge")
    assert (outlook.layout, outlook.portable) == ("impossible", False)
    assert "no room for the text" in outlook.reason


@pytest.mark.usefixtures("few_recipes")
def test_tokenizers_in_words(tiny: Callable[..., str]) -> None:
    tokenizer = inspect_model(tiny("llama", "metaspace"), measure=False).tokenizer
    assert tokenizer.family.startswith("Metaspace BPE")
    assert tokenizer.bos == ""


@pytest.mark.usefixtures("few_recipes")
def test_absolute_positions_are_noticed(tiny: Callable[..., str]) -> None:
    found = inspect_model(tiny("gpt2"), measure=False)
    assert found.left_padding_changes
    assert found.position_ids


@pytest.mark.usefixtures("few_recipes")
def test_a_repair_is_noticed(tiny: Callable[..., str]) -> None:
    found = inspect_model(tiny("stablelm"), measure=False)
    assert found.needs_repair
    assert all(probe.kind == "bidirectional" for probe in found.bidirectional)
    assert next(one for one in found.recipes if one.recipe == "llm2vec").layout == "custom"


@pytest.mark.usefixtures("few_recipes")
def test_a_hybrid_gets_a_causal_recipe(tiny: Callable[..., str]) -> None:
    found = inspect_model(tiny("qwen3_next"), measure=False)
    assert found.bidirectional[0].kind == "hybrid"
    assert found.recommended == "prompteol"
    assert "train last-token instead" in found.advice
    assert "recurrent or convolutional layers stay causal" in found.advice


def test_a_model_that_stays_causal_gets_echo(tiny: Callable[..., str]) -> None:
    found = inspect_model(tiny("mamba"), measure=False)
    assert found.refusal
    assert found.recommended == "echo"
    impossible = {one.recipe for one in found.recipes if one.layout == "impossible"}
    assert impossible == {name for name, recipe in RECIPES.items() if recipe.attention == "bidirectional"}


def test_latent_attention_is_looked_at_without_its_weights(decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    build = LatentAttentionPooling.__init__

    def spy(module: LatentAttentionPooling, *args: object, **kwargs: object) -> None:
        build(module, *args, **kwargs)
        built.append({parameter.device.type for parameter in module.parameters()})

    monkeypatch.setattr(LatentAttentionPooling, "__init__", spy)
    inspect_model(decoder, measure=False)
    assert built == [{"meta"}]


def test_as_data_it_is_json(found: Inspection) -> None:
    data = found.to_dict()
    assert json.loads(json.dumps(data)) == data
    assert data["bidirectional"][0]["description"] == "bidirectional under sdpa, with and without padding"
    assert {one["recipe"] for one in data["recipes"] if one["portable"]} >= {"llm2vec", "prompteol", "sgpt"}


def test_an_encoder_is_refused(tiny: Callable[..., str]) -> None:
    folder = tiny("llama")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=512, **sizes)).save_pretrained(folder)
    with pytest.raises(ValueError, match="it is an encoder already"):
        inspect_model(folder, measure=False)


@pytest.mark.slow
def test_scores_are_those_of_converted_encoders(tiny: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes are scored on one model in turn, whose attention and tokenizer change between them."""
    tried = {name: RECIPES[name] for name in ("llm2vec", "prompteol", "echo", "e5-mistral", "bge-en-icl", "nv-embed")}
    monkeypatch.setattr(foreseen, "RECIPES", tried)
    monkeypatch.setattr(foreseen, "MOST_TELLING", ("echo", "llm2vec"))
    folder = tiny("llama")
    found = inspect_model(folder, measure=True)
    scores = {one.recipe: one.score for one in found.recipes if one.score is not None}
    assert list(scores) == ["llm2vec", "prompteol", "echo", "e5-mistral", "bge-en-icl"]
    for recipe, score in scores.items():
        assert sentence_score(convert(folder, recipe, measure=False)) == pytest.approx(score, abs=0.5)
    assert scores[found.untrained] == max(scores.values())
    assert f"scores {scores[found.untrained]:.0f} of 100" in found.untrained_advice


@pytest.mark.usefixtures("few_recipes")
def test_large_models_are_not_scored_unless_asked(tiny: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("st_llm2vec.inspection.decoder.MEASURED_ON_A_CPU", 10)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = inspect_model(tiny("llama"))
    assert {one.score for one in found.recipes} == {None}
    assert (found.untrained, found.recommended) == ("prompteol-icl", "llm2vec")
    assert "--measure" in found.untrained_advice


def test_an_encoder_is_shown_as_what_it_is(tiny: Callable[..., str], tmp_path: Path) -> None:
    folder = tiny("llama")
    for recipe, layout in (("llm2vec", "text"), ("prompteol", "message"), ("echo", "custom")):
        saved = str(tmp_path / recipe)
        convert(folder, recipe, measure=False, **({} if recipe != "llm2vec" else {"prompts": {"query": "Find:"}})).save(
            saved
        )
        assert is_encoder(saved) and not is_encoder(folder)
        found = inspect_encoder(saved)
        assert (found.recipe, found.layout, found.base["name"], found.stages) == (recipe, layout, folder, [])
        kind = "bidirectional" if recipe == "llm2vec" else "causal"
        assert (
            found.attention == f"{kind} under sdpa, with and without padding"
        )  # as ``convert`` and ``publish`` say it
        assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
    assert not is_encoder("nowhere/at/all")
