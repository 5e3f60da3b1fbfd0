from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from typer.testing import CliRunner

from st_llm2vec import convert, load
from st_llm2vec.cli import app
from st_llm2vec.corpus import EmbeddingSettings, embed_corpus, open_corpus
from st_llm2vec.encoding import dtype as precision
from st_llm2vec.encoding.dtype import (
    choose_dtype,
    cpu_speed,
    measure_speed,
    memory_file,
    native_dtype,
    resolve_dtype,
    slower_in,
)

from ..conftest import TEXTS

Fixed = Callable[[float], list[float]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of its own, and no choice remembered from other tests."""
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    precision._choose.cache_clear()
    yield tmp_path / "home"
    precision._choose.cache_clear()


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> Fixed:
    """A processor of a given speed; the list grows with each measurement."""

    def set_speed(speed: float) -> list[float]:
        taken: list[float] = []

        def measure() -> float:
            taken.append(speed)
            return speed

        monkeypatch.setattr(precision, "measure_speed", measure)
        return taken

    return set_speed


@pytest.mark.parametrize(
    ("speed", "dtype", "device", "said"),
    [
        (0.2, torch.bfloat16, "cpu", "is 5.0 times slower than in float32"),
        (0.2, torch.float32, "cpu", None),
        (1.1, torch.bfloat16, "cpu", None),
        (0.2, torch.bfloat16, "meta", None),
    ],
)
def test_a_slow_type_is_told_of_a_processor(
    fixed: Fixed, speed: float, dtype: torch.dtype, device: str, said: str | None
):
    fixed(speed)
    found = slower_in(dtype, torch.device(device))
    assert found == said or (said and str(found).startswith("bfloat16, in which ") and str(found).endswith(said))


def test_the_real_measurement_is_a_ratio_of_this_processor():
    assert 0.01 < measure_speed() < 100


@pytest.mark.parametrize(("speed", "dtype"), [(2.4, torch.bfloat16), (1.3, torch.bfloat16), (1.2, torch.float32)])
def test_bfloat16_must_be_clearly_faster(fixed: Fixed, speed: float, dtype: torch.dtype):
    fixed(speed)
    assert native_dtype("cpu") is dtype


def test_the_choice_is_said_once(fixed: Fixed, caplog: pytest.LogCaptureFixture):
    fixed(2.4)
    with caplog.at_level(logging.INFO, logger="st_llm2vec.encoding.dtype"):
        native_dtype("cpu")
        native_dtype(torch.device("cpu"))
    (line,) = caplog.messages
    assert line.endswith("is 2.4 times as fast in bfloat16 as in float32: dtype=bfloat16")
    assert choose_dtype("cpu").reason == line


def test_a_slow_processor_is_told_so(fixed: Fixed):
    fixed(0.26)
    assert "is 0.3 times as fast in bfloat16 as in float32: dtype=float32" in choose_dtype("cpu").reason


def test_measured_once_on_a_machine(fixed: Fixed):
    taken = fixed(2.4)
    assert cpu_speed() == cpu_speed() == 2.4
    assert len(taken) == 1
    (key,) = json.loads(memory_file().read_text())
    assert precision.processor_name() in key and torch.__version__ in key
    assert [file.name for file in memory_file().parent.iterdir()] == [memory_file().name]


def test_another_torch_is_measured_anew_and_both_are_kept(fixed: Fixed, monkeypatch: pytest.MonkeyPatch):
    taken = fixed(2.4)
    cpu_speed()
    monkeypatch.setattr(torch, "__version__", "99.0")
    cpu_speed()
    assert len(taken) == 2
    assert len(json.loads(memory_file().read_text())) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"KEY": "fast"}', '{"KEY": -1}', '{"KEY": null}'])
def test_a_broken_file_is_measured_anew(fixed: Fixed, content: str):
    fixed(2.4)
    cpu_speed()
    (key,) = json.loads(memory_file().read_text())
    memory_file().write_text(content.replace("KEY", key))
    taken = fixed(0.5)
    assert cpu_speed() == 0.5 and len(taken) == 1
    assert json.loads(memory_file().read_text())[key] == 0.5


def test_a_folder_that_cannot_be_written_leaves_it_to_the_process(fixed: Fixed, home: Path):
    home.write_text("a file where a folder should be")
    taken = fixed(2.4)
    assert native_dtype("cpu") is native_dtype("cpu") is torch.bfloat16
    assert len(taken) == 1
    assert home.read_text() == "a file where a folder should be"


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_is_asked_without_emulation(native: bool, monkeypatch: pytest.MonkeyPatch):
    asked: list[bool] = []
    monkeypatch.setattr(torch.cuda, "device", lambda _: torch.inference_mode())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "A GPU")
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: asked.append(including_emulation) or native
    )
    assert native_dtype("cuda:0") is (torch.bfloat16 if native else torch.float32)
    assert asked == [False]


def test_other_devices_stay_with_float32():
    assert native_dtype("mps") is torch.float32


def test_only_auto_is_resolved(fixed: Fixed):
    taken = fixed(2.4)
    assert [resolve_dtype(one, "cpu") for one in (None, "float16", torch.float64)] == [None, "float16", torch.float64]
    assert resolve_dtype("auto", "cpu", quantized=True) is None
    assert not taken
    assert resolve_dtype("auto", "cpu") is torch.bfloat16


@pytest.mark.parametrize(("speed", "dtype"), [(2.4, torch.bfloat16), (0.3, torch.float32)])
def test_encoders_are_converted_and_loaded_in_it(
    fixed: Fixed, decoder: str, tmp_path: Path, speed: float, dtype: torch.dtype
):
    fixed(speed)
    folder = tmp_path / "half"
    convert(decoder, "llm2vec", device="cpu", dtype="float16").save(str(folder))
    assert load(folder, device="cpu").dtype is torch.float16
    assert load(folder, device="cpu", dtype="auto").dtype is dtype
    assert load(folder, device="cpu", dtype="float16").dtype is torch.float16
    assert convert(decoder, "echo", device="cpu", dtype="auto").dtype is dtype


@pytest.mark.parametrize("recipe", ["llm2vec", "e5-mistral", "echo"])
def test_vectors_that_left_the_range_of_their_type_are_refused(decoder: str, recipe: str) -> None:
    """As Gemma 3's do in float16, for some texts or all."""
    encoder = convert(decoder, recipe, device="cpu", dtype="float16")
    assert np.isfinite(encoder.encode(TEXTS)).all()
    of_clock = encoder.tokenizer.convert_tokens_to_ids("ock")
    with torch.no_grad():
        encoder.transformer.model.get_input_embeddings().weight[of_clock] = torch.inf
    with pytest.raises(ValueError, match="of 1 of 5 texts are not finite.*row 2, 'The old clock.*float16.*bfloat16"):
        encoder.encode(TEXTS)


def test_quantised_folders_keep_their_type(fixed: Fixed, decoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    taken = fixed(2.4)
    folder = tmp_path / "encoder"
    convert(decoder, "llm2vec", device="cpu").save(str(folder))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "unknown"}}))
    assert load(folder, device="cpu", dtype="auto").dtype is torch.float32  # a quantiser that is unknown is left out
    assert not taken


def test_a_corpus_is_not_finished_in_another_type(fixed: Fixed, decoder: str, tmp_path: Path):
    encoder, texts, output = tmp_path / "encoder", tmp_path / "texts.txt", tmp_path / "out"
    convert(decoder, "llm2vec", device="cpu").save(str(encoder))
    texts.write_text("One text.\nAnother text.\n")
    fixed(0.3)
    settings = EmbeddingSettings(encoder=str(encoder), dtype="auto")
    embed_corpus(open_corpus([texts]), output, settings, devices=["cpu"])
    embed_corpus(open_corpus([texts]), output, settings, devices=["cpu"])
    precision._choose.cache_clear()
    memory_file().unlink()
    fixed(2.4)
    with pytest.raises(ValueError, match="another job"):
        embed_corpus(open_corpus([texts]), output, settings, devices=["cpu"])


def test_the_command_line_says_what_auto_is(fixed: Fixed, decoder: str, tmp_path: Path):
    fixed(2.4)
    encoder = tmp_path / "encoder"
    convert(decoder, "llm2vec", device="cpu").save(str(encoder))
    shown = CliRunner().invoke(app, ["encode", str(encoder), "A text.", "--dtype", "auto"])
    assert shown.exit_code == 0, shown.stderr
    assert "is 2.4 times as fast in bfloat16 as in float32: dtype=bfloat16" in shown.stderr
    silent = CliRunner().invoke(app, ["encode", str(encoder), "A text.", "--dtype", "auto", "--json"])
    assert silent.stderr == ""
    vector = torch.tensor(json.loads(silent.stdout)["vectors"])
    assert torch.equal(vector, load(encoder, device="cpu", dtype="auto").encode(["A text."], convert_to_tensor=True))
