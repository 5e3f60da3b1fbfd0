"""The machinery beside which contenders run: texts, arithmetic, processes and pages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoTokenizer, LlamaConfig, LlamaModel

from benchmarks import llm2vec_environment
from benchmarks.side_by_side.flops import forward_flops, matmul_parameters, matmul_rate
from benchmarks.side_by_side.machine import command
from benchmarks.side_by_side.measure import disagreements, ratios
from benchmarks.side_by_side.memory import STATUS, Memory
from benchmarks.side_by_side.process import Process, Turns
from benchmarks.side_by_side.shapes import downgrade, tokenizer
from benchmarks.side_by_side.texts import Source, Texts
from st_llm2vec import decoder_path


def lengths(texts: Texts, drawn: list[str]) -> list[int]:
    return [len(ids) for ids in texts.tokenizer(drawn)["input_ids"]]


def check_lengths(texts: Texts) -> None:
    short, even, tailed, long = (texts.makers[name]() for name in ("short", "even", "long-tailed", "long"))
    assert len(set(short)) == len(set(even)) == 400
    assert 13 <= np.mean(lengths(texts, short)) <= 17
    assert max(lengths(texts, short)) > 22
    assert 13 <= np.mean(lengths(texts, even)) <= 17
    assert len(tailed) == 2000
    assert 52 <= np.mean(lengths(texts, tailed)) <= 66
    assert 400 < max(lengths(texts, tailed)) <= 513
    assert len(long) == 64
    assert 395 <= min(lengths(texts, long)) <= max(lengths(texts, long)) <= 513
    assert len(set(lengths(texts, long))) > 20


@pytest.mark.slow
def test_generated_texts_have_the_lengths_that_are_promised(tmp_path: Path) -> None:
    source = Source(tmp_path)
    assert not source.real
    texts = Texts(source, tokenizer())
    check_lengths(texts)
    again = Texts(Source(tmp_path), tokenizer())
    assert again.long_tailed(50) == texts.long_tailed(50)


@pytest.mark.slow
def test_real_texts_have_the_lengths_that_are_promised(shared_data: Path) -> None:
    source = Source(shared_data)
    assert source.real
    check_lengths(Texts(source, tokenizer()))


def test_more_texts_than_there_are_stay_different(tmp_path: Path) -> None:
    texts = Texts(Source(tmp_path), tokenizer())
    texts.source.captions = texts.source.captions[:30]
    drawn = texts.captions(70, longest=40)
    assert len(drawn) == len(set(drawn)) == 70


def test_pairs_are_what_was_asked_for(shared_data: Path) -> None:
    texts = Texts(Source(shared_data), tokenizer())
    pairs = texts.pairs(300)
    assert len(set(pairs)) == 300
    assert all(len(pair) == 2 and all(pair) for pair in pairs)
    assert [len(pair) for pair in texts.tailed_pairs(3)] == [2, 2, 2]


def test_short_texts_have_a_tail(tmp_path: Path) -> None:
    texts = Texts(Source(tmp_path), tokenizer())
    lengths = [len(ids) for ids in tokenizer()(texts.short_tailed(200))["input_ids"]]
    assert 12 < sum(lengths) / 200 < 18
    assert 40 < max(lengths) <= 65


def test_the_operations_are_those_that_torch_counts() -> None:
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    model = LlamaModel(LlamaConfig(**sizes, vocab_size=100, attn_implementation="eager"))
    assert matmul_parameters(sizes) == sum(
        weight.numel() for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name
    )
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.ones(1, 50, dtype=torch.long))
    assert forward_flops(sizes, [50]) == pytest.approx(counter.get_total_flops(), rel=0.01)
    assert forward_flops(sizes, [50, 50]) == 2 * forward_flops(sizes, [50])


def test_a_matrix_product_has_a_rate() -> None:
    assert 1e8 < matmul_rate("float32", "cpu", size=128, repeats=3) < 1e15


def test_ratios_are_of_the_same_round() -> None:
    # The machine was twice as slow in the second round: medians apart would say 1.0.
    seconds = {"fast": [1.0, 2.0, 4.0], "slow": [2.0, 4.0, 4.0]}
    assert ratios("fast", seconds) == {"slow": 2.0}
    assert ratios("slow", seconds) == {"fast": 0.5}


def test_other_vectors_get_a_sentence() -> None:
    row = {"contender": "ours-float32", "dataset": "short", "shape": "base", "dtype": "float32"}
    assert disagreements([{**row, "cosine_distance": 1e-9}, {**row, "cosine_distance": None}]) == []
    assert "1.0e-04 from the reference" in disagreements([{**row, "cosine_distance": 1e-4}])[0]
    assert len(disagreements([{**row, "cosine_distance": float("nan")}])) == 1


def test_a_command_names_no_folder() -> None:
    given = ["--work", "/a/b", "--rounds", "3", "--data=/c/d"]
    assert command("benchmarks.x", ("--work", "--data"), given) == (
        "python -m benchmarks.x --work DIR --rounds 3 --data=DIR"
    )


@pytest.mark.skipif(not STATUS.exists(), reason="the system has no /proc")
def test_memory_is_what_came_on_top() -> None:
    program = (
        "import numpy as np\n"
        "from benchmarks.side_by_side.memory import Memory\n"
        "kept = np.ones(10_000_000)\n"
        "memory = Memory('cpu')\n"
        "memory.start(); print(memory.growth())\n"
        "np.ones(20_000_000).sum(); print(memory.growth())\n"
        "memory.start(); print(memory.growth())\n"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    before, with_array, after = map(float, printed)
    assert before < 16 and after < 16
    assert 150 < with_array < 180
    assert Memory("cpu").loaded > 0


def test_a_process_says_what_failed_and_lives_on(tmp_path: Path) -> None:
    process = Process(Path(sys.executable), 1, tmp_path / "log")
    for _ in range(2):
        answer = process.ask(do="load", subject="benchmarks.side_by_side.nothing:Here", settings={})
        assert answer == {"error": "ModuleNotFoundError: No module named 'benchmarks.side_by_side.nothing'"}
    process.process.kill()
    process.process.wait()
    assert "ended with status -9" in process.ask(do="run", job={})["error"]
    assert "ModuleNotFoundError" in (tmp_path / "log").read_text()


class Scripted:
    """A worker whose answers are known."""

    def __init__(self, name: str, asked: list[str], fails: bool = False) -> None:
        self.name, self.asked, self.fails, self.closed = name, asked, fails, False

    def ask(self, **request: Any) -> dict[str, Any]:
        self.asked.append(self.name)
        return {"error": "no"} if self.fails else {"seconds": 1.0, **request}

    def close(self) -> None:
        self.closed = True


def test_turns_come_in_another_order_and_leave_out_who_failed() -> None:
    asked: list[str] = []
    broken = Scripted("broken", asked, fails=True)
    turns = Turns({"broken": broken, **{name: Scripted(name, asked) for name in "abcd"}})
    orders = set()
    for _ in range(10):
        answers = turns.once(do="run", job=lambda name: {"for": name})
        assert {name: answer["job"]["for"] for name, answer in answers.items()} == {name: name for name in "abcd"}
        orders.add(tuple(answers))
    assert len(orders) > 3
    assert asked.count("broken") == 1
    assert broken.closed and turns.failed == {"broken": "no"}


def test_an_older_reader_gets_the_same_tokenizer(tmp_path: Path) -> None:
    downgrade(Path(decoder_path()), tmp_path / "old")
    read = json.loads((tmp_path / "old" / "tokenizer.json").read_text())
    assert all(isinstance(merge, str) for merge in read["model"]["merges"])
    config = json.loads((tmp_path / "old" / "config.json").read_text())
    assert (config["rope_theta"], config["torch_dtype"]) == (10000.0, "float32")
    text = ["The old clock struck 12, quietly."]
    assert AutoTokenizer.from_pretrained(tmp_path / "old")(text)["input_ids"] == tokenizer()(text)["input_ids"]
    assert (tmp_path / "old" / "model.safetensors").samefile(Path(decoder_path()) / "model.safetensors")


def test_the_environment_begins_with_the_pinned_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(llm2vec_environment.venv, "create", lambda folder, **_: Path(folder).mkdir())
    monkeypatch.setattr(
        llm2vec_environment.subprocess, "run", lambda words, check: commands.append([str(word) for word in words])
    )
    python = llm2vec_environment.make(tmp_path / "env")
    installs = [words[words.index("--quiet") + 1 :] for words in commands if "install" in words]
    pin = llm2vec_environment.torch_pin()
    assert pin.startswith("torch==2.")
    assert installs[0] == [pin]
    assert all(pin in words or "--no-deps" in words for words in installs)
    made = len(commands)
    assert llm2vec_environment.make(tmp_path / "env") == python
    assert len(commands) == made
