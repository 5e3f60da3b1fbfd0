"""Run by ``test_resume.py``: a run that is whole, and one that kills itself at each moment and is started again.

All are forks of this process, which imports for all of them. Prints how each ended, and whether it left an encoder.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback
from transformers.trainer import Trainer

from st_llm2vec import convert, decoder_path
from st_llm2vec.training import MNTP, Distillation, SimCSE, Stage
from tests.kills import killed_at

torch.set_num_threads(1)
TRAINING = {
    "max_steps": 7,
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-3,
    "save_steps": 2,
    "logging_steps": 1,
    "use_cpu": True,
    "disable_tqdm": True,
}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DieAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            die()


def train(kind: str, output: str, texts: str, moment: str) -> None:
    made: dict[str, Stage] = {
        "mntp": MNTP(model=decoder_path(), output=output, data=texts, block_size=24, training=TRAINING),
        "simcse": SimCSE(model=decoder_path(), output=output, data=texts, max_length=32, training=TRAINING),
    }
    if kind == "distillation":
        taught_by = str(Path(texts).with_name("teacher"))  # whose vectors are kept beside it
        os.environ["XDG_CACHE_HOME"] = str(Path(texts).parent)
        if not Path(taught_by).exists():
            convert(decoder_path(), "sgpt", measure=False).save(taught_by)
        made[kind] = Distillation(model=decoder_path(), output=output, data=texts, teacher=taught_by, training=TRAINING)
    stage = made[kind]
    if moment.isdigit():
        callbacks = stage.callbacks
        stage.callbacks = lambda: [*callbacks(), DieAt(int(moment))]
    elif moment.startswith("saving"):  # weights written, the trainer's state not yet
        save_rng_state = Trainer._save_rng_state

        def save(self: Any, folder: str) -> None:
            if Path(folder).name == f"checkpoint-{moment.removeprefix('saving')}":
                die()
            save_rng_state(self, folder)

        Trainer._save_rng_state = save
    elif moment == "finishing":
        stage.finish = lambda *arguments: die()
    stage.run()


def main(kind: str, folder: str, texts: str, *moments: str) -> None:
    ends = []
    for name, moment in [("whole", "never"), *(("killed", moment) for moment in (*moments, "never"))]:
        output = Path(folder) / name
        child = os.fork()
        if not child:
            train(kind, str(output), texts, moment)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        ends.append((status, (output / "modules.json").exists()))
    sys.stdout.write(json.dumps(ends))


def kill_often(kind: str, folder: str, texts: str, kills: str) -> None:
    """Kill runs at changes of the disk drawn at random, and start each again until it is whole."""
    train_alone(kind, f"{folder}/whole", texts)
    moments, killed, finished = np.random.default_rng(18), 0, 0
    while killed < int(kills):
        output = f"{folder}/killed{finished}"
        while killed_at(
            int(10 ** moments.uniform(0, 3)), lambda output=output: train(kind, output, texts, "never"), folder
        ):
            killed += 1
        finished += 1
    sys.stdout.write(json.dumps([killed, finished]))


def train_alone(kind: str, output: str, texts: str) -> None:
    killed_at(sys.maxsize, lambda: train(kind, output, texts, "never"))


if __name__ == "__main__":
    kill_often(*sys.argv[2:]) if sys.argv[1] == "often" else main(*sys.argv[1:])
