"""A ``Modelfile``, by which Ollama takes in a GGUF file."""

from __future__ import annotations

from pathlib import Path

from st_llm2vec.encoding.text_reader import TextReader


def write_modelfile(encoder: TextReader, gguf: str | Path) -> Path:
    """Write a ``Modelfile`` beside an exported encoder.

    Ollama embeds the string that it is given and knows no prompts, so that they stand there as comments. Its cache holds keys
    and values in half precision; nobody has compared its vectors.

    Args:
        encoder: The encoder.
        gguf: The exported file.

    Returns:
        The ``Modelfile``.
    """
    gguf = Path(gguf)
    path = gguf.with_name("Modelfile")
    lines = [
        f"# ollama create {gguf.stem.lower()} -f Modelfile",
        "# Embeddings only, through /api/embed or /v1/embeddings. Ollama puts no prompt before a text; do that yourself:",
        *(f"#   {name}: {text!r}" for name, text in encoder.prompts.items() if text),
        f"FROM ./{gguf.name}",
        f"PARAMETER num_ctx {encoder.max_seq_length}",
    ]
    staging = path.with_name(".Modelfile")
    staging.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return staging.replace(path)
