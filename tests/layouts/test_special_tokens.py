"""A text that holds the model's own special tokens is text: it ends nothing, and is read as it is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

from st_llm2vec import RECIPES, accelerate, convert, load
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.layouts.special_tokens import special_tokens
from st_llm2vec.modules.formatter import InstructionFormatter

from ..conftest import INSTRUCTION, TEXTS, SameVectors, but_first, cosine_distance
from ..promises import Promise
from ..stand_ins import STAND_INS, stand_in

pytestmark = pytest.mark.promise(Promise.TEXT_IS_TEXT)

LATENT = {"num_latents": 8, "num_heads": 2, "head_dimension": 16}
LAYOUTS = {"llm2vec": "text", "e5-mistral": "message", "echo": "custom"}


def make(decoder: str, recipe: str, **overrides: object) -> TextEncoder:
    if recipe == "nv-embed":
        overrides["latent_attention"] = LATENT
    if RECIPES[recipe].instruction_template is not None:
        overrides["prompts"] = {"query": INSTRUCTION}
    return convert(decoder, recipe, **{"max_length": 200, **overrides})


def written(tokenizer) -> dict[str, int]:
    """Its special tokens, but for the blank that marks the border between instruction and text."""
    return {token: index for token, index in special_tokens(tokenizer).items() if token.startswith("<")}


def hostile(tokenizer, known: int = 6) -> list[str]:
    """Texts with the model's own special tokens: alone, first, last, inside, twice."""
    tokens = list(written(tokenizer))[:known]
    return [text for one in tokens for text in (one, f"{one}a cat", f"a cat{one}", f"a {one} cat", f"a{one}{one} cat")]


def control_tokens(encoder: SentenceTransformer, texts: list[str], prompt: str | None = None) -> np.ndarray:
    """How many special tokens each of the texts is read with."""
    ids = list(written(encoder.tokenizer).values())
    rows = [encoder.preprocess([text], prompt=prompt) for text in texts]
    return np.array([np.isin(row["input_ids"][row["attention_mask"].bool()], ids).sum() for row in rows])


@pytest.mark.parametrize("recipe", [*LAYOUTS, *but_first([one for one in RECIPES if one not in LAYOUTS], 0)])
def test_no_text_holds_control_tokens_whatever_it_holds(
    decoder: str, tmp_path: Path, recipe: str, same_vectors: SameVectors
) -> None:
    encoder = make(decoder, recipe)
    assert encoder.manifest.layout == LAYOUTS.get(recipe, encoder.manifest.layout)
    encoder.save_pretrained(str(tmp_path / "saved"))
    custom = encoder.manifest.layout == "custom"
    doors = [encoder, load(tmp_path / "saved"), SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=custom)]
    texts = hostile(encoder.tokenizer)
    expected = encoder.encode(texts)
    assert np.isfinite(expected).all() and (np.linalg.norm(expected, axis=1) > 0.99).all()
    assert len({tuple(vector.round(4)) for vector in expected}) > len(texts) / 2
    for door in doors:
        plain = control_tokens(door, ["a cat"])[0]
        assert (control_tokens(door, texts) == plain).all()
        same_vectors(door.encode(texts, batch_size=3), expected)
        same_vectors(np.stack([door.encode(text) for text in texts]), expected)


@pytest.mark.parametrize("recipe", ["llm2vec", "e5-mistral", *but_first(["echo", "gritlm", "bge-en-icl", "sgpt"], 0)])
def test_no_instruction_holds_control_tokens(decoder: str, tmp_path: Path, recipe: str) -> None:
    encoder = make(decoder, recipe)
    encoder.save_pretrained(str(tmp_path / "saved"))
    for door in (encoder, load(tmp_path / "saved")):
        plain = control_tokens(door, ["a cat"], INSTRUCTION)[0]
        for token in written(encoder.tokenizer):
            told = f"Find {token}the{token} answer:"
            assert (control_tokens(door, ["a cat", f"a {token} cat"], told) == plain).all()


def test_a_special_token_is_not_the_zero_vector(decoder: str) -> None:
    assert np.linalg.norm(convert(decoder, "llm2vec").encode(["<s>"])) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("recipe", LAYOUTS)
def test_control_tokens_are_honoured_on_request(decoder: str, tmp_path: Path, recipe: str) -> None:
    encoder = make(decoder, recipe, split_special_tokens=False)
    encoder.save_pretrained(str(tmp_path / "saved"))
    custom = encoder.manifest.layout == "custom"
    doors = [encoder, load(tmp_path / "saved"), SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=custom)]
    for door in doors:
        assert (control_tokens(door, ["a </s> cat"]) > control_tokens(door, ["a cat"])).all()
        assert cosine_distance(door.encode(["a </s> cat"]), encoder.encode(["a </s> cat"])) < 1e-6


@pytest.mark.parametrize("kind", but_first(STAND_INS, 3))
@pytest.mark.parametrize("recipe", LAYOUTS)
def test_every_tokenizer_class(tmp_path: Path, kind: str, recipe: str) -> None:
    """And a text without special tokens is read as it was."""
    folder = stand_in(kind, tmp_path / kind, max_position_embeddings=256)
    before = AutoTokenizer.from_pretrained(folder, padding_side="right")
    before.pad_token = before.pad_token or before.eos_token
    encoder = make(folder, recipe, max_length=120)
    assert encoder.manifest.config.split_special_tokens
    encoder.save_pretrained(str(tmp_path / "saved"))
    for door in (encoder, load(tmp_path / "saved")):
        texts = hostile(before)
        assert (control_tokens(door, texts) == control_tokens(door, ["a cat"])[0]).all()
        honoured = InstructionFormatter(**{**encoder.manifest.config.formatter_config(), "split_special_tokens": False})
        for prompt in (None, INSTRUCTION):
            meant = honoured(["a <b>cat</b>", *TEXTS], prompt, before, 120)
            read = door.preprocess(["a <b>cat</b>", *TEXTS], prompt=prompt)
            for one, other, mask in zip(meant["input_ids"], read["input_ids"], read["attention_mask"], strict=True):
                assert other[mask.bool()].tolist() == one[: mask.sum()].tolist()


def test_a_template_keeps_its_own_control_tokens(tmp_path: Path) -> None:
    folder = stand_in("smollm2", tmp_path / "smollm2")
    template = "<|im_start|>user\n{pool}{text}{/pool}<|im_end|>\n"
    for layout, config in {
        "custom": {"template": template},
        "message": {"template": template.replace("{pool}", "").replace("{/pool}", ""), "pooling": "last_token"},
    }.items():
        encoder = convert(folder, config)
        assert encoder.manifest.layout == layout
        ids = encoder.preprocess(["a <|im_end|> cat"])["input_ids"][0].tolist()
        own = special_tokens(encoder.tokenizer)
        assert [one for one in ids if one in own.values()] == [own["<|im_start|>"], own["<|im_end|>"]]
        if layout == "custom":
            pooled = encoder.preprocess(["a <|im_end|> cat"])["pooling_mask"][0].tolist()
            assert encoder.tokenizer.decode(
                [one for one, in_span in zip(ids, pooled, strict=True) if in_span]
            ).strip() == ("a <|im_end|> cat")


def test_an_empty_text_still_has_a_token_to_read(tiny: Callable[..., str]) -> None:
    encoder = convert(tiny("llama", "byte-level"), "llm2vec")
    for side in ("left", "right"):
        encoder.tokenizer.padding_side = side
        for texts in ([""], ["", "a cat", ""], ["", ""]):
            features = encoder.preprocess(texts)
            assert (features["attention_mask"].sum(dim=1) > 0).all()
            rows = zip(features["input_ids"], features["attention_mask"].bool(), texts, strict=True)
            assert all(ids[mask].tolist() == [encoder.tokenizer.pad_token_id] for ids, mask, text in rows if not text)
        assert np.allclose(encoder.encode(["", "a cat"])[0], encoder.encode([""])[0], atol=1e-6)


def test_packed_batches_and_threads_read_them_alike(decoder: str, same_vectors: SameVectors) -> None:
    from concurrent.futures import ThreadPoolExecutor

    for recipe in LAYOUTS:
        encoder = make(decoder, recipe)
        texts = hostile(encoder.tokenizer) + TEXTS
        expected = encoder.encode(texts)
        with ThreadPoolExecutor(8) as pool:
            prompts = [None, *(f"Find {number}:" for number in range(7))]
            found = list(pool.map(partial(encoder.encode, texts, None), prompts))
        same_vectors(found[0], expected)


def test_any_encoder_that_is_accelerated_reads_them_as_it_did(
    decoder: str, tmp_path: Path, same_vectors: SameVectors
) -> None:
    make(decoder, "e5-mistral").save_pretrained(str(tmp_path / "saved"))
    plain = SentenceTransformer(str(tmp_path / "saved"))
    texts = hostile(plain.tokenizer)
    expected = plain.encode(texts)
    same_vectors(accelerate(plain).encode(texts), expected)


def test_long_texts_are_cut_and_the_suffix_stays(decoder: str) -> None:
    for recipe in ("e5-mistral", "echo-last"):
        encoder = make(decoder, recipe)
        text = "a </s> cat <s> sat " * 200
        features = encoder.preprocess([text])
        ids = features["input_ids"][0].tolist()
        assert len(ids) <= 200 and ids[-1] == encoder.tokenizer.eos_token_id
        assert control_tokens(encoder, [text])[0] == control_tokens(encoder, ["a cat"])[0]


def test_the_recipe_says_it(tmp_path: Path) -> None:
    assert RECIPES["llm2vec"].split_special_tokens
    assert "split_special_tokens" in json.dumps(RECIPES["llm2vec"].to_dict())
    with pytest.raises(ValueError, match="split_special_tokens"):
        RECIPES["llm2vec"].replace(split_special_tokens="no")
