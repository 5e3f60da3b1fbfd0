from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, BertConfig, BertModel, T5Config, T5Model

from st_llm2vec import RECIPES, CausalAttentionError, EncoderConfig, convert, load
from tests.tiny_decoders import tiny_decoder
from tests.tiny_tokenizers import tiny_tokenizer

from ..conftest import INSTRUCTION, TEXTS, cosine_distance, crossed
from ..promises import Promise
from ..stand_ins import stand_in, stand_in_tokenizer


@pytest.mark.promise(Promise.ONE_CALL)
def test_convert_gives_a_sentence_transformer(decoder: str) -> None:
    encoder = convert(decoder, "llm2vec", prompts={"query": INSTRUCTION}, max_length=64)
    assert isinstance(encoder, SentenceTransformer)
    assert encoder.max_seq_length == 64
    assert encoder.manifest.config.prompts == {"query": INSTRUCTION}
    assert encoder.manifest.attention["kind"] == "bidirectional"
    assert np.allclose(np.linalg.norm(encoder.encode(TEXTS), axis=1), 1, atol=1e-5)
    assert cosine_distance(encoder.encode_query(TEXTS), encoder.encode(TEXTS)) > 1e-3


@pytest.mark.promise(Promise.EXACT_SPAN)
def test_the_mean_is_over_the_text_alone(decoder: str) -> None:
    """Not BOS, not the instruction: computed here by hand from the model's own states."""
    encoder = convert(decoder, "llm2vec")
    model, tokenizer = encoder[0].model, AutoTokenizer.from_pretrained(decoder)
    for text in TEXTS:
        ids = tokenizer(f"{INSTRUCTION} {text}", return_tensors="pt")["input_ids"]
        own = len(tokenizer(f" {text}", add_special_tokens=False)["input_ids"])
        with torch.no_grad():
            states = model(input_ids=ids).last_hidden_state[0]
        expected = states[-own:].mean(0)
        for found in (encoder.encode(text, prompt=INSTRUCTION), encoder.encode(text, prompt=f"{INSTRUCTION} ")):
            assert cosine_distance(found, expected.numpy()) < 1e-6


@pytest.mark.promise(Promise.EXACT_SPAN)
@pytest.mark.parametrize("recipe", ["prompteol", "prompteol-icl", "prompteol-cot", "prompteol-knowledge"])
def test_prompteol_is_a_direct_forward_of_the_whole_string(decoder: str, recipe: str) -> None:
    encoder = convert(decoder, recipe)
    tokenizer = AutoTokenizer.from_pretrained(decoder)
    model = AutoModel.from_pretrained(decoder).eval()
    template = encoder.manifest.config.formatter_config()["template"].replace("{bos}", "")
    for text in TEXTS:
        inputs = tokenizer(template.replace("{text}", text), return_tensors="pt")
        with torch.no_grad():
            expected = model(**inputs).last_hidden_state[0, -1]
        assert cosine_distance(encoder.encode(text), expected.numpy()) < 1e-6


@pytest.mark.promise(Promise.EXACT_SPAN)
def test_prompteol_keeps_its_suffix_when_the_text_is_cut(decoder: str) -> None:
    encoder = convert(decoder, "prompteol", max_length=48)
    tokenizer = AutoTokenizer.from_pretrained(decoder)
    model = AutoModel.from_pretrained(decoder).eval()
    prefix = tokenizer('This sentence : "')["input_ids"]
    suffix = tokenizer('" means in one word:"', add_special_tokens=False)["input_ids"]
    words = "the old clock in the hall struck seven and nobody seemed to notice " * 10
    text = tokenizer(words, add_special_tokens=False)["input_ids"]
    whole = torch.tensor([prefix + text[: 48 - len(prefix) - len(suffix)] + suffix])
    with torch.no_grad():
        expected = model(input_ids=whole).last_hidden_state[0, -1]
    assert encoder.preprocess([words])["input_ids"].tolist() == whole.tolist()
    assert cosine_distance(encoder.encode(words), expected.numpy()) < 1e-6
    assert cosine_distance(encoder.encode([words, "short"])[0], expected.numpy()) < 1e-6


@pytest.mark.promise(Promise.EXACT_SPAN)
def test_truncation_keeps_the_end_of_text_token(decoder: str) -> None:
    for recipe in ("e5-mistral", "bge-en-icl", "nv-embed", "echo-last"):
        latent = {"latent_attention": {"num_latents": 4, "num_heads": 1}} if recipe == "nv-embed" else {}
        encoder = convert(decoder, recipe, max_length=40, **latent)
        for prompt in (None, "Find it"):
            ids = encoder.preprocess(["word " * 100], prompt=prompt)["input_ids"][0].tolist()
            assert len(ids) <= 40
            assert (ids[0], ids[-1]) == (encoder.tokenizer.bos_token_id, encoder.tokenizer.eos_token_id)


def test_an_already_wrapped_instruction_is_the_same_instruction(decoder: str) -> None:
    encoder = convert(decoder, "e5-mistral")
    bare = encoder.encode(TEXTS, prompt="Find the story")
    for wrapped in ("Instruct: Find the story\nQuery: ", "Instruct: Find the story\nQuery:"):
        assert cosine_distance(encoder.encode(TEXTS, prompt=wrapped), bare) < 1e-6


def test_an_instruct_models_chat_template_does_not_wrap_texts(tmp_path: Path, decoder: str) -> None:
    AutoModel.from_pretrained(decoder).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(decoder)
    plain = convert(decoder, "llm2vec").encode(TEXTS)
    tokenizer.chat_template = "{% for m in messages %}[INST]{{ m.content }}[/INST]{% endfor %}"
    tokenizer.save_pretrained(tmp_path)
    assert cosine_distance(convert(tmp_path, "llm2vec").encode(TEXTS), plain) < 1e-6


@pytest.mark.promise(Promise.ONE_CALL)
def test_a_loaded_model_is_taken_over(decoder: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(decoder)
    encoder = convert(model, "llm2vec")
    assert encoder[0].model is model.model
    assert cosine_distance(encoder.encode(TEXTS), convert(decoder, "llm2vec").encode(TEXTS)) < 1e-6
    assert encoder.manifest.base["name"] == decoder


def test_an_earlier_layer_can_be_pooled(decoder: str, tmp_path: Path) -> None:
    encoder = convert(decoder, "prompteol", layer=-2)
    model, ids = encoder[0].model, encoder.preprocess(TEXTS[:1])["input_ids"]
    with torch.no_grad():
        expected = model(input_ids=ids, output_hidden_states=True).hidden_states[-2][0, -1]
    assert cosine_distance(encoder.encode(TEXTS[0]), expected.numpy()) < 1e-6
    encoder.save_pretrained(str(tmp_path / "layer"))
    assert cosine_distance(SentenceTransformer(str(tmp_path / "layer")).encode(TEXTS[0]), expected.numpy()) < 1e-6


def test_a_recipe_of_ones_own(decoder: str) -> None:
    config = EncoderConfig(
        name="mine", attention="causal", template="{bos}Summary of {text}:{pool} {text}{/pool}", pooling="weighted_mean"
    )
    assert convert(decoder, config).encode(TEXTS).shape == (len(TEXTS), 192)


def test_bfloat16(decoder: str) -> None:
    encoder = convert(decoder, "llm2vec", dtype=torch.bfloat16)
    alone = np.stack([encoder.encode(text, convert_to_tensor=True).float().numpy() for text in TEXTS])
    together = encoder.encode(TEXTS, convert_to_tensor=True).float().numpy()
    assert cosine_distance(alone, together) < 1e-3


# Empty and odd input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokenizer", "recipe"),
    crossed(
        ["byte-level+bos", "byte-level", "metaspace", "metaspace+bos"],
        ["llm2vec", "prompteol", "echo", "sgpt", "gritlm"],
        ("llm2vec",),
    ),
)
def test_an_empty_text_has_one_finite_vector(tiny: Callable[..., str], recipe: str, tokenizer: str) -> None:
    encoder = convert(tiny("llama", tokenizer, max_position_embeddings=128), recipe)
    alone = encoder.encode("")
    assert np.isfinite(alone).all()
    np.testing.assert_allclose(encoder.encode(["", "Hello", "A man is playing"])[0], alone, atol=1e-5)


def test_llm2vecs_empty_text_is_the_zero_vector_where_there_is_a_bos(decoder: str) -> None:
    assert not convert(decoder, "llm2vec").encode("").any()


@pytest.mark.parametrize("kind", ["smollm2", "gemma"])
def test_an_empty_query_has_one_vector_through_every_door(kind: str, tmp_path: Path) -> None:
    """What is pooled is the blank behind the instruction."""
    folder = stand_in(kind, tmp_path / "decoder", torch.float32)
    encoder = convert(folder, "llm2vec", prompts={"query": INSTRUCTION, "document": "A title"}, device="cpu")
    encoder.save(str(tmp_path / "saved"))
    plain = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    for model in (load(tmp_path / "saved", device="cpu"), plain):
        for name in ("query", "document"):
            for texts in (["", " ", "  "], ["", "a longer text beside it"]):
                found, expected = model.encode(texts, prompt_name=name), encoder.encode(texts, prompt_name=name)
                assert expected[0].any() and cosine_distance(found, expected) < 1e-6


def test_no_texts_give_no_vectors(decoder: str) -> None:
    for recipe in ("llm2vec", "echo"):
        assert len(convert(decoder, recipe).encode([])) == 0


def test_a_text_longer_than_the_context_is_cut(decoder: str) -> None:
    for recipe in ("llm2vec", "prompteol", "echo"):
        encoder = convert(decoder, recipe)
        assert encoder.max_seq_length == 512
        assert encoder.preprocess(["word " * 3000])["input_ids"].shape[1] <= 512
        assert np.isfinite(encoder.encode("字" * 3000)).all()


def test_what_is_not_a_text_is_refused(decoder: str) -> None:
    encoder = convert(decoder, "echo")
    for row, message in (
        ({"text": 5}, "a text is expected"),
        ({"image": "a picture"}, "'image' is not supported|reads texts only"),
    ):
        with pytest.raises(ValueError, match=message):
            encoder.preprocess([row])


def test_a_prompt_name_that_does_not_exist(decoder: str) -> None:
    with pytest.raises(ValueError, match="'qery' not found"):
        convert(decoder, "llm2vec").encode(TEXTS, prompt_name="qery")


def test_a_prompt_where_none_is_taken(decoder: str) -> None:
    with pytest.raises(Exception, match="takes no instruction"):
        convert(decoder, "prompteol").encode(TEXTS, prompt="Find it")


# What cannot be converted -------------------------------------------------------------------------


def save_with_tokenizer(model: torch.nn.Module, folder: Path) -> str:
    model.save_pretrained(folder)
    tiny_tokenizer("byte-level").save_pretrained(folder)
    return str(folder)


@pytest.mark.promise(Promise.ONE_CALL)
def test_bert_is_an_encoder_already(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=512, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    with pytest.raises(ValueError, match="an encoder already.*SentenceTransformer"):
        convert(save_with_tokenizer(BertModel(config), tmp_path), "llm2vec")


@pytest.mark.promise(Promise.ONE_CALL)
def test_t5_is_an_encoder_decoder(tmp_path: Path) -> None:
    config = T5Config(vocab_size=512, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=2)
    with pytest.raises(ValueError, match="encoder-decoder model"):
        convert(save_with_tokenizer(T5Model(config), tmp_path), "llm2vec")


@pytest.mark.promise(Promise.ONE_CALL)
@pytest.mark.parametrize("family", ["gpt_neo", "mamba"])
def test_families_that_stay_causal_are_refused(tiny: Callable[..., str], family: str) -> None:
    folder = tiny(family)
    with pytest.raises(CausalAttentionError, match="Its vectors would be wrong"):
        convert(folder, "llm2vec")
    assert convert(folder, "prompteol").encode(TEXTS).shape[0] == len(TEXTS)


@pytest.mark.promise(Promise.ONE_CALL)
def test_a_model_that_crashes_when_freed_is_refused(tiny: Callable[..., str]) -> None:
    with pytest.raises(CausalAttentionError, match="cannot run with attention in both directions"):
        convert(tiny("mpt"), "llm2vec")


def test_a_hybrid_is_converted_with_a_warning(tiny: Callable[..., str], caplog: pytest.LogCaptureFixture) -> None:
    encoder = convert(tiny("lfm2"), "llm2vec")
    assert "the other 3 (recurrent or convolutional) stay causal" in caplog.text
    alone = np.stack([encoder.encode(text) for text in TEXTS])
    assert cosine_distance(alone, encoder.encode(TEXTS)) < 1e-6


def test_recurrent_models_are_padded_on_the_right(tiny: Callable[..., str]) -> None:
    encoder = convert(tiny("rwkv"), RECIPES["prompteol"].replace(padding_side="left"))
    assert encoder.tokenizer.padding_side == "right"
    alone = np.stack([encoder.encode(text) for text in TEXTS])
    assert cosine_distance(alone, encoder.encode(TEXTS)) < 1e-6
    with pytest.raises(ValueError, match="its layers read the padding"):
        convert(tiny("rwkv"), "prompteol", padding_side="left")


def test_the_padding_side_is_saved_whatever_the_tokenizers_class(tmp_path: Path) -> None:
    """Cohere's class pads at the left, where positions like GPT-2's are shifted, unless its folder says otherwise."""
    folder, saved = str(tmp_path / "decoder"), str(tmp_path / "saved")
    stand_in_tokenizer("cohere").save_pretrained(folder)
    tiny_decoder("gpt2", vocab_size=512).save_pretrained(folder)
    encoder = convert(folder, "prompteol", device="cpu")
    encoder.save_pretrained(saved)
    plain = SentenceTransformer(saved, device="cpu")
    assert cosine_distance(plain.encode(TEXTS), encoder.encode(TEXTS)) < 1e-6


def test_folders_that_are_no_models(tmp_path: Path, decoder: str) -> None:
    with pytest.raises(ValueError, match="There is no folder"):
        convert("/no/such/folder")
    with pytest.raises(ValueError, match="no config.json"):
        convert(tmp_path)
    AutoModel.from_pretrained(decoder).config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="could not be loaded"):
        convert(tmp_path)
    AutoModel.from_pretrained(decoder).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="tokenizer"):
        convert(tmp_path)


def test_code_beside_a_decoder_is_never_run(tmp_path: Path, decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    import json

    AutoModel.from_pretrained(decoder).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(decoder).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "unheard-of", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text("raise SystemExit('this was run')")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 10))
    with pytest.raises(ValueError, match="could not be read as a Transformers model"):
        convert(tmp_path)


@pytest.mark.promise(Promise.ONE_CALL)
def test_incomplete_weights_are_refused(tmp_path: Path, decoder: str) -> None:
    model = AutoModel.from_pretrained(decoder)
    state = {name: tensor for name, tensor in model.state_dict().items() if "layers.1." not in name}
    model.save_pretrained(tmp_path, state_dict=state)
    AutoTokenizer.from_pretrained(decoder).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="would be random"):
        convert(tmp_path)


def test_tied_embeddings_saved_as_the_head_alone(tmp_path: Path, decoder: str) -> None:
    """Some checkpoints hold a tied embedding only under the head's name, which the body alone does not read."""
    from safetensors.torch import load_file, save_file

    AutoModelForCausalLM.from_pretrained(decoder).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(decoder).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["lm_head.weight"] = weights.pop("model.embed_tokens.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert cosine_distance(convert(tmp_path).encode(TEXTS), convert(decoder).encode(TEXTS)) < 1e-6


def test_a_limit_beyond_the_context_is_refused(decoder: str) -> None:
    with pytest.raises(ValueError, match="longer than the context.*512 tokens"):
        convert(decoder, "llm2vec", max_length=4096)


@pytest.mark.parametrize("recipe", ["llm2vec", "e5-mistral", "bge-en-icl", "echo"])
def test_an_instruction_that_leaves_no_room_is_refused(decoder: str, recipe: str) -> None:
    """Otherwise every text would share one vector."""
    long = "Retrieve the passage " * 30
    encoder = convert(decoder, recipe, max_length=60)
    with pytest.raises(ValueError, match="no room for the text"):
        encoder.encode(TEXTS, prompt=long)
    if recipe != "echo":
        with pytest.raises(ValueError, match="no room for the text"):
            convert(decoder, recipe, max_length=60, prompts={"query": long})


def test_a_limit_for_one_call_is_checked_too(decoder: str) -> None:
    for recipe in ("prompteol", "echo"):
        with pytest.raises(ValueError, match="no room for the text"):
            convert(decoder, recipe).preprocess(TEXTS, max_length=12)


def test_a_layer_deeper_than_the_model_is_refused(decoder: str) -> None:
    with pytest.raises(ValueError, match="deeper than the model, which has 2 layers"):
        convert(decoder, "prompteol", layer=-50)


@pytest.mark.parametrize(
    ("name", "here"),
    [
        ("torch_dtype", "here it is dtype"),
        ("pooling_mode", "here it is pooling"),
        ("peft_model_name_or_path", "from_llm2vec"),
    ],
)
def test_arguments_of_other_libraries_are_told_what_they_are_here(decoder: str, name: str, here: str) -> None:
    with pytest.raises(ValueError, match=f"no argument '{name}': .*{here}"):
        convert(decoder, **{name: "x"})


def test_demonstrations_that_leave_no_room_are_refused(decoder: str) -> None:
    demonstrations = [{"text": "A jockey riding a horse.", "response": "Equestrian"}] * 4
    with pytest.raises(ValueError, match="no room for the text"):
        convert(decoder, "prompteol", demonstrations=demonstrations, max_length=80)


def test_an_adapter_must_be_merged_first(decoder: str) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(AutoModelForCausalLM.from_pretrained(decoder), LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(ValueError, match="merge it first"):
        convert(model)


@pytest.mark.slow
def test_the_name_convert_is_the_function_whatever_was_imported_first() -> None:
    import subprocess
    import sys

    code = "import st_llm2vec.inspection, st_llm2vec.cli.walkthrough; from st_llm2vec import convert, load; convert.__call__"
    code += "; assert callable(convert) and callable(load)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("name", "warned"), [("question", True), ("query", False), ("passage", False)])
def test_prompts_that_no_task_looks_for_are_said(
    name: str, warned: bool, decoder: str, caplog: pytest.LogCaptureFixture
) -> None:
    convert(decoder, "llm2vec", prompts={name: "Find it:"}, measure=False)
    assert ("encode_query looks for a prompt named 'query'" in caplog.text) == warned
