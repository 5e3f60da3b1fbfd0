"""``st-llm2vec encode``: texts to vectors, on the screen or in a file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from st_llm2vec.cli.app import app
from st_llm2vec.cli.console import output, progress_bar, quiet, vectors_view
from st_llm2vec.cli.options import AsJson, Dtype, EncoderName, print_json, say_dtype

if TYPE_CHECKING:
    from datasets import Dataset

    from st_llm2vec.corpus.corpus import Corpus
    from st_llm2vec.folder.encoder import TextEncoder

PREVIEW = 20
BATCHES_PER_CHUNK = 16


@app.command()
def encode(
    encoder: EncoderName,
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT", help="Texts.", show_default=False)] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            help="A text, JSON lines, CSV or Parquet file, compressed or not, or a folder of them; - for standard input. May "
            "be given several times.",
        ),
    ] = None,
    column: Annotated[str | None, typer.Option(help="Column of texts.", show_default="text")] = None,
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

    Rows stay rows: an empty line of text is an empty text and has a vector too. A row without a text is refused.

    Without --output the first texts and the beginnings of their vectors are shown.
    A .safetensors file holds the tensor "embeddings", a .parquet file the columns of the input and "embedding".
    """
    from st_llm2vec.corpus.vector_file import check_output

    if prompt is not None and prompt_name is not None:
        raise ValueError("Give --prompt or --prompt-name, not both.")
    if target is not None:
        check_output(target)
    quiet()
    corpus = _corpus(texts or [], inputs or [], column)
    columns = _columns(inputs or [], corpus) if target is not None and target.suffix.lower() == ".parquet" else None
    from st_llm2vec.folder.load import load

    if not as_json:
        say_dtype(dtype)
    loaded = load(encoder, dtype=dtype)
    options = {"prompt": prompt, "prompt_name": prompt_name, "batch_size": batch_size, "show_progress_bar": False}
    if target is not None:
        _encode_to_file(loaded, corpus, columns, target, options, as_json)
    else:
        _encode_to_screen(loaded, corpus, options, as_json)


def _corpus(texts: list[str], inputs: list[str], column: str | None) -> Corpus:
    """Where the texts are: arguments, standard input, or files."""
    from st_llm2vec.corpus.corpus import corpus_of_texts, open_corpus

    if bool(texts) == bool(inputs):
        what = "both texts and --input were" if texts else "neither texts nor --input was"
        raise ValueError(f"Give texts as arguments, or --input FILE, or --input - for standard input; {what} given.")
    if inputs and inputs != ["-"]:
        return open_corpus(inputs, column=column)
    name = "standard input" if inputs else "the arguments"
    if column is not None:
        raise ValueError(f"--column {column} is for files with columns; {name} has none. Leave it out.")
    found = corpus_of_texts([*_standard_input()] if inputs else texts, name)
    if not len(found):
        raise ValueError(f"{name} holds no rows.")
    return found


def _standard_input() -> Iterator[str]:
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            yield line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"Line {number} of standard input is not UTF-8 text.") from error


def _columns(inputs: list[str], corpus: Corpus) -> Dataset:
    """All columns of the corpus, which Parquet holds beside the vectors."""
    from st_llm2vec.data.read import read_dataset

    if not inputs or inputs == ["-"]:
        return corpus.data
    columns = read_dataset(inputs)
    if len(columns) != len(corpus):
        raise ValueError(
            f"{corpus.name} has {len(corpus)} rows when it is read by lines and {len(columns)} otherwise, so Parquet cannot hold "
            "vectors beside its columns. Put each object on one line, or write .npy or .safetensors."
        )
    return columns


def _texts(corpus: Corpus, start: int, stop: int) -> list[str]:
    """The texts of some rows; one that is none is refused by its row."""
    from st_llm2vec.corpus.corpus import judge

    rows = list(corpus.rows(start, stop))
    for row in rows:
        problem = judge(row, sys.maxsize)
        if problem is not None:
            raise ValueError(
                f"Row {row.number} of {corpus.name} (the first is 0) cannot be encoded: {problem}. Mend it, or leave it out; "
                "st-llm2vec embed leaves such rows out by itself and records them."
            )
    return [row.value for row in rows]


def _encode_to_file(
    encoder: TextEncoder,
    corpus: Corpus,
    columns: Dataset | None,
    target: Path,
    options: dict[str, Any],
    as_json: bool,
) -> None:
    from st_llm2vec.corpus.vector_file import vector_file

    dimension, size = encoder.get_embedding_dimension() or 0, BATCHES_PER_CHUNK * options["batch_size"]
    with (
        progress_bar("Encoding", len(corpus)) as advance,
        vector_file(target, len(corpus), dimension, columns) as write,
    ):
        for start in range(0, len(corpus), size):
            texts = _texts(corpus, start, start + size)
            write(encoder.encode(texts, **options))
            advance(len(texts))
    if as_json:
        print_json({"output": str(target), "rows": len(corpus), "dimension": dimension})
    else:
        output.print(f"{len(corpus):,} vectors of {dimension} dimensions in {target}", soft_wrap=True, markup=False)


def _encode_to_screen(encoder: TextEncoder, corpus: Corpus, options: dict[str, Any], as_json: bool) -> None:
    texts = _texts(corpus, 0, len(corpus) if as_json else PREVIEW)
    vectors = encoder.encode(texts, **options)
    if as_json:
        print_json({"dimension": vectors.shape[1], "vectors": vectors.astype("float32").tolist()}, indent=None)
    else:
        output.print(vectors_view(texts, vectors, len(corpus)))
