"""2. Unsupervised SimCSE: teach an encoder that a text is like itself and unlike others, without any labels.

LLM2Vec's second stage (arXiv 2404.05961, section 2.2; SimCSE is arXiv 2104.08821). Each sentence passes twice, under different
attention dropout, and has to find itself again among the sentences of its batch.

    python examples/2_simcse.py --model runs/mntp                         # what 1_mntp.py left, a minute on a CPU
    python examples/2_simcse.py --model runs/mntp --texts sentences.txt --steps 1000 --batch-size 128 --output runs/simcse

Set --mini-batch-size where memory does not hold a batch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from accelerate import PartialState
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

from st_llm2vec import assets, load
from st_llm2vec.data import read_dataset
from st_llm2vec.losses import SimCSELoss
from st_llm2vec.training import Adapter, attach_adapter, merge_adapter

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="runs/mntp", help="an encoder's folder or its name on the Hub")
parser.add_argument("--texts", default=str(Path(assets.__file__).parent / "corpus.jsonl"), help="a file or a dataset")
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--batch-size", type=int, default=16)
parser.add_argument("--mini-batch-size", type=int, help="texts in a pass")
parser.add_argument("--output", default="runs/simcse")
args = parser.parse_args()

# The encoder that an earlier stage left, and a fresh adapter.
encoder = load(args.model)
encoder.max_seq_length = 128
attach_adapter(encoder, Adapter(r=16, alpha=32))

# The stock trainer. `no_duplicates`: a sentence would be its own negative.
trainer = SentenceTransformerTrainer(
    model=encoder,
    args=SentenceTransformerTrainingArguments(
        output_dir=f"{args.output}-checkpoints",
        max_steps=args.steps,
        per_device_train_batch_size=args.batch_size,
        learning_rate=3e-5,
        batch_sampler="no_duplicates",
        logging_steps=5,
        report_to="none",
    ),
    train_dataset=read_dataset(args.texts).select_columns("text"),
    loss=SimCSELoss(encoder, scale=20.0, attention_dropout=0.3, mini_batch_size=args.mini_batch_size),
)
trainer.train()

if PartialState().is_main_process:
    merge_adapter(encoder)
    encoder.save(args.output)
    print(f"The encoder is in {args.output}.")
