"""Vectors of words, held against a loop over sentences, words and tokens that is written out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModel, BertConfig, PreTrainedTokenizerFast

from st_llm2vec import TextEncoder, accelerate, convert
from st_llm2vec.evaluation import encode_words
from st_llm2vec.evaluation.layers import layer_states
from st_llm2vec.modules.formatter import leading_special_ids
from st_llm2vec.packed.enable import padding_free
from tests.stand_ins import STAND_INS, stand_in
from tests.tiny_decoders import tiny_decoder
from tests.tiny_tokenizers import TOKENIZERS, tiny_tokenizer

SENTENCES = [
    ["Once", "upon", "a", "time", ",", "there", "was", "a", "little", "girl", "."],
    ["Hello"],
    ["Donaudampfschifffahrtsgesellschaftskapitän", "is", "one", "word"],
    ["A", "\U0001f469\u200d\U0001f680", "and", "\U0001f600\U0001f600", "e\u0301clair", "東京", "עברית", "!"],
    ["New York", "'s", "harbour", "''"],
    ["12", "ships", "left", "the", "harbour"] * 4,
]


def by_hand(encoder: SentenceTransformer, words: list[str], shift: bool = False) -> np.ndarray:
    """One sentence alone, through the model itself; the special tokens are the tokenizer's own."""
    tokenizer, model, text = encoder.tokenizer, encoder[0].model.eval(), " ".join(words)
    encoded = tokenizer(text, return_offsets_mapping=True)
    with torch.no_grad():
        states = model(torch.tensor([encoded["input_ids"]], device=model.device)).last_hidden_state[0].float().cpu()
    first = len(leading_special_ids(tokenizer))
    vectors, start = [], 0
    for word in words:
        pieces = [
            place
            for place, (left, right) in enumerate(encoded["offset_mapping"])
            if any(start <= character < start + len(word) for character in range(left, right))
        ]
        places = [max(place - 1, first - 1, 0) for place in pieces] if shift else pieces
        vectors.append(states[places].mean(dim=0).numpy())
        start += len(word) + 1
    return np.stack(vectors)


def agree(encoder: SentenceTransformer, sentences: list[list[str]] = SENTENCES, tolerance: float = 1e-5) -> None:
    for shift in (False, True):
        found = encode_words(encoder, sentences, shift=shift)
        for words, vectors in zip(sentences, found, strict=True):
            expected = by_hand(encoder, words, shift)
            assert vectors.dtype == np.float32 and vectors.shape == expected.shape
            assert np.abs(vectors - expected).max() <= tolerance * np.abs(expected).max()


def stock(folder: str | Path) -> SentenceTransformer:
    """Stock modules around a decoder as it is, which is quicker than a conversion."""
    transformer = Transformer(str(folder), model_kwargs={"dtype": torch.float32})
    return SentenceTransformer(modules=[transformer, Pooling(transformer.get_embedding_dimension())], device="cpu")


def plain(tokenizer: Any, folder: Path, model: Any = None) -> SentenceTransformer:
    tokenizer.model_max_length = 512
    (model or tiny_decoder("llama", vocab_size=512)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return stock(folder)


@pytest.fixture(scope="module")
def encoder(decoder: str) -> TextEncoder:
    return convert(decoder, "llm2vec", device="cpu")


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_each_word_has_the_mean_of_its_pieces(tiny: Callable[..., str], tokenizer: str) -> None:
    agree(stock(tiny("llama", tokenizer)))


@pytest.mark.parametrize("kind", STAND_INS)
def test_tokenizer_classes_of_real_decoders(kind: str, tmp_path: Path) -> None:
    agree(stock(stand_in(kind, tmp_path)))


def test_encoders_of_every_layout_without_padding_and_without_their_templates(
    encoder: TextEncoder, decoder: str
) -> None:
    assert padding_free(encoder[0])
    agree(encoder)
    for recipe in ("echo", "prompteol"):
        agree(convert(decoder, recipe, device="cpu"))


def test_a_byte_level_tokenizer_that_puts_a_blank_before_a_text(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer("byte-level+bos")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    agree(plain(tokenizer, tmp_path))


def test_tokens_at_both_ends_of_an_encoder_that_was_never_a_decoder(tmp_path: Path) -> None:
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *map(chr, range(33, 127)),
        *(f"##{chr(c)}" for c in range(97, 123)),
    ]
    backend = Tokenizer(models.WordPiece({token: place for place, token in enumerate(vocabulary)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=512, pad_token_id=0, **sizes)
    encoder = plain(tokenizer, tmp_path, AutoModel.from_config(config))
    agree(encoder)
    agree(accelerate(encoder))
    with pytest.raises(ValueError, match=r"Word 1 of sentence 1 .*'\\u200d', leaves no token"):
        encode_words(encoder, [["a"], ["b", "\u200d"]])


def test_a_token_over_two_words_counts_for_both(tmp_path: Path) -> None:
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "of the": 1, "a": 2, "end": 3, " ": 4}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split("of the", "isolated")
    encoder = plain(PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<unk>"), tmp_path)
    of, the = encode_words(encoder, [["of", "the"]])[0]
    assert np.array_equal(of, the) and np.abs(of).max() > 0


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_padding_changes_nothing(tiny: Callable[..., str], model_type: str, side: str) -> None:
    encoder = stock(tiny(model_type, "byte-level+bos"))
    encoder.tokenizer.padding_side = side
    agree(encoder)


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("bos", [True, False])
def test_long_sentences_lose_no_word_and_each_is_read_where_it_is_most_central(
    bos: bool, shift: bool, tmp_path: Path
) -> None:
    backend = Tokenizer(models.WordLevel({"<s>": 0, **{chr(97 + one): one + 1 for one in range(26)}}, unk_token="<s>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    encoder = plain(PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<s>"), tmp_path)
    encoder.max_seq_length = 11
    room = 11 - bos
    ids = [1 + 7 * number % 26 for number in range(53)]
    starts = [*range(0, len(ids) - room, room // 2), len(ids) - room]
    found = encode_words(encoder, [[chr(96 + one) for one in ids]], shift=shift)[0]
    for place in range(len(ids)):
        state = place - shift if place or bos else 0
        start = min(starts, key=lambda one: abs(state - one - (room - 1) / 2))
        with torch.no_grad():
            states = encoder[0].model(torch.tensor([[0] * bos + ids[start : start + room]])).last_hidden_state[0]
        assert np.allclose(found[place], states[state - start + bos].numpy(), atol=1e-5)


def test_a_window_does_not_change_sentences_that_fit(tiny: Callable[..., str]) -> None:
    encoder = stock(tiny("llama"))
    longest = max(len(encoder.tokenizer(" ".join(words))["input_ids"]) for words in SENTENCES)
    whole = encode_words(encoder, SENTENCES)
    encoder.max_seq_length = longest
    assert all(np.allclose(*pair, atol=1e-5) for pair in zip(whole, encode_words(encoder, SENTENCES), strict=True))
    encoder.max_seq_length = longest - 1
    assert not all(np.allclose(*pair, atol=1e-5) for pair in zip(whole, encode_words(encoder, SENTENCES), strict=True))


def test_special_tokens_among_the_words_are_text(tiny: Callable[..., str]) -> None:
    encoder = stock(tiny("llama", "byte-level+bos"))
    text = encode_words(encoder, [["a", "</s>", "b"]])[0]
    assert encoder.tokenizer("a </s> b")["input_ids"].count(encoder.tokenizer.eos_token_id) == 1
    encoder.tokenizer.split_special_tokens = True
    assert np.allclose(text, by_hand(encoder, ["a", "</s>", "b"]), atol=1e-5)


def test_a_sentence_has_one_answer_whatever_its_neighbours(encoder: TextEncoder) -> None:
    together = encode_words(encoder, SENTENCES * 3, batch_size=2)
    for words, vectors in zip(SENTENCES * 3, together, strict=True):
        assert np.allclose(encode_words(encoder, [words])[0], vectors, atol=1e-4)


def test_training_mode_is_restored_and_no_dropout_is_read(tmp_path: Path) -> None:
    model = tiny_decoder("llama", vocab_size=512, attention_dropout=0.5)
    encoder = plain(tiny_tokenizer("byte-level+bos"), tmp_path, model).train()
    assert np.array_equal(encode_words(encoder, SENTENCES)[0], encode_words(encoder, SENTENCES)[0])
    assert all(one.training for one in encoder.modules())


def test_half_precision_is_read_without_a_word_about_training(decoder: str, caplog: pytest.LogCaptureFixture) -> None:
    encoder = convert(decoder, "sgpt", device="cpu", dtype=torch.bfloat16)
    encode_words(encoder, SENTENCES[:1])
    next(layer_states(encoder, [SENTENCES[0][0]]))
    assert not caplog.records


@pytest.mark.parametrize(
    ("sentences", "sentence"),
    [
        ([["a"], ["b", ""]], r"Word 1 of sentence 1 \(the first is 0\) is empty or blank: ''"),
        ([["a", " \t"]], "Word 1 of sentence 0 .* is empty or blank"),
        ([["a"], []], "Sentence 1 .* has no words"),
        (["The man"], "Sentence 0 .* is the text 'The man', where a list of words is needed"),
        ([["a", 3]], "Word 1 of sentence 0 .* is of type int: 3"),
    ],
)
def test_what_is_no_word_is_refused(encoder: TextEncoder, sentences: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        encode_words(encoder, sentences)


def test_encoders_without_words_are_refused(tiny: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = stock(tiny("llama"))
    encoder.max_seq_length = 1
    assert encode_words(encoder, []) == []
    with pytest.raises(ValueError, match="leave no room in a context of 1 tokens"):
        encode_words(encoder, [["a"]])
    monkeypatch.setattr(type(encoder.tokenizer), "is_fast", False)
    with pytest.raises(ValueError, match="needs a fast tokenizer"):
        encode_words(encoder, [["a"]])
    with pytest.raises(ValueError, match="first module of this encoder is Pooling"):
        encode_words(SentenceTransformer(modules=[Pooling(4)], device="cpu"), [["a"]])
