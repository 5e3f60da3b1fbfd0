"""An exported graph in ONNX Runtime: texts in, vectors out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer

GRAPH = "model.onnx"
SETTINGS = "onnx_encoder.json"


class OnnxEncoder:
    """What :func:`st_llm2vec.export_onnx` wrote, as ONNX Runtime computes it.

    Args:
        folder: The exported folder.
        providers: ONNX Runtime's execution providers.

    Attributes:
        prompts: The saved prompts, by name.
        max_length: The longest input in tokens; a longer one is cut.
    """

    def __init__(self, folder: str | Path, providers: Sequence[str] = ("CPUExecutionProvider",)) -> None:
        import onnxruntime

        settings = json.loads((Path(folder) / SETTINGS).read_text(encoding="utf-8"))
        self.prompts: dict[str, str] = settings["prompts"]
        self.max_length: int = settings["max_length"]
        self._prompt_lengths: dict[str, int] | None = settings.get("prompt_lengths")
        self._tokenizer = AutoTokenizer.from_pretrained(str(folder))
        self._session = onnxruntime.InferenceSession(str(Path(folder) / GRAPH), providers=list(providers))

    def encode(self, texts: Sequence[str], prompt_name: str | None = None, batch_size: int = 8) -> np.ndarray:
        """Encode texts.

        Args:
            texts: The texts.
            prompt_name: Name of a saved prompt, which is put before each.
            batch_size: How many at once.

        Returns:
            The vectors, of shape ``(texts, dimensions)``.

        Raises:
            ValueError: If there are no texts, there is no such prompt, or a text has no tokens.
        """
        if not texts:
            raise ValueError("There are no texts.")
        if prompt_name is not None and prompt_name not in self.prompts:
            raise ValueError(f"There is no prompt {prompt_name!r}; there are {sorted(self.prompts)}.")
        prompt = self.prompts[prompt_name] if prompt_name is not None else ""
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        found = []
        for start in range(0, len(texts), batch_size):
            batch = [prompt + texts[number] for number in order[start : start + batch_size]]
            read = self._tokenizer(batch, padding=True, truncation=True, return_tensors="np")
            inputs = {name: read[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
            if not inputs["attention_mask"].any(axis=1).all():
                raise ValueError("A text has no tokens, and so no vector.")
            if self._prompt_lengths is not None:
                length = self._prompt_lengths[prompt_name] if prompt_name is not None else 0
                inputs["prompt_length"] = np.full(len(batch), length, dtype=np.int64)
            found.append(self._session.run(["sentence_embedding"], inputs)[0])
        return np.concatenate(found)[np.argsort(order)]
