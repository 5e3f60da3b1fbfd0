"""What a folder pools, for Transformers' own tokenizer classes: they rebuild themselves when they are loaded."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import AddedToken
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from st_llm2vec import TextEncoder, convert, load
from st_llm2vec.modules.formatter import UNLIMITED, InstructionFormatter
from st_llm2vec.modules.span_pooling import span_weights

from ..conftest import INSTRUCTION, SameVectors, but_first, cosine_distance, crossed
from ..promises import Promise
from ..stand_ins import STAND_INS, stand_in

OTHER = "Given a question, retrieve passages that answer it"
TEXTS = ["Hello", "(brackets) first", "12 ships left, 3.5", "Étude", " one blank first", "the  cat", "\ttab", "I"]
# Qwen2's class is loaded for its decoders whatever the folder says, and it drops what a prompt needs.
CUSTOM = {("qwen2", "llm2vec")}


@torch.no_grad()
def specified(encoder: TextEncoder, decoder: str, texts: list[str], instruction: str) -> np.ndarray:
    """The specification's vectors: its tokens, by the decoder's own tokenizer, and the mean of what it marks."""
    config = encoder.manifest.config
    formatter = InstructionFormatter(**config.formatter_config())
    tokenizer = AutoTokenizer.from_pretrained(decoder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    vectors = []
    for text in texts:
        row = formatter([text], instruction, tokenizer, UNLIMITED)
        states = encoder.transformer.model(input_ids=row["input_ids"], use_cache=False).last_hidden_state
        vectors.append((span_weights(row["pooling_mask"], config.pooling).unsqueeze(-1) * states).sum(1)[0].numpy())
    return np.stack(vectors)


@pytest.mark.promise(Promise.ONE_FOLDER)
@pytest.mark.parametrize(("kind", "recipe"), crossed(STAND_INS, ["llm2vec", "sgpt", "e5-mistral"], ("llm2vec",)))
def test_every_door_gives_the_specified_vectors(
    tmp_path: Path, kind: str, recipe: str, same_vectors: SameVectors
) -> None:
    decoder = stand_in(kind, tmp_path / "decoder", torch.float32)
    encoder = convert(decoder, recipe, prompts={"query": INSTRUCTION, "document": "Title"}, device="cpu")
    encoder.save_pretrained(str(tmp_path / "saved"))
    custom = encoder.layout == "custom"
    if recipe == "llm2vec":
        assert custom == ((kind, recipe) in CUSTOM)
    plain = SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=custom, device="cpu")
    loaded = load(tmp_path / "saved", device="cpu")
    bare, query = (specified(encoder, decoder, TEXTS, told) for told in ("", INSTRUCTION))
    other = specified(encoder, decoder, TEXTS, OTHER)
    for model in (encoder, loaded, plain):
        same_vectors(model.encode(TEXTS), bare)
        same_vectors(model.encode_query(TEXTS), query)
        same_vectors(model.encode(TEXTS, prompt=INSTRUCTION), query)
    for model in (encoder, loaded):
        same_vectors(model.encode(TEXTS, prompt=OTHER), other)
    no_blank_first = [at for at, text in enumerate(TEXTS) if not text.startswith(" ")]
    texts = [TEXTS[at] for at in no_blank_first]
    short = specified(encoder, decoder, TEXTS, "Title")
    for model in (encoder, loaded, plain):
        same_vectors(model.encode_document(TEXTS), short)
    same_vectors(plain.encode(texts, prompt=f"{OTHER} "), other[no_blank_first])


@pytest.mark.parametrize(("kind", "recipe"), crossed(STAND_INS, ["llm2vec", "e5-mistral", "prompteol-icl"], ()))
def test_plain_token_embeddings_are_without_padding(tmp_path: Path, kind: str, recipe: str) -> None:
    """Plain Sentence Transformers cuts padding off at the right alone."""
    decoder = stand_in(kind, tmp_path / "decoder", torch.float32, max_position_embeddings=256)
    encoder = convert(decoder, recipe, device="cpu")
    encoder.save_pretrained(str(tmp_path / "saved"))
    plain = SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=encoder.layout == "custom", device="cpu")
    for text, found in zip(TEXTS, plain.encode(TEXTS, output_value="token_embeddings"), strict=True):
        alone = plain.encode(text, output_value="token_embeddings")
        assert found.shape == alone.shape
        assert torch.allclose(found, alone, atol=1e-4)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A decoder with a tokenizer class of its own, and an encoder that was made of it and saved."""
    folder = tmp_path_factory.mktemp("gemma")
    decoder = stand_in("gemma", folder / "decoder", torch.float32)
    encoder = convert(decoder, "llm2vec", prompts={"query": INSTRUCTION}, device="cpu")
    encoder.save_pretrained(str(folder / "saved"))
    return decoder, folder / "saved"


@pytest.mark.promise(Promise.ONE_FOLDER)
def test_what_plain_sentence_transformers_saves_again_keeps_its_vectors(
    saved: tuple[str, Path], tmp_path: Path
) -> None:
    plain = SentenceTransformer(str(saved[1]), device="cpu")
    plain.save_pretrained(str(tmp_path / "again"))
    again = SentenceTransformer(str(tmp_path / "again"), device="cpu")
    assert cosine_distance(again.encode_query(TEXTS), plain.encode_query(TEXTS)) < 1e-6


def test_the_decoders_own_tokenizer_is_left_as_it_is(saved: tuple[str, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(saved[0])
    before = tokenizer.backend_tokenizer.to_str()
    convert(AutoModel.from_pretrained(saved[0]), "llm2vec", tokenizer=tokenizer, prompts={"query": INSTRUCTION})
    assert tokenizer.backend_tokenizer.to_str() == before
    assert type(tokenizer).__name__ == "GemmaTokenizer"


def test_a_folder_whose_tokenizer_lost_the_border_is_mended(
    saved: tuple[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The version before saved such folders: every instructed text had another vector than at conversion."""
    expected = load(saved[1], device="cpu").encode_query(TEXTS)
    lost = shutil.copytree(saved[1], tmp_path / "lost")
    AutoTokenizer.from_pretrained(saved[0]).save_pretrained(lost)
    assert cosine_distance(SentenceTransformer(str(lost), device="cpu").encode_query(TEXTS), expected) > 1e-4
    mended = load(lost, device="cpu")
    assert "border between instruction and text" in caplog.text
    mended.save_pretrained(str(tmp_path / "again"))
    for model in (
        mended,
        TextEncoder(str(lost), device="cpu"),
        SentenceTransformer(str(tmp_path / "again"), device="cpu"),
    ):
        assert cosine_distance(model.encode_query(TEXTS), expected) < 1e-6


def test_a_folder_with_another_chat_template_is_refused(saved: tuple[str, Path], tmp_path: Path) -> None:
    convert(saved[0], "prompteol", device="cpu").save_pretrained(str(tmp_path / "saved"))
    (tmp_path / "saved" / "chat_template.jinja").write_text("{{ messages[-1]['content'] }}")
    with pytest.raises(ValueError, match="is not one that this package writes"):
        load(tmp_path / "saved", device="cpu")


@pytest.mark.parametrize("kind", ["gemma", "generic"])
def test_added_tokens_are_read(tmp_path: Path, kind: str) -> None:
    decoder = stand_in(kind, tmp_path / "decoder", torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(decoder)
    tokenizer.add_tokens([f"<new{number}>" for number in range(80)])
    model = AutoModelForCausalLM.from_pretrained(decoder)
    model.resize_token_embeddings(len(tokenizer))
    encoder = convert(model, "llm2vec", tokenizer=tokenizer, device="cpu")
    encoder.save_pretrained(str(tmp_path / "saved"))
    vectors = [model.encode(["a <new79> word"]) for model in (encoder, load(tmp_path / "saved", device="cpu"))]
    vectors.append(SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(["a <new79> word"]))
    assert cosine_distance(vectors[0], vectors[1]) < 1e-6
    assert cosine_distance(vectors[0], vectors[2]) < 1e-6


@pytest.mark.parametrize("kind", ["gemma", "smollm2"])
def test_blanks_at_either_end_are_read_as_they_are(tmp_path: Path, kind: str) -> None:
    """Blanks behind an instruction are one; others stay, also before a token that the tokenizer was given as a whole."""
    decoder = stand_in(kind, tmp_path / "decoder", torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(decoder)
    tokenizer.add_tokens([AddedToken("\n", normalized=False), AddedToken("\t", normalized=False)])
    tokenizer.save_pretrained(decoder)
    encoder = convert(decoder, "llm2vec", prompts={"query": INSTRUCTION}, device="cpu")
    assert encoder.layout == "text"
    texts = ["the end ", "a \nline", "\ttab", " one blank", "   three blanks"]
    encoder.save_pretrained(str(tmp_path / "saved"))
    plain = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    for model in (encoder, plain):
        assert cosine_distance(model.encode(texts), specified(encoder, decoder, texts, "")) < 1e-6
        expected = specified(encoder, decoder, texts, INSTRUCTION)
        assert cosine_distance(model.encode_query(texts), expected) < 1e-6
        bare = (
            slice(None) if model is encoder else [0, 1, 3, 4]
        )  # a tab is a token by itself, and stops what puts a blank
        assert cosine_distance(model.encode([*np.array(texts)[bare]], prompt=INSTRUCTION), expected[bare]) < 1e-6


@pytest.mark.parametrize(
    ("kind", "recipe"), crossed(["gemma", "smollm2", "generic"], ["llm2vec", "e5-mistral", "echo"], ("llm2vec",))
)
@pytest.mark.parametrize("before", but_first([{"query": INSTRUCTION, "document": "Title"}, {}]))
def test_prompts_given_after_conversion_are_saved_for_every_door(
    tmp_path: Path, kind: str, recipe: str, before: dict[str, str]
) -> None:
    decoder = stand_in(kind, tmp_path / "decoder", torch.float32, max_position_embeddings=256)
    convert(decoder, recipe, prompts=before, device="cpu").save_pretrained(str(tmp_path / "first"))
    encoder = load(tmp_path / "first", prompts={"query": OTHER}, device="cpu")
    encoder.prompts["document"] = " Name it "
    bare, query, document = (specified(encoder, decoder, TEXTS, told) for told in ("", OTHER, "Name it"))
    encoder.save_pretrained(str(tmp_path / "saved"))
    plain = SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=encoder.layout == "custom", device="cpu")
    for model in (encoder, load(tmp_path / "saved", device="cpu"), plain):
        assert cosine_distance(model.encode(TEXTS), bare) < 1e-6
        assert cosine_distance(model.encode_query(TEXTS), query) < 1e-6
        assert cosine_distance(model.encode_document(TEXTS), document) < 1e-6


def test_prompts_that_stock_modules_cannot_say_are_not_saved(tmp_path: Path) -> None:
    """A special token in a prompt would be read as one, where those are honoured."""
    decoder = stand_in("generic", tmp_path / "decoder", torch.float32)
    encoder = convert(decoder, "llm2vec", device="cpu", split_special_tokens=False)
    encoder.prompts["query"] = "<s>"
    with pytest.raises(ValueError, match="Convert the decoder again with them"):
        encoder.save_pretrained(str(tmp_path / "saved"))
    assert not (tmp_path / "saved").exists()


def test_a_prompt_that_might_begin_a_text_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Bare, plain Sentence Transformers glues it to the text, silently."""
    encoder = convert(stand_in("generic", str(tmp_path / "decoder")), "llm2vec", prompts={"query": "Find it:"})
    assert encoder.layout == "text"
    assert "glues it" not in caplog.text
    encoder.prompts["other"] = "cats cats"
    encoder.save(str(tmp_path / "saved"))
    assert "prompt='cats cats'" in caplog.text
