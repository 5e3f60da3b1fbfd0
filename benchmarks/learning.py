"""Real learning on real data: LLM2Vec's stages on the decoder in the box, scored after each.

    python -m benchmarks.learning           # the table in docs/learning.md
    python -m benchmarks.learning --quick   # few steps and STS-B only, for a look

Stages that are finished are not trained again, and an interrupted one is continued (see --work). Settings were chosen
on STS-B dev alone. The data is named in docs/learning.md; --data is its folder.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import random
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from benchmarks.learning_tasks import DATA, TASKS, evaluate, read_sts
from st_llm2vec import convert, decoder_path, load
from st_llm2vec.data import pairs_from_labels
from st_llm2vec.training import MNTP, SimCSE, Stage, Supervised, build_stage

DOCS = Path(__file__).resolve().parents[1] / "docs"
SHORT = range(4, 19)  # words in a training sentence
SHARED = {"use_cpu": True, "per_device_train_batch_size": 64, "per_device_eval_batch_size": 64, "save_steps": 100}
TRAINING: dict[str, dict[str, Any]] = {
    "mntp": {"max_steps": 800, "learning_rate": 1e-3, "warmup_steps": 40},
    "simcse": {"max_steps": 300, "learning_rate": 1e-3, "warmup_steps": 15},
    "supervised": {"max_steps": 300, "learning_rate": 5e-4, "warmup_steps": 15},
    "blended": {"max_steps": 100, "learning_rate": 1e-4, "warmup_steps": 5},
}
QUICK_STEPS = 30


class Corpus:
    """The training data, without any sentence that occurs in STS-B dev or test."""

    def __init__(self, data: Path) -> None:
        pairs = [read_sts(data, part) for part in ("dev", "test")]
        self.held_out = {_key(text) for first, second, _ in pairs for text in (*first, *second)}
        self.data = data
        self.removed: set[str] = set()
        self.draws = random.Random(0)
        self.captions = _captions(data)
        self.nli = _nli(data)
        self.intents = [
            (text, label)
            for text, label in json.loads((data / "classification" / "clinc150" / "data_full.json").read_text())[
                "train"
            ]
            if self.allowed(text)
        ]
        self.wiki = (data / "text" / "wikisplit_sentences.txt").read_text(encoding="utf-8").splitlines()

    def allowed(self, text: str) -> bool:
        """Whether a text may be trained on; those that may not are counted."""
        if _key(text) in self.held_out:
            self.removed.add(_key(text))
            return False
        return True

    def sentences(self) -> Dataset:
        """Short sentences without labels: Wikipedia, captions, and both sides of the NLI pairs."""
        texts = [*self.wiki, *(text for group in self.captions for text in group)]
        texts += [text for premise, hypothesis, _ in self.nli for text in (premise, hypothesis)]
        kept = [text for text in dict.fromkeys(texts) if len(text.split()) in SHORT and self.allowed(text)]
        self.draws.shuffle(kept)
        return Dataset.from_dict({"text": kept})

    def triplets(self) -> Dataset:
        """A premise, what it entails, and what contradicts it."""
        by_premise: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for premise, hypothesis, label in self.nli:
            by_premise[premise][label].append(hypothesis)
        rows = [
            (premise, entailed, contradicting)
            for premise, found in by_premise.items()
            for entailed, contradicting in zip(found["0"], found["2"], strict=False)
            if all(self.allowed(text) for text in (premise, entailed, contradicting))
            and len({_key(text) for text in (premise, entailed, contradicting)}) == 3
        ]
        return _columns(("query", "positive", "negative"), rows)

    def paraphrases(self) -> Dataset:
        """Two captions of one image, twice for each image."""
        rows = []
        for group in self.captions:
            kept = list(dict.fromkeys(text for text in group if self.allowed(text)))
            self.draws.shuffle(kept)
            rows += [tuple(kept[at : at + 2]) for at in (0, 2) if len(kept) >= at + 2]
        return _columns(("query", "positive"), rows)

    def related(self) -> Dataset:
        """Pairs more or less alike: half of them STS-B train without its scores, the others of SNLI and captions."""
        first, second, _ = read_sts(self.data, "train")
        rows = list(zip(first, second, strict=True))
        half = len(rows) // 2
        rows += [(premise, hypothesis) for premise, hypothesis, _ in self.draws.sample(self.nli, half)]
        rows += self.draws.sample([(group[0], group[1]) for group in self.captions if len(group) > 1], half)
        kept = [row for row in dict.fromkeys(rows) if _key(row[0]) != _key(row[1]) and all(map(self.allowed, row))]
        self.draws.shuffle(kept)
        return _columns(("query", "positive"), kept)

    def scored(self) -> Dataset:
        """STS-B train: pairs with the scores that people gave."""
        rows = [row for row in zip(*read_sts(self.data, "train"), strict=True) if all(map(self.allowed, row[:2]))]
        return _columns(("sentence1", "sentence2", "score"), rows)

    def same_intent(self) -> Dataset:
        """Two requests of one intent, and one of another (CLINC150; no task of the table uses it)."""
        texts, labels = zip(*self.intents, strict=True)
        return pairs_from_labels(texts, labels, negatives=1)


def write_data(data: Path, folder: Path) -> dict[str, int]:
    """Write the training files, and count them."""
    corpus = Corpus(data)
    made = {
        "sentences": corpus.sentences(),
        "triplets": corpus.triplets(),
        "paraphrases": corpus.paraphrases(),
        "intents": corpus.same_intent(),
        "related": corpus.related(),
        "scored": corpus.scored(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, dataset in made.items():
        dataset.to_json(folder / f"{name}.jsonl")
    return {**{name: len(dataset) for name, dataset in made.items()}, "removed": len(corpus.removed)}


def stages(work: Path, quick: bool) -> dict[str, Stage]:
    """The runs, by the row of the table that they make."""
    files = {name: str(work / "data" / f"{name}.jsonl") for name in ("sentences", "triplets", "paraphrases", "intents")}

    def settings(kind: str, start: str, name: str) -> dict[str, Any]:
        steps = {"max_steps": QUICK_STEPS} if quick else {}
        return {
            "model": start,
            "output": str(work / name),
            "adapter": None,
            "max_length": 32,
            "training": {**SHARED, **TRAINING[kind], **steps},
        }

    decoder, mntp, supervised = decoder_path(), str(work / "mntp"), str(work / "supervised")
    simcse = {"data": files["sentences"], "attention_dropout": 0.5, "scale": 10.0}
    sources = [{"path": files[name]} for name in ("triplets", "paraphrases")]
    own = [{"path": files[name]} for name in ("triplets", "intents")]
    return {
        "+ MNTP": MNTP(data=files["sentences"], block_size=None, **settings("mntp", decoder, "mntp")),
        "+ SimCSE": SimCSE(**simcse, **settings("simcse", decoder, "simcse")),
        "+ MNTP + SimCSE": SimCSE(**simcse, **settings("simcse", mntp, "mntp-simcse")),
        "+ MNTP + supervised": Supervised(data=sources, scale=20.0, **settings("supervised", mntp, "supervised")),
        "+ MNTP + two-stage": build_stage(
            "blended", data=own, scale=20.0, blended=False, **settings("blended", supervised, "two-stage")
        ),
    }


def measure(work: Path, data: Path, quick: bool) -> dict[str, Any]:
    """Train what is not trained yet and score every row."""
    counts = write_data(data, work / "data")
    tasks = ("STS-B dev", "STS-B test") if quick else TASKS
    untrained: dict[str, dict[str, Any]] = {
        "causal, mean": {"attention": "causal"},
        "causal, weighted mean": {"attention": "causal", "pooling": "weighted_mean"},
        "bidirectional, untrained": {},
    }
    rows: dict[str, dict[str, float]] = {}
    for name, changes in untrained.items():
        rows[name] = evaluate(convert(decoder_path(), "llm2vec", **changes), data, tasks)
        print(name, rows[name], flush=True)
    seconds: dict[str, float] = {}
    for name, stage in stages(work, quick).items():
        begin = time.perf_counter()
        stage.run()
        seconds[name] = time.perf_counter() - begin
        rows[name] = evaluate(load(stage.output), data, tasks)
        print(name, rows[name], flush=True)
    return {"rows": rows, "seconds": seconds, "counts": counts, "tasks": tasks}


def table(found: dict[str, Any]) -> str:
    """The page that docs/learning.md is."""
    counts, tasks = found["counts"], found["tasks"]
    lines = [
        "# What the stages teach",
        "",
        "Written by `python -m benchmarks.learning` from the decoder in the box (2.8 million parameters); torch "
        f"{torch.__version__}, {torch.get_num_threads()} thread(s), {platform.machine()}. One seed; settings were chosen "
        "on STS-B dev.",
        "",
        "| encoder | " + " | ".join(tasks) + " |",
        "|---|" + "---|" * len(tasks),
        *(
            f"| {name} | " + " | ".join(f"{scores[task]:.1f}" for task in tasks) + " |"
            for name, scores in found["rows"].items()
        ),
        "",
        "STS-B: Spearman correlation of cosine similarities. Banking77 and TREC: test accuracy of a logistic regression on",
        "the vectors. Cranfield: nDCG@10 of 225 queries over 1,398 abstracts. All times 100.",
        "",
        "## Data",
        "",
        f"Sentences that occur in STS-B dev or test were removed first, whatever their case, blanks\nand punctuation: {counts['removed']} different ones. MNTP and SimCSE",
        f"read {counts['sentences']:,} sentences of 4 to 18 words (WikiSplit, Flickr8k captions, SNLI's validation file).",
        f"Supervised: {counts['triplets']:,} triplets of premise, entailed and contradicting sentence (SNLI validation) and",
        f"{counts['paraphrases']:,} pairs of captions of one image, one dataset a batch, in-batch negatives on. Two-stage goes",
        f"on from supervised with in-batch negatives off: the triplets, and {counts['intents']:,} pairs of requests with one",
        "intent against one of another (CLINC150).",
        "",
        "## Settings",
        "",
        "All weights are trained (the papers train LoRA adapters on models 500 times as large), batch 64, at most 32",
        "tokens, linear decay. MNTP: 20 % masked, BERT-style. SimCSE: attention dropout 0.5, scale 10. Supervised and",
        "two-stage: scale 20.",
        "",
        "| stage | steps | learning rate |",
        "|---|---|---|",
        *(f"| {name} | {given['max_steps']} | {given['learning_rate']:g} |" for name, given in TRAINING.items()),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few steps, STS-B only, nothing written to docs/")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the datasets")
    parser.add_argument("--work", type=Path, help="folder of the runs")
    given = parser.parse_args()
    if not given.data.is_dir():
        raise SystemExit(f"There is no folder {given.data}; name the datasets' folder with --data.")
    work = given.work or Path("build") / ("learning-quick" if given.quick else "learning")
    begin = time.perf_counter()
    found = measure(work, given.data, given.quick)
    page = table(found)
    print(page)
    print(f"{(time.perf_counter() - begin) / 60:.0f} minutes")
    if not given.quick:
        (DOCS / "learning.md").write_text(page, encoding="utf-8")
        (DOCS / "learning.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _captions(data: Path) -> list[list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for line in (data / "pairs" / "flickr8k_captions.tsv").read_text(encoding="utf-8").splitlines():
        fields = line.split("\t")
        if len(fields) == 2:
            groups[fields[0].split("#")[0]].append(fields[1])
    return list(groups.values())


def _nli(data: Path) -> list[tuple[str, str, str]]:
    with (data / "pairs" / "snli_validation.tsv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(row["premise"], row["hypothesis"], row["label"]) for row in rows]


def _columns(names: tuple[str, ...], rows: list[Any]) -> Dataset:
    return Dataset.from_dict({name: [row[at] for row in rows] for at, name in enumerate(names)})


def _key(text: str) -> str:
    """What two spellings of a sentence share: its letters and digits, in lower case."""
    return "".join(character for character in text.lower() if character.isalnum())


if __name__ == "__main__":
    main()
