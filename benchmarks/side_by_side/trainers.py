"""Subjects that train: a step of a loss on a plain, padded encoder or on this library's."""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import CoSENTLoss, MultipleNegativesRankingLoss
from sentence_transformers.util import batch_to_device
from torch import Tensor, nn

import st_llm2vec
from benchmarks.side_by_side.encoders import dtype_name, require, torch_dtype
from st_llm2vec.losses import HardNegativesRankingLoss, MNTPLoss, OnePassCoSENTLoss, SimCSELoss

SCALE = 20.0
# LLM2Vec's adapter: rank 16, alpha 32, dropout 0.05, on all linear layers
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTER = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "target_modules": TARGETS, "bias": "none"}


class Trainer:
    """An encoder with a LoRA adapter, a loss and AdamW.

    Args:
        folder: The encoder.
        ours: Whether this library loads it, and its losses are used; otherwise plain Sentence Transformers and the stock
            losses. Masked next token prediction has no stock loss: both use this library's, padded on a plain encoder.
        task: ``"simcse"``, ``"supervised"``, ``"scored"`` or ``"mntp"``, whatever follows it.
        dtype: Type of the frozen weights; the adapter's are float32.
        device: Where.
    """

    def __init__(self, folder: str, ours: bool, task: str, dtype: str, device: str = "cpu") -> None:
        require(device)
        if ours:
            self.model: Any = st_llm2vec.load(folder, dtype=torch_dtype(dtype), device=device)
        else:
            self.model = SentenceTransformer(folder, device=device, model_kwargs={"dtype": torch_dtype(dtype)})
        torch.manual_seed(0)
        self.model.add_adapter(LoraConfig(**ADAPTER))
        self.learned = [(name, weight) for name, weight in self.model.named_parameters() if "lora_" in name]
        for name, weight in self.learned:
            weight.data = weight.data.float()
            if "lora_B" in name:  # as after some steps; fresh ones are zero, and give lora_A no gradient
                nn.init.normal_(weight, std=0.01)
        self.model.train()
        self.ours, self.task = ours, task
        self.passes = 2 if ours and task == "simcse" else 1  # of a column, which the stock loss gets twice instead
        self.loss = self._loss()
        self.optimizer = torch.optim.AdamW([weight for _, weight in self.learned], lr=1e-4)
        self.about = {"dtype": dtype_name(self.model.dtype)}

    def _loss(self) -> nn.Module:
        if self.task.startswith("mntp"):
            return MNTPLoss(self.model)
        if self.ours and self.task == "simcse":
            return SimCSELoss(self.model, scale=SCALE, attention_dropout=None)
        if self.task == "scored":
            return (OnePassCoSENTLoss if self.ours else CoSENTLoss)(self.model, scale=SCALE)
        if self.ours:
            return HardNegativesRankingLoss(self.model, scale=SCALE)
        return MultipleNegativesRankingLoss(self.model, scale=SCALE)

    def touch(self) -> None:
        with torch.no_grad():
            self.model(self._features(["One text."]))

    def prepare(self, rows: str, number: int, batch: int, check: bool = False) -> Any:
        """A step on a batch; ``check`` computes loss and gradients only, without dropout."""
        read = json.loads(Path(rows).read_text(encoding="utf-8"))["texts"][number * batch : (number + 1) * batch]
        columns = [list(column) for column in zip(*read, strict=True)]
        if self.task == "simcse" and not self.ours:
            columns *= 2  # as two columns of a dataset for the stock loss
        return lambda: self._check(columns) if check else self._step(columns, number)

    def describe(self, value: dict[str, Any], **_: Any) -> dict[str, Any]:
        """What the step gave; the memory that it does not need any more is given back for the next process's step."""
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        return value

    def _step(self, columns: list[list[str]], seed: int) -> dict[str, Any]:
        torch.manual_seed(seed)
        self.optimizer.zero_grad()
        features = [self._features(column) for column in columns]
        loss = self.loss(features, self._labels(columns))
        loss.backward()
        self.optimizer.step()
        return {"loss": float(loss.detach()), "tokens": self._tokens(features)}

    def _check(self, columns: list[list[str]]) -> dict[str, Any]:
        torch.manual_seed(0)
        self.optimizer.zero_grad()
        with _without_dropout(self.model):
            features = [self._features(column) for column in columns]
            tokens = self._tokens(features)
            loss = self.loss(features, self._labels(columns))
            loss.backward()
        gradients = torch.cat([weight.grad.flatten() for _, weight in self.learned])
        sample = gradients[:: max(1, len(gradients) // 1000)].tolist()
        return {
            "loss": float(loss.detach()),
            "gradient_norm": float(gradients.norm()),
            "gradient": sample,
            "tokens": tokens,
        }

    def _labels(self, columns: list[list[str]]) -> Tensor | None:
        """Scores of the pairs, all different, where the task has any."""
        return torch.linspace(0, 1, len(columns[0]), device=self.model.device) if self.task == "scored" else None

    def _features(self, texts: list[str]) -> dict[str, Any]:
        return batch_to_device(self.model.preprocess(texts), self.model.device)

    def _tokens(self, features: list[dict[str, Tensor]]) -> int:
        return self.passes * sum(int(column["attention_mask"].sum()) for column in features)


@contextmanager
def _without_dropout(model: nn.Module) -> Iterator[None]:
    layers = {layer: layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)}
    for layer in layers:
        layer.p = 0.0
    try:
        yield
    finally:
        for layer, rate in layers.items():
            layer.p = rate
