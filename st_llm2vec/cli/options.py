"""Options that several commands have, and the checks of what they are given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from st_llm2vec.cli.console import encoder_view, output, say

if TYPE_CHECKING:
    from st_llm2vec.folder.encoder import TextEncoder

DTYPES = ("auto", "float32", "float16", "bfloat16")
DTYPE_HELP = (
    "Weights' type: float32, float16, bfloat16, or auto: bfloat16 where the device computes it natively, "
    "float32 elsewhere."
)


def _known_dtype(dtype: str | None) -> str | None:
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"--dtype {dtype} is not one of {', '.join(DTYPES)}.")
    return dtype


EncoderName = Annotated[str, typer.Argument(help="An encoder's folder or its name on the Hugging Face Hub.")]
ModelName = Annotated[str, typer.Argument(help="A folder, a GGUF file, or a name on the Hugging Face Hub.")]
EncoderFolder = Annotated[Path, typer.Option("--output", "-o", help="Folder for the encoder.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the encoder that the folder holds.")]
Prompts = Annotated[
    list[str] | None, typer.Option(metavar="NAME=TEXT", help='A bare instruction: query="Find the answer:".')
]
MaxLength = Annotated[int | None, typer.Option(help="Longest input in tokens, template included.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, to standard output.")]
Dtype = Annotated[str | None, typer.Option(help=DTYPE_HELP, show_default="as stored", callback=_known_dtype)]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")]


def check_target(decoder: str, target: Path, overwrite: bool) -> None:
    """Refuse a file, the decoder's own folder, and unasked a folder with a model, as the place for an encoder."""
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file; give a folder for the encoder.")
    if target.is_dir() and Path(decoder).is_dir() and target.samefile(decoder):
        raise ValueError(f"{target} is the decoder's own folder, which the encoder would overwrite; give another one.")
    if not overwrite and any((target / name).exists() for name in ("modules.json", "config.json")):
        raise ValueError(f"{target} holds a model already; give another folder, or add --overwrite to replace it.")


def say_dtype(dtype: str | None, device: str | None = None) -> None:
    """Say what auto means on this machine, and why."""
    if dtype == "auto":
        from st_llm2vec.encoding.dtype import choose_dtype

        say(choose_dtype(device).reason)


def pair(option: str, text: str) -> tuple[str, str]:
    """Read NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError(f"{option} {text!r} is not of the form NAME=VALUE.")
    return name, value


def print_json(data: Any, indent: int | None = 2) -> None:
    """Write JSON to standard output."""
    typer.echo(json.dumps(data, ensure_ascii=False, indent=indent))


def show_encoder(encoder: TextEncoder, target: Path, names: tuple[str, ...], as_json: bool) -> None:
    """Show an encoder that was made and saved; as JSON with these fields of its manifest."""
    if not as_json:
        output.print(encoder_view(encoder, str(target)))
        return
    assert encoder.manifest is not None
    made = {name: getattr(encoder.manifest, name) for name in names}
    saved = {"output": str(target), "dimension": encoder.get_embedding_dimension()}
    print_json({**saved, **made, "config": encoder.manifest.config.to_dict()})
