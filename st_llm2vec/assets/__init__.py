"""What the package carries: a small pretrained decoder and the demo's corpus."""

from __future__ import annotations

from pathlib import Path


def decoder_path() -> str:
    """Folder of the decoder in the box, a Llama of 2.8 million parameters; its README says how it was made.

    Example:
        >>> from pathlib import Path
        >>> (Path(decoder_path()) / "config.json").is_file()
        True
    """
    return str(Path(__file__).parent / "decoder")
