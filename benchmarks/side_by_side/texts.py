"""The texts that are encoded: drawn with a fixed seed from real ones where they are at hand, generated elsewhere."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from benchmarks.embed_memory import NOUNS, VERBS

LONGEST = 512  # tokens, with BOS
PARAGRAPHS = 40_000
ENTAILMENT = "0"  # the label of such pairs in SNLI
DEMONSTRATIONS = (
    ("A jockey riding a horse.", "Equestrian"),
    ("Two children build a castle of wet sand.", "Beach"),
    ("The orchestra tunes before the concert.", "Music"),
    ("A baker takes the bread out of the oven.", "Baking"),
    ("Snow covers the roofs of the village.", "Winter"),
    ("The goalkeeper catches the ball.", "Football"),
    ("Rain fell on the hills all night.", "Weather"),
)
PLACES = (
    *("", "", "", "", "", "", "", "", " at night", " near the old bridge", " before the rain came"),
    " while the others were still asleep",
    " that somebody had left behind in the garden, long before the rain came and the others went home",
)


class Source:
    """Sentences and running text.

    Args:
        data: A folder with ``pairs/snli_test.tsv``, ``pairs/flickr8k_captions.tsv`` and ``text/novels_paragraphs.txt``;
            without them the texts are generated.
    """

    def __init__(self, data: Path) -> None:
        inference, captions = data / "pairs" / "snli_test.tsv", data / "pairs" / "flickr8k_captions.tsv"
        novels = data / "text" / "novels_paragraphs.txt"
        self.real = inference.is_file() and captions.is_file() and novels.is_file()
        if self.real:
            rows = [line.split("\t") for line in inference.read_text(encoding="utf-8").splitlines()[1:]]
            self.sentences = list(dict.fromkeys(sentence for row in rows for sentence in row[:2]))
            self.entailed = [(premise, hypothesis) for premise, hypothesis, label in rows if label == ENTAILMENT]
            lines = captions.read_text(encoding="utf-8").splitlines()
            self.captions = list(dict.fromkeys(line.split("\t")[1] for line in lines))
            with novels.open(encoding="utf-8-sig") as file:
                self.paragraphs = [line.strip() for line in islice(file, PARAGRAPHS)]
        else:
            drawn = list(islice(_sentences(), 40_000))
            self.paragraphs = [" ".join(drawn[at : at + 40]) for at in range(0, len(drawn), 40)]
            self.sentences = self.captions = list(dict.fromkeys(drawn))
            self.entailed = list(zip(drawn[::2], drawn[1::2], strict=True))
        self.name = (
            "sentences of SNLI, captions of Flickr8k, paragraphs of English novels"
            if self.real
            else "generated sentences"
        )


class Texts:
    """Sets of texts by name, with their lengths in tokens.

    Args:
        source: Where they come from.
        tokenizer: The models' tokenizer, with whose tokens lengths are counted.
    """

    def __init__(self, source: Source, tokenizer: PreTrainedTokenizerBase) -> None:
        self.source = source
        self.tokenizer = tokenizer
        self.makers: dict[str, Callable[[], list[str]]] = {
            "short": lambda: self.sentences(400),
            "even": lambda: self.captions(400),
            "long-tailed": lambda: self.long_tailed(2000),
            "long": lambda: self.long(64),
            "demonstrations": lambda: self.captions(200, seed=4),
        }

    def sentences(self, count: int, seed: int = 1) -> list[str]:
        """Whole sentences as they come, of a mean of about 15 tokens."""
        return random.Random(seed).sample(self.source.sentences, count)

    def pairs(self, count: int, seed: int = 1) -> list[tuple[str, str]]:
        """Premises and what they entail, as they come."""
        return random.Random(seed).sample(self.source.entailed, count)

    def tailed_pairs(self, count: int) -> list[tuple[str, str]]:
        """Two short texts with a tail, which have nothing to do with each other."""
        return list(zip(self.short_tailed(count), self.short_tailed(count, seed=6), strict=True))

    def captions(self, count: int, seed: int = 1, longest: int = 22) -> list[str]:
        """Sentences of no more than so many tokens, which hardly need padding; one that comes again is numbered."""
        lengths = self._lengths(self.source.captions)
        fitting = [text for text, length in zip(self.source.captions, lengths, strict=True) if length <= longest]
        random.Random(seed).shuffle(fitting)
        rounds = -(-count // len(fitting))
        return [text + (f" {number}" if number else "") for number in range(rounds) for text in fitting][:count]

    def long_tailed(self, count: int, seed: int = 2) -> list[str]:
        """Lengths that are log-normal: a median of 40 tokens, a mean of about 60, up to 512."""
        draws = random.Random(seed)
        return self.cut([min(LONGEST, max(4, round(draws.lognormvariate(3.69, 0.9)))) for _ in range(count)], seed)

    def long(self, count: int, seed: int = 3) -> list[str]:
        """Texts of 400 to 512 tokens."""
        draws = random.Random(seed)
        return self.cut([draws.randint(400, LONGEST) for _ in range(count)], seed)

    def cut(self, lengths: Sequence[int], seed: int) -> list[str]:
        """Running text, cut to these numbers of tokens, BOS included."""
        starts = random.Random(seed)
        return [self._cut(starts.randrange(len(self.source.paragraphs)), length) for length in lengths]

    def short_tailed(self, count: int, seed: int = 5) -> list[str]:
        """Lengths that are log-normal: a median of 12 tokens, a mean of about 15, up to 64."""
        draws = random.Random(seed)
        return self.cut([min(64, max(4, round(draws.lognormvariate(2.48, 0.65)))) for _ in range(count)], seed)

    def write(self, name: str, folder: Path) -> dict[str, Any]:
        """Write a set into a file for the workers.

        Returns:
            Its ``file``, and what its lengths are.
        """
        return self.write_texts(name, self.makers[name](), folder)

    def write_texts(self, name: str, texts: list[str], folder: Path) -> dict[str, Any]:
        return {"file": save(name, texts, folder), "lengths": self._lengths(texts), "source": self.source.name}

    def _cut(self, start: int, length: int) -> str:
        paragraphs = self.source.paragraphs
        text = paragraphs[start]
        while len(text) < 8 * length:
            start += 1
            text += " " + paragraphs[start % len(paragraphs)]
        options = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
        offsets = self.tokenizer(text[: 8 * length], **options)["offset_mapping"]
        return text[: offsets[length - 2][1]]

    def _lengths(self, texts: list[str]) -> list[int]:
        return [len(ids) for ids in self.tokenizer(texts)["input_ids"]]


def save(name: str, texts: Sequence[Any], folder: Path) -> str:
    """Write texts, or rows of them, for the workers; the file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.json"
    file.write_text(json.dumps({"texts": texts}, ensure_ascii=False), encoding="utf-8")
    return str(file)


def _sentences() -> Iterator[str]:
    words = random.Random(0)
    while True:
        first, second = words.sample(NOUNS, 2)
        number = words.randint(2, 999)
        yield f"The {first} {number} {words.choice(VERBS)} the {second}{words.choice(PLACES)}."
