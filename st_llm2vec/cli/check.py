"""``st-llm2vec check``: is an encoder what it promises, on this machine?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from st_llm2vec.cli.app import app
from st_llm2vec.cli.console import output, plain_table, quiet, say
from st_llm2vec.cli.options import AsJson, EncoderName, Revision, print_json

if TYPE_CHECKING:
    from st_llm2vec.checking import Finding

STYLES = {"pass": "green", "fail": "bold red", "not applicable": "dim"}


@app.command()
def check(
    model: EncoderName,
    dtype: Annotated[
        list[str] | None,
        typer.Option(help="A type of weights to compare with float32; again for another.", show_default="all three"),
    ] = None,
    device: Annotated[str | None, typer.Option(help="Device, e.g. cuda.", show_default="chosen")] = None,
    revision: Revision = None,
    as_json: AsJson = False,
) -> None:
    """Check that an encoder is what it promises, here: attention, batches, padding, truncation, what is pooled, folders, types.

    The vectors are compared with those of the recipe, alone and in random batches, padded and not, saved and loaded, in plain
    Sentence Transformers, from threads and asyncio. The exit code is 1 where a check fails.
    """
    quiet()
    from st_llm2vec.checking import DTYPES, check, failures

    findings = check(
        model,
        dtypes=DTYPES if dtype is None else dtype,
        progress=(lambda step: None) if as_json else say,
        device=device,
        revision=revision,
    )
    failed = failures(findings)
    if as_json:
        print_json({"model": model, "passed": not failed, "findings": [one.to_dict() for one in findings]})
    else:
        _show(model, findings)
    if failed:
        raise typer.Exit(1)


def _show(model: str, findings: Sequence[Finding]) -> None:
    table = plain_table("check", "result", "measured", "at most", "")
    for column in table.columns[:4]:
        column.no_wrap = True
    for one in findings:
        figures = ["" if number is None else f"{number:.2g}" for number in (one.figure, one.tolerance)]
        table.add_row(one.check, Text(one.result, style=STYLES[one.result]), *figures, Text(one.found, style="dim"))
    output.print(table)
    failed = [one.check for one in findings if one.passed is False]
    line = f"{model} fails: {', '.join(failed)}." if failed else f"{model} is what it promises."
    output.print(Text(line, style="bold red" if failed else "bold green"), soft_wrap=True)
