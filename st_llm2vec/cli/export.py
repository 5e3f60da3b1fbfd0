"""``st-llm2vec export``: an encoder in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from st_llm2vec.cli.app import app
from st_llm2vec.cli.console import facts, output, quiet
from st_llm2vec.cli.options import AsJson, Revision, print_json


@app.command()
def export(
    encoder: Annotated[str, typer.Argument(help="An encoder's folder, or its name on the Hugging Face Hub.")],
    target: Annotated[Path, typer.Option("--output", "-o", help="The file, which ends in .gguf.")],
    format: Annotated[str, typer.Option(help="gguf: llama.cpp and what is built on it.")] = "gguf",
    type: Annotated[str, typer.Option(help="Type of the matrices: f32, f16, bf16 or q8_0.")] = "f32",
    revision: Revision = None,
    as_json: AsJson = False,
) -> None:
    """Write an encoder as a GGUF file for llama.cpp, with a Modelfile for Ollama, and compare its vectors where llama.cpp is."""
    quiet()
    from st_llm2vec.folder.load import load
    from st_llm2vec.serving.gguf_export import export_gguf
    from st_llm2vec.serving.llama_cpp import PLACE, find_llama_cpp, verify_gguf
    from st_llm2vec.serving.modelfile import write_modelfile
    from st_llm2vec.serving.verdicts import verdicts

    if format != "gguf":
        raise ValueError(f"--format {format} is not known; gguf is.")
    loaded = load(encoder, revision=revision, device="cpu")
    file = export_gguf(loaded, target, type)  # type: ignore[arg-type]
    modelfile = write_modelfile(loaded, file)
    place = find_llama_cpp()
    distances = verify_gguf(loaded, file, place) if place else None
    serve = next(one.command for one in verdicts(loaded, encoder) if one.server == "llama.cpp").rpartition(" && ")[2]
    serve = serve.replace(f"-m {Path(encoder).name}.gguf", f"-m {file}")
    if as_json:
        print_json(
            {"file": str(file), "type": type, "modelfile": str(modelfile), "serve": serve, "distances": distances}
        )
        return
    said = (
        ", ".join(f"{name} {distance:.1e}" for name, distance in distances.items())
        if distances
        else f"not compared: node-llama-cpp is not at hand ({PLACE} names the folder where npm installed it)"
    )
    output.print(
        facts(
            {
                "file": f"{file}  {file.stat().st_size / 1e6:.1f} MB, {type}",
                "for Ollama": f"{modelfile} (not compared)",
                "serve it with": serve,
                "distance in llama.cpp": said,
            }
        )
    )
