"""Masked next token prediction: the stage that teaches a decoder to read in both directions."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from typing import Any, ClassVar

from accelerate import PartialState
from sentence_transformers.sentence_transformer.evaluation import SentenceEvaluator

from st_llm2vec.data import TrainingData, check_texts, pack_blocks, require_texts
from st_llm2vec.evaluation import MNTPEvaluator
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.folder.load import load
from st_llm2vec.losses import MNTPLoss, add_mask_token
from st_llm2vec.losses.masking import Masking, masking_bounds
from st_llm2vec.training.named_data import called, open_data
from st_llm2vec.training.stage import Stage

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class MNTP(Stage):
    """LLM2Vec's first training stage (arXiv 2404.05961, section 2.1 and appendix D.1.1).

    Args:
        data: Texts, as :func:`st_llm2vec.data.read_dataset` reads them.
        column: Their column.
        block_size: Tokens in a block; texts are concatenated and cut into blocks. ``None`` reads the texts as they are,
            one a row.
        mlm_probability: Share of the tokens to predict: 0.2 for LLaMA models, 0.8 for Mistral. Of a pair, such as
            ``[0.15, 0.8]``, each batch's share is drawn between the two.
        masking: ``"bert"`` for LLaMA models, ``"all_mask"`` for Mistral.
        mask_token: A token of the vocabulary, ``"eos"``, ``"own"``; or one that is not there with ``add_mask_token``.
        add_mask_token: Whether to add the mask token to the vocabulary.
        head: Where an untied output head comes from, if not from the base that the manifest names.
        train_head: Whether the head learns too.
        evaluation: Held-out texts for accuracy and perplexity while training.
    """

    name: ClassVar[str] = "mntp"
    metric: ClassVar[str] = "eval_mntp_accuracy"
    # Batch 32, 1000 steps, the trainer's own learning rate; train_configs/mntp/*.json of the authors.
    arguments_of_paper: ClassVar[dict[str, Any]] = {
        "per_device_train_batch_size": 32,
        "max_steps": 1000,
        "learning_rate": 5e-5,
        "lr_scheduler_type": "linear",
    }

    column: str = "text"
    block_size: int | None = 512
    mlm_probability: float | list[float] = 0.2
    masking: Masking = "bert"
    mask_token: str = "_"
    add_mask_token: bool = False
    head: str | None = None
    train_head: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.mlm_probability, tuple):
            self.mlm_probability = list(self.mlm_probability)
        super().__post_init__()
        masking_bounds(self.mlm_probability)
        if self.train_head and self.adapter is not None and self.adapter.quantize:
            raise ValueError(
                "train_head learns a head in the decoder's type, and adapter.quantize puts the decoder in fewer bits. Leave one "
                "of them out."
            )

    @property
    def learns_in_place(self) -> str:
        """As for every stage; a head that learns does so in the decoder's type."""
        return super().learns_in_place or ("train_head" if self.train_head else "")

    def start(self) -> TextEncoder:
        """Load or convert; with ``add_mask_token`` the encoder that has the token is saved first, as adapters need."""
        encoder = super().start()
        if self.add_mask_token and self.mask_token not in encoder.tokenizer.get_vocab():
            add_mask_token(encoder, self.mask_token)
            folder = self.folder.path / "start"
            encoder.max_seq_length = self.full_length
            if PartialState().is_main_process:
                encoder.save(str(folder))
            PartialState().wait_for_everyone()
            encoder = self.limited(load(folder, **self.loading_options()))
        return encoder

    def check_data(self) -> None:
        """Refuse texts that are not there."""
        for source in (self.data, *([] if self.evaluation is None else [self.evaluation])):
            require_texts(open_data(source), [self.column], called(source))

    def read(self, encoder: TextEncoder) -> TrainingData:
        """Read the texts and pack them."""
        rows, batch = self._rows(encoder, self.data), self.arguments().per_device_train_batch_size
        if self.block_size is not None and len(rows) < batch:
            logger.warning(
                "The texts make %d block(s) of block_size=%d tokens, fewer than the %d rows of a batch, and what is left over is "
                "not read. block_size: null trains on each text by itself.",
                len(rows),
                self.block_size,
                batch,
            )
        return TrainingData(rows, {})

    def _rows(self, encoder: TextEncoder, source: Any) -> Any:
        texts = open_data(source)
        check_texts(texts, self.column, encoder.tokenizer, every=False, where=called(source))
        texts = texts.select_columns(self.column)
        if self.block_size is None:
            return texts
        if encoder.max_seq_length is not None and self.block_size > encoder.max_seq_length:
            raise ValueError(
                f"block_size={self.block_size} is more than the encoder reads (max_length={encoder.max_seq_length}); "
                "lower the one or raise the other."
            )
        return pack_blocks(texts, encoder.tokenizer, self.block_size, self.column)

    def loss(self, encoder: TextEncoder, data: TrainingData) -> MNTPLoss:
        """Make the loss."""
        return MNTPLoss(
            encoder,
            self.mlm_probability,
            self.masking,
            self.mask_token,
            head=self.head,
            train_head=self.train_head,
            seed=self.arguments().seed,
        )

    def finish(self, *parts: Any) -> TextEncoder:
        """As every stage; the encoder that was saved for an added mask token is not needed any more."""
        encoder = super().finish(*parts)
        shutil.rmtree(self.folder.path / "start", ignore_errors=True)
        return encoder

    def evaluator(self, encoder: TextEncoder, loss: Any) -> SentenceEvaluator | None:
        """Accuracy and perplexity on the texts of ``evaluation``."""
        if self.evaluation is None:
            return None
        rows = self._rows(encoder, self.evaluation)
        column = rows.column_names[0]
        return MNTPEvaluator(loss, list(rows[column]), self.arguments().per_device_eval_batch_size)
