"""A stage of training: from an encoder or a decoder in a folder to a better encoder in another."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from functools import cached_property
from typing import Any, cast

import torch
from accelerate import PartialState
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator, SentenceEvaluator
from torch import nn
from transformers import PrinterCallback, ProgressCallback, set_seed

from st_llm2vec.conversion.convert import convert
from st_llm2vec.data import TrainingData
from st_llm2vec.encoding.dtype import AUTO, slower_in
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.folder.load import load
from st_llm2vec.folder.merge import Merge, merge, type_name
from st_llm2vec.folder.weights import learned_beside_quantized
from st_llm2vec.inspection import is_encoder
from st_llm2vec.modules.adapter import has_adapter
from st_llm2vec.proof.tolerances import FULL_PRECISION
from st_llm2vec.recipe.config import get_recipe
from st_llm2vec.training.adapters import attach_adapter, body_weights, interpolate
from st_llm2vec.training.callbacks import (
    LogAtCheckpoints,
    ProgressLines,
    StopAtNonFinite,
    Throughput,
    WarnOfShortRun,
    warn_of_short_run,
)
from st_llm2vec.training.kept_instruction import kept_instruction
from st_llm2vec.training.named_data import describe_files, open_scored_pairs
from st_llm2vec.training.record import stage_record
from st_llm2vec.training.report import write_report
from st_llm2vec.training.run_folder import RunFolder
from st_llm2vec.training.settings import check_loggers
from st_llm2vec.training.stage_settings import HALF_PRECISION, StageSettings
from st_llm2vec.training.trainer_run import TrainingError, train_from

logger = logging.getLogger(__name__)


class Stage(StageSettings):
    """What all stages do; a stage of its own says what it reads (``check_data``, ``read``) and what it learns by (``loss``).

    Its settings are those of :class:`StageSettings`.
    """

    _forewarned = False

    # What a stage of its own says ------------------------------------------------------------------------

    def check_data(self) -> None:
        """Refuse data that is not there."""
        raise NotImplementedError

    def read(self, encoder: TextEncoder) -> TrainingData:
        """Read and check the data, before any training time is spent."""
        raise NotImplementedError

    def loss(self, encoder: TextEncoder, data: TrainingData) -> nn.Module | dict[str, nn.Module]:
        """Make the loss, or one for each dataset."""
        raise NotImplementedError

    def evaluator(self, encoder: TextEncoder, loss: Any) -> SentenceEvaluator | None:
        """Make the evaluator that runs while training: Spearman correlation on the pairs of ``evaluation``."""
        if (pairs := self.pairs()) is None:
            return None
        return EmbeddingSimilarityEvaluator(
            pairs["sentence1"], pairs["sentence2"], pairs["score"], main_similarity="cosine", name="sts"
        )

    def pairs(self) -> Dataset | None:
        """Read the pairs to evaluate on, if there are any.

        Raises:
            ValueError: If the file holds no such pairs.
        """
        return None if self.evaluation is None else open_scored_pairs(self.evaluation)

    @property
    def folder(self) -> RunFolder:
        """The run's folder."""
        return RunFolder(self.output, self.to_dict(), self.files_read)

    @cached_property
    def files_read(self) -> dict[str, Any]:
        """The local files of data and evaluation, as they are before the run."""
        return describe_files(self.data) | describe_files(self.evaluation)

    # The life of a run, in order -------------------------------------------------------------------------

    def check(self) -> None:
        """Refuse what can be refused before anything is loaded: settings, the folder of another run, lost data.

        Raises:
            ValueError: If something is not what it should be.
        """
        arguments = self.arguments()
        check_loggers(cast("list[str]", arguments.report_to))
        get_recipe(self.recipe).replace(**self.changes)
        if self.keeps_best and arguments.save_steps != arguments.eval_steps:
            raise ValueError(
                "To keep the best checkpoint, evaluate and save at the same steps; "
                f"eval_steps is {arguments.eval_steps} and save_steps {arguments.save_steps}."
            )
        if not self.folder.finished:
            self.check_data()

    def run(self) -> TextEncoder:
        """Train, or continue where an interrupted run stopped, and save the encoder.

        Returns:
            The trained encoder, without an adapter, as it stands in ``output``.

        Raises:
            ValueError: If data, settings or folder are not what they should be, or are in use; nothing has been trained then.
            TrainingError: If the best checkpoint could not be read back, or the adapter not be merged.
        """
        mine = PartialState().is_main_process and not self.folder.finished
        with self.folder.held() if mine else nullcontext():
            if not self.begin():
                return load(self.output)
            encoder = self.start()
            data = self.read(encoder)
            self.attach(encoder)
            return self.train(self.trainer(encoder, data), data)

    def begin(self) -> bool:
        """Check the stage and claim its folder.

        Returns:
            Whether there is something left to do: false if the folder holds the finished run.

        Raises:
            ValueError: If data, settings or folder are not what they should be.
        """
        self.check()
        with PartialState().main_process_first():
            self.folder.claim()
        if self.folder.finished:
            return False
        if not self._forewarned:
            self.forewarn(self)
        return True

    def forewarn(self, first: Stage) -> None:
        """Say once, before anything is trained, what of the settings is hardly meant.

        Args:
            first: The stage that the run begins with, of those that are not over.
        """
        self._forewarned = True
        arguments = self.arguments()
        if arguments.save_only_model:
            logger.warning("%s: with save_only_model an interrupted run begins again, at its first step.", self.called)
        warn_of_short_run(self.called, arguments.max_steps, arguments.get_warmup_steps(arguments.max_steps))

    def kept_instruction(self, role: str = "query") -> str | None:
        """The instruction that the encoder keeps for queries or documents, as the folder says that the stage begins with, or
        the recipe."""
        model = self.output if self.folder.finished else self.model
        return kept_instruction(model, get_recipe(self.recipe).replace(**self.changes), role)

    def start(self) -> TextEncoder:
        """Load the encoder, or convert the decoder, with every random draw seeded."""
        set_seed(self.arguments().seed)
        encoder = self._loaded(**self.loading_options())
        if encoder.manifest is None:
            raise ValueError(
                f"{self.model} has no st_llm2vec.json, which says what the encoder is; plain Sentence Transformers does not "
                "keep it. Start from the folder that this package saved."
            )
        if has_adapter(encoder.transformer.model):
            raise ValueError(
                f"{self.model} holds an adapter beside its base. Merge it first: encoder = st_llm2vec.load(folder); "
                "st_llm2vec.training.merge_adapter(encoder); encoder.save(another folder)."
            )
        slower = slower_in(encoder.transformer.model.dtype, self.arguments().device)
        if slower:
            logger.warning("%s is in %s: --dtype float32 (in a plan dtype: float32) trains faster.", self.model, slower)
        return self.limited(encoder)

    def _loaded(self, **options: Any) -> TextEncoder:
        if is_encoder(self.model):
            if self.changes:
                raise ValueError(f"{self.model} is an encoder; changes of the recipe are for decoders. Leave them out.")
            return load(self.model, **options)
        return convert(self.model, get_recipe(self.recipe), measure=False, **options, **self.changes)

    def limited(self, encoder: TextEncoder) -> TextEncoder:
        """Set the longest input of the training run."""
        self.full_length = encoder.max_seq_length
        if self.max_length is not None:
            encoder.max_seq_length = self.max_length
        return encoder

    def attach(self, encoder: TextEncoder) -> None:
        """Attach the adapter if there is one to train; else keep the weights to interpolate with, if that is asked for.

        Raises:
            ValueError: If the adapter does not fit, or could not be merged when it is trained.
        """
        if self.adapter is None:
            self._start_weights = body_weights(encoder) if self.interpolation < 1 else None
            return
        model: Any = encoder.transformer.model
        if self.adapter.quantize is None and getattr(model, "is_quantized", False):
            raise ValueError(
                f"The weights of {self.model} are quantised, and no adapter can be merged into them at the end. Start from "
                "the decoder in bfloat16; adapter: {quantize: nf4} quantises it for the training alone."
            )
        attach_adapter(encoder, self.adapter)
        if self.dtype not in HALF_PRECISION and model.dtype not in FULL_PRECISION:
            logger.warning(
                "The decoder is in %s and its adapter in float32. They are merged in float32 at the end, and the encoder "
                "is saved in %s if that keeps what was learned, in float32 if not.",
                type_name(model.dtype),
                type_name(model.dtype),
            )
        elif self.dtype in HALF_PRECISION:
            logger.warning(
                "The encoder will be saved in %s, as dtype says, which keeps little of a short training; what it keeps is "
                "measured at the end. Without dtype, the type is chosen that keeps what was learned.",
                self.dtype,
            )

    def trainer(self, encoder: TextEncoder, data: TrainingData) -> SentenceTransformerTrainer:
        """The stock trainer with this stage's parts."""
        loss = self.loss(encoder, data)
        evaluator = self.evaluator(encoder, loss)
        trainer = SentenceTransformerTrainer(
            model=encoder,
            args=self.arguments(data, evaluator),
            train_dataset=data.dataset,
            loss=loss,
            evaluator=evaluator,
            callbacks=self.callbacks(),
        )
        trainer.add_callback(StopAtNonFinite(trainer.loss))
        trainer.add_callback(LogAtCheckpoints())
        trainer.add_callback(WarnOfShortRun(self.called))
        if trainer.pop_callback(PrinterCallback) or trainer.pop_callback(ProgressCallback):
            trainer.add_callback(ProgressLines(self.stop_after, self.metric))
        return trainer

    def train(self, trainer: SentenceTransformerTrainer, data: TrainingData) -> TextEncoder:
        """Train, from the last checkpoint if there is one, then finish on the main process.

        Args:
            trainer: The trainer of this stage's encoder.
            data: What it trains on.

        Returns:
            The encoder that was saved.

        Raises:
            TrainingError: If the best checkpoint could not be read back.
        """
        processes = PartialState()
        # Before the loggers, so that they all see its number.
        trainer.callback_handler.callbacks.insert(0, Throughput(trainer.model))
        train_from(trainer, self.folder.last_checkpoint(processes.num_processes))
        encoder = cast("TextEncoder", trainer.model)
        if processes.is_main_process:
            encoder = self.finish(encoder, trainer, data)
            self.folder.finish()
        processes.wait_for_everyone()
        return encoder if processes.is_main_process else load(self.output)

    def finish(self, encoder: TextEncoder, trainer: SentenceTransformerTrainer, data: TrainingData) -> TextEncoder:
        """Merge, interpolate, record what was trained on what, and save; returns what was saved."""
        trainer.accelerator.unwrap_model(encoder, keep_fp32_wrapper=False)  # no autocast from here on
        record = stage_record(self, trainer, data)
        if self.adapter is not None:
            if self.adapter.quantize is not None:
                encoder = self._unquantized(encoder)
            record |= {"merged": True, **self._merge(encoder).to_dict()}
        elif self._start_weights is not None:
            interpolate(encoder, self._start_weights, self.interpolation)
        assert encoder.manifest is not None
        encoder.manifest.stages.append(record)
        encoder.max_seq_length = self.full_length
        encoder.save(self.output)
        write_report(self.output, encoder.manifest.stages, trainer.state.log_history, self.metric, self.folder.files)
        return encoder

    def _merge(self, encoder: TextEncoder) -> Merge:
        """Merge the adapter, in the type that was asked for or the one that keeps what it learned."""
        dtype = getattr(torch, self.dtype) if self.dtype not in (None, AUTO) else None
        try:
            return merge(encoder, dtype=dtype, share=self.interpolation)
        except ValueError as error:
            kept = self.folder.last_checkpoint(PartialState().num_processes)
            where = f" The trained encoder is in {kept}, its adapter apart." if kept else ""
            raise TrainingError(f"{error}{where}") from error

    def _unquantized(self, encoder: TextEncoder) -> TextEncoder:
        """The same encoder and adapter over the decoder's full weights, since 4-bit ones cannot take the update."""
        full = self._loaded(**{**self.loading_options(), "quantization_config": None})
        self.attach(full)
        learned = learned_beside_quantized(encoder.state_dict(), encoder.transformer.model)
        lost = full.load_state_dict(learned, strict=False).unexpected_keys
        if lost:
            raise TrainingError(f"The full decoder has no place for {lost[0]}, which the quantised one trained.")
        return full
