"""A run's folder: which run it holds, where it can be resumed, and whether it is finished."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from st_llm2vec.folder.held import held

RUN_FILE = "training_run.json"
CHECKPOINTS = "checkpoints"
# What a run may be started again with: it changes neither data nor weights.
HARMLESS = {
    "output",
    "logging_steps",
    "logging_strategy",
    "report_to",
    "run_name",
    "disable_tqdm",
    "save_steps",
    "save_total_limit",
    "log_level",
    "dataloader_num_workers",
    "dataloader_pin_memory",
    "use_cpu",
}


class RunFolder:
    """The folder that a stage trains into.

    It holds the finished encoder at its top, the trainer's checkpoints under ``checkpoints``, and ``training_run.json``
    with the run's settings, so that a run is continued and never mixed with another. Settings may change as long as there
    is no checkpoint.

    Args:
        path: The folder.
        settings: The run's settings, as plain data.
        files: The size and checksum of the local files that it reads, by path; those that were recorded and are here still
            must be the same.

    Raises:
        ValueError: If the folder holds another run, or something else.
    """

    def __init__(self, path: str | Path, settings: dict[str, Any], files: dict[str, Any] | None = None) -> None:
        self.path = Path(path)
        self.files = files or {}
        self.settings = json.loads(json.dumps(settings))
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file; give a folder for the run.")
        self._record = self._read()

    @property
    def checkpoints(self) -> Path:
        """Where the trainer's checkpoints go."""
        return self.path / CHECKPOINTS

    @property
    def finished(self) -> bool:
        """Whether the run is complete and its encoder saved."""
        return bool(self._record.get("finished"))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for this process.

        The lock stands beside the folder, which is replaced when the encoder is saved.

        Raises:
            ValueError: If another process trains into it.
        """
        beside = self.path.absolute().parent
        beside.mkdir(parents=True, exist_ok=True)
        file = beside / f".{self.path.name}.lock" if os.access(beside, os.W_OK) else self.path / ".lock"
        with held(self.path, "training into", file):
            try:
                yield
            finally:
                file.unlink(missing_ok=True)

    def claim(self) -> None:
        """Write the run's settings into the folder."""
        if not self._record:
            self._write(finished=False)

    def finish(self) -> None:
        """Note that the encoder is saved."""
        self._write(finished=True)

    def last_checkpoint(self, processes: int = 1) -> str | None:
        """The last checkpoint that was written to its end, or ``None``.

        The trainer's state is the last file that a checkpoint gets from its main process, and each process writes its
        random state: a checkpoint that was interrupted lacks one of them.

        Args:
            processes: How many processes train.

        Raises:
            ValueError: If there are complete checkpoints, but of another number of processes.
        """
        counts = {folder: _processes(folder) for folder in self.checkpoints.glob(f"{PREFIX_CHECKPOINT_DIR}-*")}
        steps = {folder.name.rpartition("-")[2]: folder for folder, count in counts.items() if count == processes}
        found = [(int(step), str(folder)) for step, folder in steps.items() if step.isdigit()]
        others = set(counts.values()) - {0, processes}
        if others and not found:
            raise ValueError(
                f"The checkpoints in {self.checkpoints} were made by {max(others)} processes, and there are {processes} "
                "now; a run continues with as many as it began with. Start as many, or give another folder."
            )
        return max(found)[1] if found else None

    def _read(self) -> dict[str, Any]:
        file = self.path / RUN_FILE
        if not file.is_file():
            if self.path.is_dir() and any(not one.name.startswith(".") for one in self.path.iterdir()):
                raise ValueError(
                    f"{self.path} is not empty and holds no training run; give an empty or a new folder for the run."
                )
            return {}
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            settings = record["settings"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} cannot be read ({error}); give another folder, or remove this one.") from error
        differences = _differences(settings, self.settings) + _changed_files(record.get("files", {}), self.files)
        if differences and not (record.get("finished") or any(self.checkpoints.glob("*"))):
            return {}
        if differences:
            raise ValueError(
                f"{self.path} holds another run: {'; '.join(differences[:3])}. Give another folder, or remove this one."
            )
        self.files = {**record.get("files", {}), **self.files}
        return record

    def _write(self, *, finished: bool) -> None:
        self._record = {"settings": self.settings, "files": self.files, "finished": finished}
        self.path.mkdir(parents=True, exist_ok=True)
        staging = self.path / f".{RUN_FILE}"
        staging.write_text(json.dumps(self._record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(staging, self.path / RUN_FILE)


def was_over(checkpoint: str) -> bool:
    """Whether training had come to its end when the checkpoint was written."""
    state = json.loads((Path(checkpoint) / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    control = state.get("stateful_callbacks", {}).get("TrainerControl", {}).get("args", {})
    return bool(control.get("should_training_stop"))


def _processes(folder: Path) -> int:
    """How many processes wrote the checkpoint, 0 if it is torn."""
    try:
        json.loads((folder / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
    if not (folder / "modules.json").is_file():
        return 0
    if (folder / "rng_state.pth").is_file():
        return 1
    ranks = {file.name for file in folder.glob("rng_state_*.pth")}
    whole = len(ranks) > 1 and ranks == {f"rng_state_{rank}.pth" for rank in range(len(ranks))}
    return len(ranks) if whole else 0


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for name in sorted({*before, *now} - HARMLESS):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(f"{prefix}{name} was {old!r} and is {new!r} now")
    return found


def _changed_files(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Files that are not what they were; one that is gone is no other data."""
    changed = [f"the file {name} has changed since" for name, one in now.items() if before.get(name, one) != one]
    return changed + [f"the file {name} was not read then" for name in now if before and name not in before]
