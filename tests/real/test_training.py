"""Training on real decoders, stored in bfloat16: what is saved is what was learned, and continued runs are the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from st_llm2vec import convert, load
from st_llm2vec.training import Adapter, SimCSE

from ..conftest import TEXTS, cosine_distance

pytestmark = pytest.mark.real

TRAINING = {
    "max_steps": 2,
    "per_device_train_batch_size": 2,
    "save_steps": 1,
    "warmup_steps": 0,
    "use_cpu": True,
    "disable_tqdm": True,
}


@pytest.fixture
def texts_file(tmp_path: Path) -> str:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join([*TEXTS, *(text[::-1] for text in TEXTS)]) + "\n")
    return str(path)


def test_a_short_run_keeps_what_it_learned_and_continues_to_the_bit(
    real_decoder: str, tmp_path: Path, texts_file: str
) -> None:
    def stage(name: str) -> SimCSE:
        return SimCSE(
            model=real_decoder,
            output=str(tmp_path / name),
            data=texts_file,
            max_length=8,
            adapter=Adapter(r=4),
            training=TRAINING,
        )

    stage("whole").run()
    stage("torn").folder.claim()
    shutil.copytree(tmp_path / "whole/checkpoints/checkpoint-1", tmp_path / "torn/checkpoints/checkpoint-1")
    stage("torn").run()
    whole, continued = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "torn"))
    assert whole == continued
    record = load(tmp_path / "whole").manifest.stages[-1]
    assert record["weights"] == "float32" and record["update_kept"]["bfloat16"] < 0.9
    unmerged = load(tmp_path / "whole/checkpoints/checkpoint-2", dtype=torch.float32)
    start = convert(real_decoder, "llm2vec", dtype=torch.float32, measure=False).encode(TEXTS)
    plain = SentenceTransformer(str(tmp_path / "whole"))
    unmerged.max_seq_length = plain.max_seq_length  # a checkpoint reads as its stage trains, 8 tokens
    found = [np.asarray(model.encode(TEXTS), dtype=np.float64) for model in (plain, unmerged)]
    assert cosine_distance(*found) < 1e-6
    moves = [vectors - start for vectors in found]
    assert cosine_distance(*moves) < 1e-3
