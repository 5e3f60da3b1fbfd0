"""``st-llm2vec export``: an encoder in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from st_llm2vec.cli.app import app
from st_llm2vec.cli.console import facts, output, quiet
from st_llm2vec.cli.options import AsJson, Revision, print_json

FORMATS = "gguf: a file for llama.cpp and what is built on it; onnx: a folder with a graph for ONNX Runtime."


@app.command()
def export(
    encoder: Annotated[str, typer.Argument(help="An encoder's folder, or its name on the Hugging Face Hub.")],
    target: Annotated[Path, typer.Option("--output", "-o", help="The file, which ends in .gguf, or ONNX's folder.")],
    format: Annotated[str, typer.Option(help=FORMATS)] = "gguf",
    type: Annotated[str, typer.Option(help="Type of the matrices: f32, and for gguf also f16, bf16 or q8_0.")] = "f32",
    revision: Revision = None,
    as_json: AsJson = False,
) -> None:
    """Write an encoder as a GGUF file with a Modelfile for Ollama, or as an ONNX graph, and compare its vectors there."""
    quiet()
    if format not in ("gguf", "onnx"):
        raise ValueError(f"--format {format} is not known; gguf and onnx are.")
    if format == "onnx" and type != "f32":
        raise ValueError(f"--type {type} is for GGUF files; ONNX graphs are in float32.")
    found = _gguf(encoder, target, type, revision) if format == "gguf" else _onnx(encoder, target, revision)
    if as_json:
        print_json(found)
        return
    file = Path(found["file"])
    shown = {"file": f"{file}  {file.stat().st_size / 1e6:.1f} MB, {type}"}
    if format == "gguf":
        shown |= {"for Ollama": f"{found['modelfile']} (not compared)", "serve it with": found["serve"]}
    output.print(facts({**shown, f"distance in {found['compared in']}": _said(found["distances"])}))


def _gguf(encoder: str, target: Path, type: str, revision: str | None) -> dict[str, Any]:
    from st_llm2vec.folder.load import load
    from st_llm2vec.serving.gguf_export import export_gguf
    from st_llm2vec.serving.llama_cpp import find_llama_cpp, verify_gguf
    from st_llm2vec.serving.modelfile import write_modelfile
    from st_llm2vec.serving.verdicts import verdicts

    loaded = load(encoder, revision=revision, device="cpu")
    file = export_gguf(loaded, target, type)  # type: ignore[arg-type]
    modelfile = write_modelfile(loaded, file)
    place = find_llama_cpp()
    distances = verify_gguf(loaded, file, place) if place else None
    serve = next(one.command for one in verdicts(loaded, encoder) if one.server == "llama.cpp").rpartition(" && ")[2]
    serve = serve.replace(f"-m {Path(encoder).name}.gguf", f"-m {file}")
    found = {"file": str(file), "type": type, "modelfile": str(modelfile), "serve": serve}
    return {**found, "compared in": "llama.cpp", "distances": distances}


def _onnx(encoder: str, target: Path, revision: str | None) -> dict[str, Any]:
    import torch

    from st_llm2vec.folder.load import load
    from st_llm2vec.serving.onnx_encoder import GRAPH
    from st_llm2vec.serving.onnx_export import compare, export_onnx

    loaded = load(encoder, revision=revision, device="cpu", dtype=torch.float32)
    folder = export_onnx(loaded, target)
    found = {"file": str(folder / GRAPH), "type": "f32", "compared in": "ONNX Runtime"}
    return {**found, "distances": compare(loaded, folder)}


def _said(distances: dict[str, float] | None) -> str:
    from st_llm2vec.serving.llama_cpp import PLACE

    if distances is None:
        return f"not compared: node-llama-cpp is not at hand ({PLACE} names the folder where npm installed it)"
    return ", ".join(f"{name} {distance:.1e}" for name, distance in distances.items())
