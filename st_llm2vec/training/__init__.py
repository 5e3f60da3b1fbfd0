"""Stages of training, each from a folder to a folder, and pipelines of them."""

from st_llm2vec.training.adapters import Adapter, attach_adapter, interpolate, merge_adapter
from st_llm2vec.training.callbacks import StopAtNonFinite
from st_llm2vec.training.distillation import Distillation
from st_llm2vec.training.mntp import MNTP
from st_llm2vec.training.pipeline import build_stages, read_plan
from st_llm2vec.training.presets import PRESETS, STAGES, build_stage
from st_llm2vec.training.run_plan import run_stages
from st_llm2vec.training.scored import Scored
from st_llm2vec.training.simcse import SimCSE
from st_llm2vec.training.stage import Stage
from st_llm2vec.training.supervised import Supervised
from st_llm2vec.training.trainer_run import TrainingError

__all__ = [
    "MNTP",
    "PRESETS",
    "STAGES",
    "Adapter",
    "Distillation",
    "Scored",
    "SimCSE",
    "Stage",
    "StopAtNonFinite",
    "Supervised",
    "TrainingError",
    "attach_adapter",
    "build_stage",
    "build_stages",
    "interpolate",
    "merge_adapter",
    "read_plan",
    "run_stages",
]
