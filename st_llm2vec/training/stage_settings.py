"""What a stage of training is told: its fields, what they may be together, and the trainer's arguments and callbacks that follow."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from accelerate import PartialState
from datasets import DatasetDict
from sentence_transformers import SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.evaluation import SentenceEvaluator
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.trainer_pt_utils import AcceleratorConfig

from st_llm2vec.data import TrainingData
from st_llm2vec.encoding.dtype import AUTO
from st_llm2vec.training.adapters import Adapter
from st_llm2vec.training.batches_by_source import BatchesBySource
from st_llm2vec.training.callbacks import StopAfter
from st_llm2vec.training.named_data import plain
from st_llm2vec.training.run_folder import CHECKPOINTS
from st_llm2vec.training.settings import NAMES_ELSEWHERE, UNREAD, build_arguments, check_fields, put_on_top

HALF_PRECISION = ("bfloat16", "float16", "half")


@dataclass(kw_only=True)
class StageSettings:
    """What every stage is told.

    Args:
        model: Where to start: a folder or Hub name of an encoder, or of a decoder, which is converted first.
        output: The run's folder; the trained encoder ends up in it.
        data: What to train on; see the stage.
        recipe: How a decoder is converted: a recipe's name, a YAML file or a mapping of fields.
        changes: Fields of the recipe that differ, e.g. ``{"max_length": 128}``.
        adapter: The LoRA adapter to train and merge at the end; ``None`` trains all weights.
        max_length: Longest input in tokens while training; the encoder's own if not given.
        evaluation: Sentence pairs with scores to evaluate on while training, as :func:`st_llm2vec.data.read_dataset`
            reads them, with the columns ``sentence1``, ``sentence2`` and ``score``; under other names where there are two
            columns of texts and one of numbers. ``"stsb"`` is the development part of the STS benchmark, from the Hub.
        keep_best: Whether the result is the checkpoint with the best score, and not the last one; with patience by default.
        patience: Evaluations without a better score before training stops, and the best checkpoint is kept; ``None`` trains
            to the end.
        stop_after: Steps after which to stop, where the learning rate is planned for a longer run.
        interpolation: Share of the trained weights in the result; the rest is those that this stage began with, which in a
            pipeline's first stage is the decoder.
        dtype: Weights' type, e.g. ``"bfloat16"``, while training and in the result. If not given, the decoder trains in
            its stored type beside an adapter, the result is saved in that type where it keeps what was learned and in
            float32 where not; without an adapter all is in float32.
        attn_implementation: ``"sdpa"``, ``"eager"`` or ``"flash_attention_2"``; Transformers' choice if not given.
        training: Fields of ``SentenceTransformerTrainingArguments`` that differ from :attr:`arguments_of_paper`.
        preset: The name of the preset that the settings come from (:mod:`st_llm2vec.training.presets`).
    """

    name: ClassVar[str]
    metric: ClassVar[str] = "eval_sts_spearman_cosine"
    arguments_of_paper: ClassVar[dict[str, Any]] = {}

    model: str
    output: str
    data: Any
    recipe: str | dict[str, Any] = "llm2vec"
    changes: dict[str, Any] = field(default_factory=dict)
    adapter: Adapter | None = field(default_factory=Adapter)
    max_length: int | None = None
    evaluation: Any = None
    keep_best: bool | None = None
    patience: int | None = None
    stop_after: int | None = None
    interpolation: float = 1.0
    dtype: str | None = None
    attn_implementation: str | None = None
    training: dict[str, Any] = field(default_factory=dict)
    preset: str | None = None

    def __post_init__(self) -> None:
        self.model, self.output = str(self.model), str(self.output)
        self.dtype = self.dtype.removeprefix("torch.") if isinstance(self.dtype, str) else self.dtype
        self.data, self.evaluation = plain(self.data), plain(self.evaluation)
        if isinstance(self.adapter, dict):
            check_fields(Adapter, self.adapter, "The adapter does not have these settings")
            own = next(one for one in dataclasses.fields(self) if one.name == "adapter").default_factory
            self.adapter = dataclasses.replace(own(), **self.adapter)  # what is left out is as in the stage's paper
        if not isinstance(self.adapter, Adapter | None):
            raise ValueError(
                f"adapter is {self.adapter!r}; it must be a mapping of its settings, such as {{r: 16}}, or nothing (null)."
            )
        fields = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        check_fields(type(self), fields, f"The stage {self.called} does not have these settings")
        if not 0 <= self.interpolation <= 1:
            raise ValueError(f"interpolation is {self.interpolation}; the share must be between 0 and 1.")
        needs = {
            "patience": self.patience is not None,
            "keep_best": self.keep_best,
            "training.eval_strategy": self.training.get("eval_strategy", "no") != "no",
        }
        asked = next((name for name, wanted in needs.items() if wanted), None)
        if asked and self.evaluation is None:
            raise ValueError(f"{asked} needs an evaluation: name the pairs, or the texts, to evaluate on.")
        if self.learns_in_place and self.dtype in HALF_PRECISION:
            raise ValueError(
                f"With {self.learns_in_place} the decoder's own type holds what is learned, and dtype={self.dtype} would "
                "round most of an optimizer's steps away. Leave dtype out, which trains in float32; training: {bf16: true} "
                "computes in bfloat16 all the same."
            )
        for name in UNREAD:
            if name in self.training:
                raise ValueError(f"training.{name} is not read: {NAMES_ELSEWHERE[name]}. Leave it out.")
        if self.training.get("push_to_hub"):
            raise ValueError(
                "training.push_to_hub would upload checkpoints as they are, unverified and with adapters apart from a base "
                "that others may not have. Leave it out and publish the finished encoder: st-llm2vec publish "
                f"{self.output} {self.training.get('hub_model_id') or 'org/name'}"
            )

    @property
    def learns_in_place(self) -> str:
        """The setting by which weights learn that are in the decoder's own type, and not an adapter's; empty without."""
        return "adapter: null" if self.adapter is None else ""

    @property
    def keeps_best(self) -> bool:
        """Whether the result is the checkpoint with the best score."""
        return self.patience is not None if self.keep_best is None else self.keep_best

    def batch_rows(self) -> int:
        """The rows of a batch that are compared: of all processes, where their texts are gathered."""
        return int(self.arguments().train_batch_size)

    def loading_options(self) -> dict[str, Any]:
        """How the weights are loaded: their type, attention implementation and quantisation."""
        in_float32 = self.learns_in_place and self.dtype in (None, AUTO)
        return {
            "dtype": "float32" if in_float32 else self.dtype,
            "attn_implementation": self.attn_implementation,
            "quantization_config": self.adapter.quantization_config() if self.adapter is not None else None,
        }

    def arguments(
        self, data: TrainingData | None = None, evaluator: SentenceEvaluator | None = None
    ) -> SentenceTransformerTrainingArguments:
        """The trainer's arguments: the paper's, the data's instructions and the evaluation's, with this run's on top."""
        given: dict[str, Any] = {
            "output_dir": str(Path(self.output) / CHECKPOINTS),
            "logging_steps": 10,
            "report_to": "none",
            "dataloader_pin_memory": torch.accelerator.is_available(),  # else PyTorch warns of it, run by run
            **self.arguments_of_paper,
        }
        if data is not None and data.prompts:
            given["prompts"] = data.prompts
        if data is not None and given.get("batch_sampler") == "no_duplicates":
            # Rows that are not told from each other may have texts in common.
            told_apart = set(data.in_batch_negatives.values())
            if told_apart == {False}:
                del given["batch_sampler"]
            elif told_apart == {False, True} and isinstance(data.dataset, DatasetDict):
                given["batch_sampler"] = BatchesBySource(data.in_batch_negatives)
        if evaluator is not None:
            given |= {"eval_strategy": "steps", "eval_on_start": True}
            given |= {"metric_for_best_model": self.metric, "greater_is_better": True}
            given["load_best_model_at_end"] = self.keeps_best
        if self.patience is not None:
            given["restore_callback_states_from_checkpoint"] = True
        if self.keeps_best:
            given["save_strategy"] = self.training.get("eval_strategy", "steps")
            steps = self.training.get("eval_steps", self.training.get("logging_steps", given["logging_steps"]))
            given["eval_steps"] = given["save_steps"] = steps
        made = build_arguments(put_on_top(given, self.training), (one.name for one in dataclasses.fields(self)))
        together = PartialState().num_processes if getattr(self, "gather_across_devices", False) else 1
        if together > 1:
            # One batch is drawn for all processes and split, so that what they compare is of one source, and no text twice.
            made.per_device_train_batch_size *= together
            cast("AcceleratorConfig", made.accelerator_config).split_batches = True
        return made

    def callbacks(self) -> list[TrainerCallback]:
        """Early stopping, and the stop short of the learning rate's horizon."""
        found: list[TrainerCallback] = []
        if self.patience is not None:
            found.append(EarlyStoppingCallback(self.patience))
        if self.stop_after is not None:
            found.append(StopAfter(self.stop_after))
        return found

    @property
    def called(self) -> str:
        """The name of its preset, if it has one, or else its own."""
        return self.preset or self.name

    def instructions(self) -> dict[str, list[str]]:
        """The bare instructions of what it trains on, of ``query`` and ``document``; for the record."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain data."""
        settings = dataclasses.asdict(self)
        del settings["preset"]
        return {"stage": self.called, **settings}
