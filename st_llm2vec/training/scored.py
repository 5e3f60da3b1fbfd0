"""Training on pairs of sentences with scores: the stage for data such as STS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator, SentenceEvaluator

from st_llm2vec.data import TrainingData, check_texts
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.losses import OnePassCoSENTLoss
from st_llm2vec.training.named_data import open_scored_pairs
from st_llm2vec.training.stage import Stage

PAIR = ("sentence1", "sentence2")


class InstructedSimilarityEvaluator(EmbeddingSimilarityEvaluator):
    """The stock :class:`EmbeddingSimilarityEvaluator`, both sentences read with an instruction.

    Args:
        instruction: The bare instruction.
        **settings: Those of the stock evaluator.
    """

    def __init__(self, instruction: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.instruction = instruction

    def embed_inputs(self, model: Any, sentences: Any, **options: Any) -> Any:
        """Encode sentences with the instruction.

        Args:
            model: The encoder.
            sentences: The sentences.
            **options: As for ``encode``.

        Returns:
            Their vectors, of shape ``(sentences, dimensions)``.
        """
        return super().embed_inputs(model, sentences, prompt=self.instruction, **options)

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of it."""
        return {**super().get_config_dict(), "prompt": self.instruction}


@dataclass(kw_only=True)
class Scored(Stage):
    """Learn how alike two sentences are, by the order of scores that people gave (Sentence Transformers' ``CoSENTLoss``).

    Args:
        data: Pairs with scores, as :func:`st_llm2vec.training.named_data.open_scored_pairs` reads them.
        instruction: What both sentences are told, those of ``evaluation`` too; none if not given.
        max_length: 128 tokens.
        scale: Inverse temperature.
    """

    name: ClassVar[str] = "scored"
    # Sentence-BERT's on STS benchmark (arXiv 1908.10084, section 4.2; training_stsbenchmark.py of the authors): batch 16, 4
    # epochs, 2e-5 after a tenth of the steps of warm-up, for all weights. An adapter takes LLM2Vec's supervised 2e-4.
    arguments_of_paper: ClassVar[dict[str, Any]] = {
        "per_device_train_batch_size": 16,
        "num_train_epochs": 4,
        "max_steps": -1,
        "learning_rate": 2e-4,
        "warmup_steps": 0.1,
        "lr_scheduler_type": "linear",
    }

    instruction: str | None = None
    max_length: int | None = 128
    scale: float = 20.0

    def check_data(self) -> None:
        """Refuse pairs that are not there, or whose scores are all the same."""
        scores = set(open_scored_pairs(self.data)["score"])
        if len(scores) < 2:
            raise ValueError(
                f"All pairs of {self.data} have the score {next(iter(scores), 'none')}, and pairs are told apart by theirs: there "
                "is nothing to learn. Give pairs with different scores."
            )
        if self.batch_rows() < 2:
            raise ValueError(
                "A batch holds one pair, and pairs are told from the others of their batch: raise "
                "per_device_train_batch_size (--batch-size)."
            )
        self.pairs()

    def read(self, encoder: TextEncoder) -> TrainingData:
        """Read the pairs."""
        pairs = open_scored_pairs(self.data)
        for column in PAIR:
            check_texts(pairs, column, encoder.tokenizer, min_tokens=1)
        prompts = {} if self.instruction is None else dict.fromkeys(PAIR, self.instruction)
        return TrainingData(pairs, prompts)

    def instructions(self) -> dict[str, list[str]]:
        """What both sentences are told."""
        return {"query": [self.instruction], "document": [self.instruction]} if self.instruction else {}

    def evaluator(self, encoder: TextEncoder, loss: Any) -> SentenceEvaluator | None:
        """Make the evaluator of all stages, with the instruction if there is one."""
        if self.instruction is None or (pairs := self.pairs()) is None:
            return super().evaluator(encoder, loss)
        columns = {"sentences1": pairs["sentence1"], "sentences2": pairs["sentence2"], "scores": pairs["score"]}
        return InstructedSimilarityEvaluator(self.instruction, **columns, main_similarity="cosine", name="sts")

    def loss(self, encoder: TextEncoder, data: TrainingData) -> OnePassCoSENTLoss:
        """Make the loss."""
        return OnePassCoSENTLoss(encoder, scale=self.scale)
