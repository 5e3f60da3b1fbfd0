"""QLoRA: an adapter over 4-bit weights, resumed, and merged into the full ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from st_llm2vec import convert, load
from st_llm2vec.training import Adapter, SimCSE

from ..conftest import TEXTS, cosine_distance

pytest.importorskip("bitsandbytes", reason="QLoRA needs bitsandbytes: pip install bitsandbytes")


def test_train_resume_and_merge(tiny: Callable[..., str], tmp_path: Path, texts_file: str) -> None:
    decoder = tiny("llama", hidden_size=128, intermediate_size=256)

    def stage(name: str) -> SimCSE:
        return SimCSE(
            model=decoder,
            output=str(tmp_path / name),
            data=texts_file,
            max_length=32,
            adapter=Adapter(r=4, quantize="nf4"),
            training={"max_steps": 3, "per_device_train_batch_size": 4, "save_steps": 1, "learning_rate": 1e-2}
            | {"use_cpu": True, "disable_tqdm": True},
        )

    assert stage("whole").start().transformer.model.is_quantized
    encoder = stage("whole").run()
    assert encoder.manifest.stages[-1]["merge_distance"] < 1e-5
    assert cosine_distance(load(tmp_path / "whole").encode(TEXTS), encoder.encode(TEXTS)) < 1e-6
    assert cosine_distance(convert(decoder, "llm2vec").encode(TEXTS), encoder.encode(TEXTS)) > 1e-4
    torn = stage("torn")
    torn.folder.claim()
    shutil.copytree(tmp_path / "whole/checkpoints/checkpoint-1", tmp_path / "torn/checkpoints/checkpoint-1")
    torn.run()
    # bitsandbytes' kernels on a CPU round differently before and after a save, so this is close and not exact.
    moved = cosine_distance(convert(decoder, "llm2vec").encode(TEXTS), encoder.encode(TEXTS))
    assert cosine_distance(load(tmp_path / "torn").encode(TEXTS), encoder.encode(TEXTS)) < 0.01 * moved
