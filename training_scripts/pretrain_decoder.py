"""Pretrain the small decoder that ships inside the package.

The decoder is a Llama of 2.8 million parameters, trained on public-domain English novels and on
Wikipedia text, so that demos, tests and examples have a real language model without a download.

    # the decoder in the box (about 75 minutes on two CPU cores; resumable: run the same line again)
    python training_scripts/pretrain_decoder.py --data DATA/text --work runs/pretrain --output OUT --compile

    # the same line uses a GPU where there is one; without a C++ compiler leave out --compile

    # a tiny run that only shows that everything works (about a minute)
    python training_scripts/pretrain_decoder.py --data DATA/text --work runs/tiny --output OUT --steps 20

``DATA/text`` holds ``novels_paragraphs.txt``, ``wikisplit_sentences.txt`` and
``wikitext2_valid_test_paragraphs.txt``, one paragraph or sentence a line.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

logger = logging.getLogger("pretrain_decoder")

CONTEXT = 512
SPECIAL_TOKENS = ["<pad>", "<s>", "</s>"]
# file name -> (share of its last lines that is held out, times its training lines are repeated)
SOURCES = {
    "novels_paragraphs.txt": (0.005, 1),
    "wikisplit_sentences.txt": (0.05, 2),
    "wikitext2_valid_test_paragraphs.txt": (0.05, 2),
}


# 1. Text ------------------------------------------------------------------------------------------


def detokenize(line: str) -> str:
    """Undo the spaces that word-tokenised Wikipedia corpora put around punctuation."""
    line = line.replace("<unk>", "").replace(" @-@ ", "-").replace(" @,@ ", ",").replace(" @.@ ", ".")
    line = re.sub(r"\s+([.,;:!?%)\]])", r"\1", line)
    line = re.sub(r"([(\[$])\s+", r"\1", line)
    line = re.sub(r"\s+('s|n't|'re|'ve|'ll|'d|'m)\b", r"\1", line)
    line = line.replace(" '' ", ' " ').replace("``", '"')
    line = re.sub(r'"\s*([^"]*?)\s*"', r'"\1"', line)
    return re.sub(r"\s{2,}", " ", line).strip(" '\ufeff")


def read_lines(path: Path) -> list[str]:
    lines = [line.strip().lstrip("\ufeff") for line in path.read_text(encoding="utf-8").splitlines()]
    if path.name.startswith("wiki"):
        lines = [detokenize(line) for line in lines]
    return [line for line in lines if line]


def split_corpus(folder: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Return the training lines and, for each source, its held-out lines (the last ones of the file)."""
    train: list[str] = []
    held_out: dict[str, list[str]] = {}
    for name, (share, repeats) in SOURCES.items():
        lines = read_lines(folder / name)
        cut = len(lines) - max(1, int(len(lines) * share))
        train += lines[:cut] * repeats
        held_out[name] = lines[cut:]
    return train, held_out


# 2. Tokenizer -------------------------------------------------------------------------------------


def train_tokenizer(lines: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE whose tokens never span words; ``<s>`` opens every text, as in Llama."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=True,
    )
    tokenizer.train_from_iterator(lines, trainer=trainer, length=len(lines))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="right",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def encode(tokenizer: PreTrainedTokenizerFast, lines: list[str], label: str) -> np.ndarray:
    """Concatenate ``<s> line </s>`` of every line into one array of token ids, shape ``(tokens,)``."""
    eos = tokenizer.eos_token_id
    pieces: list[np.ndarray] = []
    for start in tqdm(range(0, len(lines), 2000), desc=f"tokenise {label}"):
        for ids in tokenizer(lines[start : start + 2000])["input_ids"]:
            pieces.append(np.asarray([*ids, eos], dtype=np.uint16))
    return np.concatenate(pieces)


# 3. Training --------------------------------------------------------------------------------------


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=416,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config)


def batches(tokens: np.ndarray, batch: int, seed: int, start: int) -> Iterator[torch.Tensor]:
    """Yield blocks ``(batch, CONTEXT)`` in an order that depends on the seed alone, from step ``start`` on."""
    blocks = len(tokens) // CONTEXT
    per_epoch = blocks // batch
    step = start
    while True:
        order = np.random.default_rng([seed, step // per_epoch]).permutation(blocks)
        for index in range(step % per_epoch, per_epoch):
            rows = order[index * batch : (index + 1) * batch]
            yield torch.from_numpy(np.stack([tokens[r * CONTEXT : (r + 1) * CONTEXT] for r in rows]).astype(np.int64))
            step += 1


def next_token_loss(model: torch.nn.Module, block: torch.Tensor, device: str) -> torch.Tensor:
    block = block.to(device)
    with torch.autocast(device, dtype=torch.bfloat16):
        logits = model(input_ids=block, use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), block[:, 1:].flatten())


def perplexity(model: torch.nn.Module, tokens: np.ndarray, device: str, batch: int = 16) -> float:
    """Perplexity per token over consecutive blocks of ``CONTEXT`` tokens."""
    blocks = tokens[: len(tokens) // CONTEXT * CONTEXT].reshape(-1, CONTEXT).astype(np.int64)
    model.eval()
    with torch.no_grad():
        losses = [
            next_token_loss(model, torch.from_numpy(blocks[i : i + batch]), device).item() * len(blocks[i : i + batch])
            for i in range(0, len(blocks), batch)
        ]
    model.train()
    return math.exp(sum(losses) / len(blocks))


def build_optimizers(model: torch.nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the embedding and the norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed_tokens" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed_tokens" in n]
    return [
        torch.optim.Muon(matrices, lr=lr, momentum=0.95, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def learning_rate_factor(step: int, steps: int, warmup: int = 100) -> float:
    """Linear warm-up, a plateau, and a linear decay to zero over the last 40 %."""
    decay_from = int(0.6 * steps)
    if step < warmup:
        return (step + 1) / warmup
    return 1.0 if step < decay_from else (steps - step) / (steps - decay_from)


def save_atomically(state: dict, path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def train(model: LlamaForCausalLM, tokens: np.ndarray, dev: np.ndarray, args: argparse.Namespace, device: str) -> None:
    optimizers = build_optimizers(model, args.lr)
    checkpoint = args.work / "checkpoint.pt"
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location=device)
        if state["steps"] != args.steps:
            raise SystemExit(
                f"{checkpoint} belongs to a run of {state['steps']} steps, not {args.steps}: "
                "give the same --steps or another --work folder."
            )
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        start = state["step"]
        logger.info("resuming at step %d", start)
    forward = torch.compile(model) if args.compile else model
    stream = batches(tokens, args.batch, args.seed, start)
    bar = tqdm(range(start, args.steps), initial=start, total=args.steps, desc="pretrain", mininterval=5)
    clock, seen = time.time(), 0
    for step in bar:
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = args.lr * learning_rate_factor(step, args.steps)
        block = next(stream)
        loss = next_token_loss(forward, block, device)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        seen += block.numel()
        bar.set_postfix(loss=f"{loss.item():.3f}", tokens_per_s=f"{seen / (time.time() - clock):.0f}", refresh=False)
        if (step + 1) % args.save_every == 0 or step + 1 == args.steps:
            state = {
                "step": step + 1,
                "steps": args.steps,
                "model": model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            }
            save_atomically(state, checkpoint)
            logger.info("step %d: dev perplexity %.2f", step + 1, perplexity(model, dev[: 40 * CONTEXT], device))


# 4. Report ----------------------------------------------------------------------------------------

CARD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---
# The decoder in the box

A Llama decoder of {parameters:,} parameters ({layers} layers, width {width}, vocabulary {vocab}, context {context})
for demos, tests and examples of `st_llm2vec`. It is a real, if small, language model of English prose;
it is not meant for production.

| | |
|---|---|
| training text | 100 public-domain English novels ({novels:,} paragraphs); Wikipedia sentences and paragraphs ({wiki:,} lines, seen twice) |
| training tokens | {train_tokens:,} in {steps:,} steps of {batch_tokens:,} ({epochs:.2f} epochs) |
| optimiser | Muon on the layers' matrices, AdamW on the rest, peak learning rate {lr}, bfloat16 autocast |
| hardware | {hardware} |

Held-out text: the last lines of each source, never trained on. Perplexity is per token.

| held-out text | tokens | this model | untrained |
|---|---|---|---|
{rows}

Made by `training_scripts/pretrain_decoder.py`; its header gives the command.

## Licence
The weights and the tokenizer are released under Apache-2.0. The novels are in the public domain. The Wikipedia
text is by its contributors, under CC BY-SA; none of it is contained here as text.
"""


def write_card(output: Path, report: dict) -> None:
    rows = "\n".join(
        f"| {name} | {r['tokens']:,} | {r['trained']:.2f} | {r['untrained']:,.0f} |"
        for name, r in report["held_out"].items()
    )
    (output / "README.md").write_text(CARD.format(rows=rows, **report), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the three text files")
    parser.add_argument("--work", type=Path, required=True, help="folder for tokens and checkpoints")
    parser.add_argument("--output", type=Path, required=True, help="folder for the finished decoder")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=16, help=f"blocks of {CONTEXT} tokens in a step")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--save-every", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="compile the model (needs a C++ compiler)")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args.work.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    set_seed(args.seed)

    train_lines, held_out = split_corpus(args.data)
    tokenizer_folder = args.work / "tokenizer"
    if (tokenizer_folder / "tokenizer.json").exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_folder)
    else:
        tokenizer = train_tokenizer(train_lines, args.vocab_size)
        tokenizer.save_pretrained(tokenizer_folder)
    tokens_file = args.work / "train.npy"
    if not tokens_file.exists():
        np.save(args.work / "train.partial.npy", encode(tokenizer, train_lines, "training text"))
        os.replace(args.work / "train.partial.npy", tokens_file)
    tokens = np.load(tokens_file, mmap_mode="r")
    dev = {name: encode(tokenizer, lines, name) for name, lines in held_out.items()}

    for name, ids in dev.items():
        if len(ids) < CONTEXT:
            raise SystemExit(f"The held-out part of {name} is too short: {len(ids)} tokens, and {CONTEXT} are needed.")
    model = build_model(tokenizer).to(device)
    parameters = sum(p.numel() for p in model.parameters())
    logger.info("%s parameters, %s training tokens, device %s", f"{parameters:,}", f"{len(tokens):,}", device)
    untrained = {name: perplexity(model, ids, device) for name, ids in dev.items()}
    train(model, tokens, np.concatenate(list(dev.values())[::-1]), args, device)
    trained = {name: perplexity(model, ids, device) for name, ids in dev.items()}

    model.float().save_pretrained(args.output)
    tokenizer.save_pretrained(args.output)
    config = model.config
    report = {
        "parameters": parameters,
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "vocab": config.vocab_size,
        "context": CONTEXT,
        "novels": len(read_lines(args.data / "novels_paragraphs.txt")) - len(held_out["novels_paragraphs.txt"]),
        "wiki": sum(len(read_lines(args.data / n)) - len(held_out[n]) for n in SOURCES if n.startswith("wiki")),
        "train_tokens": args.steps * args.batch * CONTEXT,
        "steps": args.steps,
        "batch_tokens": args.batch * CONTEXT,
        "epochs": args.steps * args.batch * CONTEXT / len(tokens),
        "lr": args.lr,
        "hardware": f"{torch.get_num_threads()} CPU cores" if device == "cpu" else torch.cuda.get_device_name(),
        "held_out": {
            name: {"tokens": len(ids), "trained": trained[name], "untrained": untrained[name]}
            for name, ids in dev.items()
        },
    }
    write_card(args.output, report)
    (args.output / "training.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    logger.info("held-out perplexity: %s", {n: round(r["trained"], 2) for n, r in report["held_out"].items()})


if __name__ == "__main__":
    main()
