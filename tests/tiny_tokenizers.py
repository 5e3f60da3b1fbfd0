"""Tiny tokenizers of the families that decoders use, made on the spot, for tests and reports."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TOKENIZERS = ("byte-level", "byte-level+bos", "metaspace", "metaspace+bos")
LIKE = {
    "byte-level": "GPT-2, Qwen, Phi",
    "byte-level+bos": "Llama 3, OPT",
    "metaspace": "Metaspace without BOS",
    "metaspace+bos": "Llama 1 and 2, Mistral, Gemma",
}
TRAINING_TEXT = (
    "Once upon a time there was a little girl. Hello. A man is playing a guitar. 12 ships left the harbour",
    "The old clock in the hall struck seven, and nobody in the house seemed to notice; the cat slept on.",
    "Retrieve stories that match the query: This sentence means in one word",
    "Instruct: Query: again Rewrite the paragraph. The rewritten paragraph Document",
)


def tiny_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """Train a tokenizer of one family on a few sentences.

    Args:
        kind: ``"byte-level"`` or ``"metaspace"``, with ``"+bos"`` if it opens every text with ``<s>``.

    Returns:
        A fast tokenizer of about 420 tokens.

    Raises:
        ValueError: If there is no such family.
    """
    if kind not in TOKENIZERS:
        raise ValueError(f"There is no tokenizer family {kind!r}; known are {', '.join(TOKENIZERS)}.")
    family, _, bos = kind.partition("+")
    if family == "byte-level":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
        tokenizer.decoder = decoders.Replace("▁", " ")
        alphabet = [*map(chr, range(33, 127)), "▁"]
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<pad>", "<s>", "</s>", "<unk>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(TRAINING_TEXT, trainer=trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
