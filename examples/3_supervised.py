"""3. Supervised contrastive training: bring a query near its passage, and away from hard negatives and other rows' passages.

LLM2Vec's supervised stage (arXiv 2404.05961, section 5), and with other settings E5-Mistral's and NV-Embed's.

    python examples/3_supervised.py --model runs/mntp                     # titles find their texts, a minute on a CPU
    python examples/3_supervised.py --model runs/mntp --pairs pairs.jsonl --steps 1000 --batch-size 64 --output runs/mine

A line of pairs.jsonl: {"query": "...", "positive": "...", "negative": ["...", ...]}; or `query`, `pos` and `neg`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from accelerate import PartialState
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

from st_llm2vec import assets, load
from st_llm2vec.data import TrainingSource, build_training_data, read_dataset
from st_llm2vec.losses import HardNegativesRankingLoss
from st_llm2vec.training import Adapter, attach_adapter, merge_adapter

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="runs/mntp", help="an encoder's folder or its name on the Hub")
parser.add_argument("--pairs", help="a file or a dataset; the titles and texts of the demo if not given")
parser.add_argument("--instruction", default="Find the text with this title:", help="for queries")
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--batch-size", type=int, default=8)
parser.add_argument("--output", default="runs/supervised")
args = parser.parse_args()

encoder = load(args.model)
encoder.max_seq_length = 128
attach_adapter(encoder, Adapter(r=16, alpha=32))

# Queries with their instruction, positives, and as many hard negatives for each row.
pairs = args.pairs
if pairs is None:
    rows = read_dataset(Path(assets.__file__).parent / "corpus.jsonl")
    texts, titles = list(rows["text"]), list(rows["title"])
    pairs = Dataset.from_dict({"query": titles, "positive": texts, "negative": [*texts[1:], texts[0]]})
data = build_training_data([TrainingSource(path=pairs, query_instruction=args.instruction)])

trainer = SentenceTransformerTrainer(
    model=encoder,
    args=SentenceTransformerTrainingArguments(
        output_dir=f"{args.output}-checkpoints",
        max_steps=args.steps,
        per_device_train_batch_size=args.batch_size,
        learning_rate=2e-4,
        warmup_steps=args.steps // 4,
        batch_sampler="no_duplicates",
        prompts=data.prompts,
        logging_steps=5,
        report_to="none",
    ),
    train_dataset=data.dataset,
    loss=HardNegativesRankingLoss(encoder, scale=50.0),
)
trainer.train()

# Queries are encoded with the instruction that they were trained with.
if PartialState().is_main_process:
    merge_adapter(encoder)
    encoder.prompts["query"] = args.instruction
    encoder.save(args.output)
    print(f"The encoder is in {args.output}.")
