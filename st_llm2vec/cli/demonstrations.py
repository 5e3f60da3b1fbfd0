"""``st-llm2vec demonstrations``: choose the in-context examples of a decoder, and save the encoder that has them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from st_llm2vec.cli.app import app
from st_llm2vec.cli.console import output, plain_table, progress_bar, quiet, say
from st_llm2vec.cli.options import (
    AsJson,
    Dtype,
    EncoderFolder,
    ModelName,
    Overwrite,
    check_target,
    print_json,
    say_dtype,
)

if TYPE_CHECKING:
    from st_llm2vec.demonstrations.dev_sets import DevSet
    from st_llm2vec.demonstrations.search import Search, Tried
    from st_llm2vec.demonstrations.trial import Candidate
    from st_llm2vec.folder.encoder import TextEncoder

demonstrations = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(demonstrations, name="demonstrations", help="Choose the in-context examples that a decoder is shown.")

SHOWN = 10
FirstRows = Annotated[int, typer.Option("--first", min=2, help="How many rows of the dev set all candidates meet.")]
Limit = Annotated[int | None, typer.Option(min=2, help="Take the first rows of the dev set only.")]
Seed = Annotated[int, typer.Option(help="Of the order of the dev set's rows, and of what is drawn.")]
Cache = Annotated[
    Path | None,
    typer.Option(help="Where numbers are kept for the next run.", show_default="~/.cache/st-llm2vec/demonstrations"),
]
TestFile = Annotated[Path | None, typer.Option("--test", help="Score the chosen one here too, once; never chosen by.")]


@dataclass(frozen=True)
class _Given:
    """What both commands are given."""

    decoder: str
    target: Path
    recipe: str
    first: int
    seed: int
    cache: Path | None
    dtype: str | None
    as_json: bool


@demonstrations.command()
def words(
    decoder: ModelName,
    dev: Annotated[str, typer.Option(help="Pairs of sentences with scores to choose by: a file, or `stsb`.")],
    target: EncoderFolder,
    candidates: Annotated[
        list[Path] | None, typer.Option(help="Files of candidates, with text and response; may be given several times.")
    ] = None,
    sentences: Annotated[
        Path | None, typer.Option(help="Sentences for which the decoder itself finds words: more candidates.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many of these.")] = 40,
    built_in: Annotated[bool, typer.Option(help="Try the sentences and words that the package carries.")] = True,
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="A recipe's name or a YAML file.")] = "prompteol",
    limit: Limit = None,
    first: FirstRows = 32,
    test: TestFile = None,
    seed: Seed = 0,
    cache: Cache = None,
    dtype: Dtype = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Choose the sentence and its word that PromptEOL shows first, by pairs of sentences with scores."""
    quiet()
    check_target(decoder, target, overwrite)
    from st_llm2vec.demonstrations import candidates as sources
    from st_llm2vec.demonstrations.generated import generated_candidates

    pairs = sources.read_scored_pairs(dev, limit)
    tested = sources.read_scored_pairs(test) if test is not None else None
    tried = [one for file in candidates or [] for one in sources.read_candidates(file)]
    known = sources.built_in_candidates()
    if sentences is not None:
        drawn = sources.read_sentences(sentences)
        with progress_bar(f"Words of {decoder}", count) as advance:
            own = generated_candidates(decoder, drawn, count, seed=seed, dtype=_loaded(dtype), advance=advance)
        tried += own
        if len(own) < count and not as_json:
            say(f"The decoder found {len(own)} words of the {count} that are wanted; give it more sentences.")
    tried += known if built_in else []
    given = _Given(decoder, target, recipe, first, seed, cache, dtype, as_json)
    _search(given, tried, pairs, tested, against=[known[0]])


@demonstrations.command()
def examples(
    decoder: ModelName,
    train: Annotated[Path, typer.Option(help="The task's pairs to take examples from, with query and positive.")],
    dev: Annotated[Path, typer.Option(help="Other pairs of the task to choose by, with query and positive.")],
    instruction: Annotated[str, typer.Option(help="The task's instruction, which queries and examples have.")],
    target: EncoderFolder,
    examples: Annotated[int, typer.Option(min=1, help="How many examples a query is shown.")] = 2,
    count: Annotated[int, typer.Option(min=2, help="How many sets of examples are drawn and tried.")] = 60,
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="A recipe's name or a YAML file.")] = "bge-en-icl",
    limit: Limit = None,
    first: FirstRows = 32,
    test: TestFile = None,
    seed: Seed = 0,
    cache: Cache = None,
    dtype: Dtype = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Choose a task's few-shot examples, as bge-en-icl shows them, by queries whose positives are searched."""
    quiet()
    check_target(decoder, target, overwrite)
    from st_llm2vec.demonstrations.candidates import example_sets, held_out, read_task_pairs

    pairs = held_out(read_task_pairs(dev, limit), instruction)
    tested = held_out(read_task_pairs(test), instruction) if test is not None else None
    unseen = [pair for pair in read_task_pairs(train) if pair[0] not in set(pairs.queries)]
    tried = example_sets(unseen, instruction, examples, count, seed)
    given = _Given(decoder, target, recipe, first, seed, cache, dtype, as_json)
    _search(given, tried, pairs, tested, against=[], prompts={"query": instruction})


def _loaded(dtype: str | None) -> Any:
    from st_llm2vec.encoding.dtype import resolve_dtype

    return resolve_dtype(dtype, None)


def _search(
    given: _Given, tried: list[Candidate], dev: DevSet, test: DevSet | None, against: list[Candidate], **changes: Any
) -> None:
    """Search, save the encoder with what was found, and write and show what all candidates scored."""
    from st_llm2vec.conversion.convert import convert
    from st_llm2vec.demonstrations.search import KeptNumbers, plan, search
    from st_llm2vec.demonstrations.trial import Candidate, open_trial
    from st_llm2vec.evaluation.kept import default_cache, keep
    from st_llm2vec.recipe.config import get_recipe

    cache = given.cache or default_cache("demonstrations")
    config = get_recipe(given.recipe).replace(**changes)
    if not given.as_json:
        say_dtype(given.dtype)
        say(f"Numbers of candidates are kept in {cache}.")
    trial = open_trial(given.decoder, config.replace(demonstrations=()), dtype=given.dtype)
    own = [Candidate(config.demonstrations, config.name)] if config.demonstrations else []
    against = list({one.demonstrations: one for one in (*own, *against, Candidate((), "none"))}.values())
    total = sum(rows * count for rows, count in plan(len(tried) + len(against), len(dev), given.first))
    with progress_bar(f"Candidates on {given.decoder}", total) as advance:
        found = search(
            trial, tried, dev, against=against, first_rows=given.first, seed=given.seed, cache=cache, advance=advance
        )
    tests: list[Tried] = []
    if test is not None:
        once = dict.fromkeys([found.found.candidate, *against])
        with progress_bar("The chosen one on the test set", len(test) * len(once)) as advance:
            tests = [KeptNumbers(trial, test, cache).measure(one, advance=advance) for one in once]
    del trial
    chosen = found.found.candidate.demonstrations
    encoder = convert(given.decoder, config, dtype=given.dtype, demonstrations=chosen, measure=False)
    encoder.save(str(given.target))
    written = {**found.to_dict(), "test": [asdict(one) for one in tests], "decoder": given.decoder}
    keep(given.target / "demonstrations.json", written)
    if given.as_json:
        print_json({"output": str(given.target), **written})
    else:
        _show(encoder, found, tests)


def _show(encoder: TextEncoder, found: Search, tests: list[Tried]) -> None:
    tested = {one.candidate.demonstrations: f"{one.score:.2f}" for one in tests}
    table = plain_table("demonstrations", "from", "rows", "dev", "test", "s")
    for column in table.columns[2:]:
        column.justify = "right"
    last = [one for one in found.against if one not in found.tried[:SHOWN]]
    for one in (*found.tried[:SHOWN], *last):
        numbers = (
            str(one.rows),
            f"{one.score:.2f}",
            tested.get(one.candidate.demonstrations, ""),
            f"{one.seconds:.1f}",
        )
        style = "bold" if one is found.found else ""
        table.add_row(Text(str(one.candidate), style=style), Text(one.candidate.source), *numbers)
    output.print(table)
    seconds, rows = (sum(getattr(one, name) for one in found.tried) for name in ("seconds", "rows"))
    stages = ", ".join(f"{rows}: {count}" for rows, count in found.stages)
    say(f"Stages (rows: candidates) {stages}; a candidate costs {1000 * seconds / rows:.0f} ms a row.")
    assert encoder.manifest is not None
    say(f"Saved with {found.found.candidate} in its recipe, {encoder.manifest.config.name}.")
