"""Run a plan's stages in turn, and say what each does and what it leaves on the disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from accelerate import PartialState

from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.folder.load import load
from st_llm2vec.training.named_data import TEXTS_OF, called
from st_llm2vec.training.run_folder import CHECKPOINTS
from st_llm2vec.training.stage import Stage


def run_stages(stages: Sequence[Stage], announce: Callable[[str], None] = lambda message: None) -> TextEncoder:
    """Check all stages, then run them in turn; finished ones are left as they are, an interrupted one is continued.

    What stands before a finished stage is not needed any more, and may be gone.

    Args:
        stages: At least one.
        announce: Is told, before each, what it is.

    Returns:
        The last stage's encoder.
    """
    done = max((number for number, stage in enumerate(stages, start=1) if stage.folder.finished), default=0)
    for stage in stages[done:]:
        stage.check()
    for stage in stages[done:]:
        stage.forewarn(stages[max(done - 1, 0)])
    for number, stage in enumerate(stages, start=1):
        announce(f"Stage {number} of {len(stages)}: {stage.called} {_where(stage, number < done)}")
        if number > done:
            stage.run()
    return load(stages[-1].output)


def _where(stage: Stage, passed: bool) -> str:
    """From where to where a stage goes, or what there is of it."""
    if stage.folder.finished:
        return f"is done and left as it is, in {stage.output}"
    if passed:
        return "is not needed any more, since a later one is done"
    checkpoint = stage.folder.last_checkpoint(PartialState().num_processes)
    if checkpoint:
        return f"goes on from step {checkpoint.rpartition('-')[2]}, in {stage.output}"
    texts = f", on {called(stage.data)}" if isinstance(stage.data, dict) and TEXTS_OF in stage.data else ""
    return f"from {stage.model} to {stage.output}{texts}"


def what_is_kept(stages: Sequence[Stage]) -> str:
    """Say what is on the disk of stages that were stopped.

    Args:
        stages: Those of a run.

    Returns:
        A sentence.
    """
    number, stage = next(((at, one) for at, one in enumerate(stages, 1) if not one.folder.finished), (0, stages[-1]))
    if not number:
        return "All stages are done."
    checkpoint = stage.folder.last_checkpoint(PartialState().num_processes)
    kept = (
        f"is kept up to step {checkpoint.rpartition('-')[2]}"
        if checkpoint
        else "has no checkpoint yet and begins again"
    )
    return f"Stage {number} of {len(stages)}, {stage.called}, {kept} (training.save_steps says how often one is saved)."


def what_is_left(stages: Sequence[Stage]) -> str:
    """Say what finished stages leave on the disk beside the encoder, and how much it is.

    Args:
        stages: Those of a run that is over.

    Returns:
        A sentence or two; nothing if nothing is left.
    """
    output = Path(stages[-1].output)
    folders = {
        Path(f"{output}-stages"): "the stages before it",
        output / CHECKPOINTS: "the checkpoints of its training",
    }
    left = [f"{folder} ({_size(folder)}, {what})" for folder, what in folders.items() if folder.is_dir()]
    if not left:
        return ""
    return f"Beside it are {' and '.join(left)}, which only a run that goes on reads: they may be deleted now."


def _size(folder: Path) -> str:
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.1f} GB"
