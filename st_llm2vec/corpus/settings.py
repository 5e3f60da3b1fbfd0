"""What is asked for: which encoder, how texts become vectors, and how vectors are stored."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

FORMATS = ("parquet", "safetensors")
PRECISIONS = ("float32", "float16", "bfloat16", "int8", "uint8", "binary", "ubinary")
CALIBRATED = ("int8", "uint8")
PACKED = ("binary", "ubinary")
TASKS = ("document", "query")
TOO_LONG = ("truncate", "skip")
DTYPES = ("auto", "float32", "float16", "bfloat16")


@dataclass(frozen=True)
class EmbeddingSettings:
    """How texts become stored vectors.

    Args:
        encoder: A folder or a name on the Hugging Face Hub, for ``st_llm2vec.load``.
        revision: The encoder's branch, tag or commit on the Hub.
        dtype: Type of the weights, and so of the computation; the stored one if not given. ``"auto"`` as for
            ``st_llm2vec.load``: a job is then resumed only where it means the same.
        attn_implementation: As for ``st_llm2vec.load``.
        task: ``"document"`` for ``encode_document``, ``"query"`` for ``encode_query``.
        prompt: A bare instruction in place of the saved one; ``""`` for none.
        prompt_name: Name of one of the encoder's own prompts.
        batch_size: Texts in a batch. It may change when a job is resumed.
        truncate_dim: Keep only the first dimensions (Matryoshka).
        normalize: Whether to give vectors length one, after truncation.
        precision: What is stored. ``int8``, ``uint8``, ``binary`` and ``ubinary`` are Sentence Transformers'
            ``quantize_embeddings``; the two others are casts.
        calibration_rows: How many of the first texts give the ranges for ``int8`` and ``uint8``.
        too_long: ``"truncate"`` embeds what the encoder reads of a text that has more tokens, ``"skip"`` leaves it
            out. Either way the row is recorded.
        max_chars: Texts with more characters are left out and recorded, so that one row cannot take all memory.
        shard_rows: Rows of the corpus in a shard.
        file_format: ``"parquet"`` or ``"safetensors"``.
    """

    encoder: str
    revision: str | None = None
    dtype: str | None = None
    attn_implementation: str | None = None
    task: str = "document"
    prompt: str | None = None
    prompt_name: str | None = None
    batch_size: int = 32
    truncate_dim: int | None = None
    normalize: bool = False
    precision: str = "float32"
    calibration_rows: int = 4096
    too_long: str = "truncate"
    max_chars: int = 1_000_000
    shard_rows: int = 10_000
    file_format: str = "parquet"

    def __post_init__(self) -> None:
        choices = {
            "task": TASKS,
            "precision": PRECISIONS,
            "too_long": TOO_LONG,
            "file_format": FORMATS,
            "dtype": (*DTYPES, None),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                listed = ", ".join(str(one) for one in allowed if one)
                raise ValueError(f"{name}={getattr(self, name)!r} is not one of {listed}.")
        for name in ("batch_size", "calibration_rows", "max_chars", "shard_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is not a positive number.")
        if self.prompt is not None and self.prompt_name is not None:
            raise ValueError("Give a prompt or a prompt's name, not both.")
        if self.truncate_dim is not None and self.truncate_dim < 1:
            raise ValueError(f"truncate_dim={self.truncate_dim} is not a positive number.")
        if self.precision == "bfloat16" and self.file_format == "parquet":
            raise ValueError("Parquet has no bfloat16. Store float16, or write safetensors.")

    def identity(self) -> dict[str, Any]:
        """What has to be the same when a job is resumed, without the encoder's name."""
        free = ("encoder", "revision", "batch_size", "prompt", "prompt_name", "attn_implementation")
        kept = {name: value for name, value in asdict(self).items() if name not in free}
        if self.precision not in CALIBRATED:
            del kept["calibration_rows"]
        return kept
