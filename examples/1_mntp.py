"""1. Masked next token prediction: teach a decoder to read in both directions.

LLM2Vec's first stage (arXiv 2404.05961, section 2.1). A fifth of the tokens of each block is masked, and each is predicted
from the state of the token before it, as the decoder has learned to predict.

    python examples/1_mntp.py                                             # the decoder in the box, a minute on a CPU
    python examples/1_mntp.py --model org/decoder --texts wiki.txt --steps 1000 --batch-size 32 --output runs/mntp
    accelerate launch --num_processes 8 examples/1_mntp.py --model org/decoder --texts wiki.txt --output runs/mntp

`st-llm2vec train` runs this stage and the next in one command, and resumes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from accelerate import PartialState
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

from st_llm2vec import assets, convert, decoder_path
from st_llm2vec.data import pack_blocks, read_dataset
from st_llm2vec.losses import MNTPLoss
from st_llm2vec.training import Adapter, attach_adapter, merge_adapter

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default=decoder_path(), help="a decoder: a folder or a name on the Hub")
parser.add_argument("--texts", default=str(Path(assets.__file__).parent / "corpus.jsonl"), help="a file or a dataset")
parser.add_argument("--block-size", type=int, default=128, help="tokens in a block")
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--batch-size", type=int, default=8)
parser.add_argument("--output", default="runs/mntp")
args = parser.parse_args()

# The decoder without its causal mask, proven; and an adapter, which is all that learns.
encoder = convert(args.model, "llm2vec")
attach_adapter(encoder, Adapter(r=16, alpha=32))

# Texts, one after the other, cut into blocks of tokens.
blocks = pack_blocks(read_dataset(args.texts), encoder.tokenizer, args.block_size)

# The stock trainer. Only masked tokens meet the decoder's own output head.
trainer = SentenceTransformerTrainer(
    model=encoder,
    args=SentenceTransformerTrainingArguments(
        output_dir=f"{args.output}-checkpoints",
        max_steps=args.steps,
        per_device_train_batch_size=args.batch_size,
        learning_rate=5e-5,
        logging_steps=5,
        report_to="none",
    ),
    train_dataset=blocks,
    loss=MNTPLoss(encoder, mlm_probability=0.2),
)
trainer.train()

# The adapter becomes part of the weights, so that plain Sentence Transformers reads the folder.
if PartialState().is_main_process:
    merge_adapter(encoder)
    encoder.save(args.output)
    print(f"The encoder is in {args.output}.")
