"""``st-llm2vec encode``: texts to vectors, on the screen or in a file."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from st_llm2vec.cli.app import app
from st_llm2vec.cli.console import output, progress_bar, quiet, vectors_view
from st_llm2vec.cli.options import AsJson, Dtype, check_dtype, print_json, say_dtype

if TYPE_CHECKING:
    from st_llm2vec.corpus.texts import Corpus
    from st_llm2vec.folder.encoder import TextEncoder

PREVIEW = 20
BATCHES_PER_CHUNK = 16


@app.command()
def encode(
    encoder: Annotated[str, typer.Argument(help="An encoder's folder or its name on the Hugging Face Hub.")],
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT", help="Texts.", show_default=False)] = None,
    source: Annotated[
        str | None, typer.Option("--input", "-i", help="A .txt, .jsonl or .parquet file, or - for standard input.")
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of a .jsonl or .parquet file.", show_default="text")
    ] = None,
    target: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .npy, .safetensors or .parquet file.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="A bare instruction.")] = None,
    prompt_name: Annotated[str | None, typer.Option(help="Name of one of the encoder's own prompts.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts in a batch.")] = 32,
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """Encode texts: arguments, the lines of a file or of standard input, or a column of a table.

    Rows stay rows: an empty line is an empty text and has a vector too.

    Without --output the first texts and the beginnings of their vectors are shown.
    A .safetensors file holds the tensor "embeddings", a .parquet file the columns of the input and "embedding".
    """
    from st_llm2vec.corpus.texts import open_corpus
    from st_llm2vec.corpus.vectors import check_output

    if prompt is not None and prompt_name is not None:
        raise ValueError("Give --prompt or --prompt-name, not both.")
    check_dtype(dtype)
    if target is not None:
        check_output(target)
    corpus = open_corpus(texts or [], source, column)
    quiet()
    from st_llm2vec.folder.load import load

    if not as_json:
        say_dtype(dtype)
    loaded = load(encoder, dtype=dtype)
    options = {"prompt": prompt, "prompt_name": prompt_name, "batch_size": batch_size, "show_progress_bar": False}
    if target is not None:
        _encode_to_file(loaded, corpus, target, options, as_json)
    else:
        _encode_to_screen(loaded, corpus, options, as_json)


def _encode_to_file(encoder: TextEncoder, corpus: Corpus, target: Path, options: dict[str, Any], as_json: bool) -> None:
    from st_llm2vec.corpus.vectors import open_output
    from st_llm2vec.encoding.inputs import readable

    dimension = encoder.get_embedding_dimension() or 0
    rows = 0
    with progress_bar("Encoding", corpus.count()) as advance, open_output(target, corpus, dimension) as writer:
        for chunk in corpus.chunks(BATCHES_PER_CHUNK * options["batch_size"]):
            writer.write(chunk, encoder.encode(readable(chunk.texts, first=rows), **options))
            rows += len(chunk.texts)
            advance(len(chunk.texts))
        if not rows:
            raise ValueError(f"{corpus.name} holds no texts, so nothing was written.")
    if as_json:
        print_json({"output": str(target), "rows": rows, "dimension": dimension})
    else:
        output.print(f"{rows:,} vectors of {dimension} dimensions in {target}", soft_wrap=True, markup=False)


def _encode_to_screen(encoder: TextEncoder, corpus: Corpus, options: dict[str, Any], as_json: bool) -> None:
    chunks = corpus.chunks(BATCHES_PER_CHUNK * options["batch_size"] if as_json else PREVIEW)
    texts = [text for chunk in (chunks if as_json else itertools.islice(chunks, 1)) for text in chunk.texts]
    if not texts:
        raise ValueError(f"{corpus.name} holds no texts.")
    vectors = encoder.encode(texts, **options)
    if as_json:
        print_json({"dimension": vectors.shape[1], "vectors": vectors.astype("float32").tolist()}, indent=None)
        return
    total = corpus.count()
    if total is None and next(chunks, None) is None:
        total = len(texts)
    output.print(vectors_view(texts, vectors, total))
