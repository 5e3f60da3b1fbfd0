"""What it saves that only masked tokens meet the head: an MNTP step against one that makes all logits first.

    python -m benchmarks.mntp_head

Both run the same forward and backward pass on the same weights and blocks, interleaved in one process; peak memory is
that of a fresh process for each. Results go to docs/benchmarks/mntp_head.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from st_llm2vec import TextEncoder, convert, decoder_path
from st_llm2vec.losses import MNTPLoss

VOCABULARIES = (32_000, 151_646)
OUTPUT = Path(__file__).resolve().parents[1] / "docs" / "benchmarks"
Step = Callable[[], Tensor]


def make_steps(vocabulary: int, rows: int, tokens: int) -> dict[str, Step]:
    """A training step of each kind on one model: a Llama of 25M parameters beside its embeddings."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        max_position_embeddings=tokens,
        tie_word_embeddings=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        LlamaForCausalLM(config).save_pretrained(folder)
        AutoTokenizer.from_pretrained(decoder_path()).save_pretrained(folder)
        encoder: TextEncoder = convert(folder, "llm2vec")
    encoder.train()
    loss = MNTPLoss(encoder, mlm_probability=0.2)
    ids = torch.randint(300, 4000, (rows, tokens), generator=torch.Generator().manual_seed(1))
    features = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def all_logits() -> Tensor:
        shown, chosen = loss.masker(ids, features["attention_mask"], loss._generator(ids))
        states = encoder[0]({**features, "input_ids": shown})["token_embeddings"]
        logits = loss.logits(states.flatten(0, 1)).view(rows, tokens, -1)
        labels = torch.where(chosen, ids, -100)
        return cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)

    def step(value: Callable[[], Tensor]) -> Step:
        def run() -> Tensor:
            encoder.zero_grad()
            torch.manual_seed(2)
            found = value()
            found.backward()
            return found.detach()

        return run

    return {"selected": step(lambda: loss([dict(features)], None)), "all": step(all_logits)}


def steps_peak(step: Step) -> float:
    """Peak resident memory, in GiB, of a step after a first one, whatever was in use before (Linux)."""
    step()
    Path("/proc/self/clear_refs").write_text("5")
    step()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def peak_memory(vocabulary: int, kind: str, rows: int, tokens: int) -> float:
    """Peak resident memory, in GiB, of a step in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.mntp_head", "--only", kind, "--vocabulary", str(vocabulary)]
    command += ["--rows", str(rows), "--tokens", str(tokens)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def measure(vocabulary: int, rows: int, tokens: int, repeats: int) -> dict[str, float]:
    """Medians over interleaved steps, and the memory of each kind."""
    steps = make_steps(vocabulary, rows, tokens)
    values = {kind: float(step()) for kind, step in steps.items()}
    if abs(values["selected"] - values["all"]) > 1e-4:
        raise SystemExit(f"The losses differ: {values}.")
    seconds: dict[str, list[float]] = {kind: [] for kind in steps}
    for _ in range(repeats):
        for kind, step in steps.items():
            begin = time.perf_counter()
            step()
            seconds[kind].append(time.perf_counter() - begin)
    rates = {kind: rows * tokens / statistics.median(times) for kind, times in seconds.items()}
    memory = {kind: peak_memory(vocabulary, kind, rows, tokens) for kind in steps}
    return {
        "vocabulary": vocabulary,
        "tokens_per_second_all": rates["all"],
        "tokens_per_second_selected": rates["selected"],
        "speed_ratio": rates["selected"] / rates["all"],
        "peak_gib_all": memory["all"],
        "peak_gib_selected": memory["selected"],
        "memory_ratio": memory["selected"] / memory["all"],
    }


def write(found: list[dict[str, float]], settings: dict[str, object]) -> None:
    """Write the JSON and the table."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / "mntp_head.json").write_text(json.dumps({"settings": settings, "results": found}, indent=2) + "\n")
    lines = [
        "# MNTP: logits only where masked",
        "",
        "Written by `python -m benchmarks.mntp_head`. A training step (forward and backward, float32, 20 % of the tokens",
        "masked) of a Llama with 25M parameters beside its embeddings, against the same step with all logits made first.",
        f"{settings['rows']} blocks of {settings['tokens']} tokens, {settings['threads']} threads, torch "
        f"{settings['torch']}, {settings['machine']}; medians of {settings['repeats']} interleaved steps.",
        "",
        "| vocabulary | tokens/s, all logits | tokens/s, selected | ratio | peak GiB, all | peak GiB, selected | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['vocabulary']:,} | {row['tokens_per_second_all']:,.0f} | {row['tokens_per_second_selected']:,.0f} | "
        f"{row['speed_ratio']:.2f} | {row['peak_gib_all']:.2f} | {row['peak_gib_selected']:.2f} | "
        f"{row['memory_ratio']:.2f} |"
        for row in found
    ]
    (OUTPUT / "mntp_head.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4, help="blocks in a step")
    parser.add_argument("--tokens", type=int, default=512, help="tokens in a block")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", choices=["selected", "all"], help=argparse.SUPPRESS)
    parser.add_argument("--vocabulary", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        step = make_steps(given.vocabulary, given.rows, given.tokens)[given.only]
        print(steps_peak(step))
        return
    found = [measure(vocabulary, given.rows, given.tokens, given.repeats) for vocabulary in VOCABULARIES]
    settings = {
        "rows": given.rows,
        "tokens": given.tokens,
        "repeats": given.repeats,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
    }
    write(found, settings)
    print((OUTPUT / "mntp_head.md").read_text())


if __name__ == "__main__":
    main()
