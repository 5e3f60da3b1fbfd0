"""``st-llm2vec evaluate``: what the vectors of words tell, and what a decoder makes of bidirectional attention."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text
from typer.core import TyperGroup

from st_llm2vec.cli.app import app
from st_llm2vec.cli.console import facts, output, plain_table, progress_bar, quiet, say
from st_llm2vec.cli.options import AsJson, Dtype, print_json, say_dtype

if TYPE_CHECKING:
    from st_llm2vec.evaluation.analyses import Analysis
    from st_llm2vec.evaluation.future_tokens import FutureTokens
    from st_llm2vec.evaluation.word_probe import WordScores
    from st_llm2vec.folder.encoder import TextEncoder

PROBES = ("linear", "logistic")
ATTENTIONS = {"causal": ("causal",), "bidirectional": ("bidirectional",), "both": ("causal", "bidirectional")}

SHORT = {"causal": "causal", "bidirectional": "bidir."}
LEGEND = (
    "Layer 0 are the embeddings. same state: mean cosine of a token's causal and bidirectional states; above chance: the "
    "same, where 0 is what unrelated tokens have; to the decoder: mean cosine with its causal states; alike: mean cosine of "
    "tokens of different texts (anisotropy); score: on the built-in sentences, at most 100."
)


class _ReportGroup(TyperGroup):
    """Takes `evaluate MODEL... --report FOLDER` for `evaluate report MODEL... --report FOLDER`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is named, or the report."""
        asks = any(one == "--report" or one.startswith("--report=") for one in args)
        return super().resolve_command(ctx, ["report", *args] if asks and args[0] not in self.commands else args)


evaluate = typer.Typer(cls=_ReportGroup, no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(
    evaluate,
    name="evaluate",
    help="Measure what an encoder or a decoder has learned. `evaluate MODEL --report OUT` is `evaluate report MODEL --report OUT`.",
)


def _known_probe(probe: str) -> str:
    if probe not in PROBES:
        raise ValueError(f"--probe {probe} is not one of {', '.join(PROBES)}.")
    return probe


def known_attention(attention: str) -> str:
    """Refuse any other name of how a decoder attends."""
    if attention not in ATTENTIONS:
        raise ValueError(f"--attention {attention} is not one of {', '.join(ATTENTIONS)}.")
    return attention


@evaluate.command()
def words(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Encoders or decoders: folders or names.")],
    train: Annotated[Path, typer.Option(help="Words with labels to learn from: CoNLL columns, or a .conllu file.")],
    test: Annotated[Path, typer.Option(help="Words with labels to test on.")],
    column: Annotated[
        str,
        typer.Option(help="The labels: pos, chunk or ner; upos or xpos in CoNLL-U; or a number, the first being 0."),
    ],
    shift: Annotated[
        bool, typer.Option("--shift", help="Read each word from the states that predict it, as MNTP does.")
    ] = False,
    probe: Annotated[
        str,
        typer.Option(help="linear: LLM2Vec's classifier; logistic: a quick one without seeds.", callback=_known_probe),
    ] = "linear",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of the linear probe.")] = 3,
    limit: Annotated[int | None, typer.Option(min=1, help="Read so many sentences of each file.")] = None,
    attention: Annotated[
        str,
        typer.Option(
            help="How a decoder attends: causal, bidirectional, or both; encoders have their own.",
            callback=known_attention,
        ),
    ] = "causal",
    cache: Annotated[
        Path | None,
        typer.Option(help="Where words' vectors are kept for the next run.", show_default="~/.cache/st-llm2vec/words"),
    ] = None,
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """Train a linear classifier on frozen vectors of words, and test it: parts of speech, chunks, named entities.

    The words' vectors are computed once for a model and a file, and read from the cache after that.
    """
    quiet()
    from st_llm2vec.evaluation.kept import default_cache
    from st_llm2vec.evaluation.word_files import read_labelled_words
    from st_llm2vec.evaluation.word_probe import most_frequent_label, probe_words

    parts = [read_labelled_words(file, column, limit) for file in (train, test)]
    scores = {"most frequent label": most_frequent_label(*parts)}
    unseen = scores["most frequent label"].unseen
    if unseen and not as_json:
        named = ", ".join(f"{label} ({count})" for label, count in unseen.items())
        say(f"Labels that training does not have, which count as wrong, with their words: {named}.")
    cache = cache or default_cache("words")
    if not as_json:
        say_dtype(dtype)
        say(f"Words' vectors are kept in {cache}.")
    options: dict[str, Any] = {"probe": probe, "shift": shift, "seeds": range(seeds), "cache": cache}
    for name, encoder in opened(models, attention, dtype):
        with progress_bar(f"Words of {name}", sum(len(part.sentences) for part in parts)) as advance:
            scores[name] = probe_words(encoder, *parts, **options, advance=advance)
    if as_json:
        given = {"train": str(train), "test": str(test), "column": column, "shift": shift, "limit": limit}
        print_json({**given, "models": {name: found.to_dict() for name, found in scores.items()}})
    else:
        output.print(_words_view(scores))


@evaluate.command()
def analyse(
    model: Annotated[str, typer.Argument(help="A decoder or an encoder: a folder or a name on the Hugging Face Hub.")],
    against: Annotated[
        str | None,
        typer.Option(metavar="DECODER", help="The decoder that an encoder was made from, to compare states with."),
    ] = None,
    triples: Annotated[
        Path | None,
        typer.Option(
            help="JSON lines with query, positive, negative and shared_prefix.", show_default="48 built-in ones"
        ),
    ] = None,
    texts: Annotated[
        Path | None,
        typer.Option(help="A text in each line, to compare states on.", show_default="16 built-in sentences"),
    ] = None,
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """Look at a model's layers under causal and bidirectional attention, and whether it uses future tokens."""
    quiet()
    from st_llm2vec.evaluation.analyses import analyse as analyse_encoder
    from st_llm2vec.evaluation.analyses import similarity_to_causal
    from st_llm2vec.evaluation.future_tokens import read_triples

    ranked = read_triples(triples) if triples is not None else None
    compared = _texts(texts) if texts is not None else None
    if not as_json:
        say_dtype(dtype)
    ((_, encoder),) = opened([model], "causal", dtype)
    found = analyse_encoder(encoder, ranked, compared)
    to_decoder: list[float] = []
    if against is not None:
        ((_, decoder),) = opened([against], "causal", dtype)
        to_decoder = similarity_to_causal(encoder, decoder)
    if as_json:
        print_json({"model": model, **found.to_dict(), "against": against, "similarity_to_decoder": to_decoder})
    else:
        output.print(_analysis_view(model, found, to_decoder))


def _texts(file: Path) -> list[str]:
    """The lines of a text file, or the column ``text`` of a table."""
    from st_llm2vec.data.read import read_dataset

    columns = read_dataset(file)
    if "text" not in columns.column_names:
        raise ValueError(f"{file} has no column 'text', only {', '.join(columns.column_names)}.")
    found = [text for text in columns["text"] if text and text.strip()]
    if len(found) < 2:
        raise ValueError(f"{file} holds fewer than two texts; states are compared with those of other texts too.")
    return found


def opened(models: list[str], attention: str, dtype: str | None) -> Iterator[tuple[str, TextEncoder]]:
    """Each encoder as it is, and each decoder with the attention that is asked for; one at a time."""
    from st_llm2vec.conversion.convert import convert
    from st_llm2vec.folder.load import load
    from st_llm2vec.inspection import is_encoder

    for name in dict.fromkeys(models):
        if is_encoder(name):
            yield name, load(name, dtype=dtype)
            continue
        for one in ATTENTIONS[attention]:
            yield f"{name}, {one}", convert(name, "llm2vec", attention=one, dtype=dtype, measure=False)


def without_attention(name: str) -> str:
    """How a model was given, from the name that :func:`opened` has for it."""
    return name.removesuffix(", causal").removesuffix(", bidirectional")


def _words_view(scores: dict[str, WordScores]) -> RenderableType:
    from st_llm2vec.evaluation.word_probe import mean_and_spread

    def cell(values: list[float]) -> str:
        mean, spread = mean_and_spread(values)
        return f"{mean:.2f} ± {spread:.2f}" if len(values) > 1 else f"{mean:.2f}" if values else ""

    chunks = any(found.f1 for found in scores.values())
    table = plain_table("model", "probe", "accuracy", *(["F1"] if chunks else []), "vectors, s")
    for column in table.columns[2:]:
        column.justify = "right"
    for name, found in scores.items():
        seconds = f"{found.seconds:.1f}" if found.seconds else ""
        probe = found.probe if found.probe in PROBES else ""
        table.add_row(Text(name), probe, cell(found.accuracy), *([cell(found.f1)] if chunks else []), seconds)
    return table


def _analysis_view(name: str, found: Analysis, to_decoder: list[float]) -> RenderableType:
    rows: dict[str, RenderableType] = {"model": name}
    rows |= {f"future tokens, {attention}": _ranked(one) for attention, one in found.future.items()}
    rows |= {
        f"best layer, {attention}": f"{one.best}, score {one.scores[one.best]:.0f}"
        for attention, one in found.quality.items()
    }
    rows |= {f"cannot be {attention}": reason for attention, reason in found.refusals.items()}
    columns: dict[str, list[str]] = {}
    if found.similarity:
        columns["same state"] = [f"{one:.2f}" for one in found.similarity]
        columns["above chance"] = [f"{one:.2f}" for one in found.above_chance]
    if to_decoder:
        columns["to the decoder"] = [f"{one:.2f}" for one in to_decoder]
    for attention, one in found.quality.items():
        short = SHORT[attention]
        columns[f"alike, {short}"] = [f"{value:.2f}" for value in one.anisotropy]
        columns[f"score, {short}"] = [f"{value:.0f}" for value in one.scores]
    table = plain_table("layer", *columns)
    for column in table.columns:
        column.justify = "right"
    for layer, cells in enumerate(zip(*columns.values(), strict=True)):
        table.add_row(str(layer), *cells)
    return Group(facts(rows), Padding(table, (1, 0)), Text(LEGEND, style="dim"))


def _ranked(found: FutureTokens) -> str:
    total = found.right + found.wrong + found.tied
    if found.tied == total:
        return f"all {total} triples tied: the states of a beginning do not depend on what follows"
    low, high = found.interval
    tied = f", {found.tied} tied" if found.tied else ""
    return f"{found.right} of {total} triples ranked right{tied}: {found.share:.0%}, {low:.0%} to {high:.0%} with 95 % confidence"
