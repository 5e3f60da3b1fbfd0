"""``st-llm2vec data mine``: hard negatives for a mixture."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from st_llm2vec.cli.console import facts, messages, output, quiet, say, shorten
from st_llm2vec.cli.data import Folder, MixtureName, Sources, data
from st_llm2vec.cli.options import AsJson, Dtype, print_json, say_dtype


@data.command()
def mine(
    mixture: MixtureName,
    teacher: Annotated[
        str, typer.Option("--teacher", "-t", help="What ranks candidates: any encoder's folder or name.")
    ],
    target: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the rows, the new mixture and the report.")
    ],
    preset: Annotated[
        str, typer.Option(help="top-k, topk-percpos, topk-marginpos, topk-abs, topk-shifted, window or e5.")
    ] = "topk-percpos",
    negatives: Annotated[int, typer.Option("--negatives", "-n", min=1, help="Hard negatives of each row.")] = 7,
    folder: Folder = None,
    source: Sources = None,
    instructed: Annotated[
        bool, typer.Option("--instructed", help="Tell the teacher each source's instructions, as training does.")
    ] = False,
    query_prompt: Annotated[
        str | None, typer.Option(help="What the teacher is told before queries.", show_default="its own prompt")
    ] = None,
    document_prompt: Annotated[
        str | None, typer.Option(help="What it is told before documents.", show_default="its own prompt")
    ] = None,
    cross_encoder: Annotated[
        str | None, typer.Option(help="A cross-encoder that scores again, before scores are compared with positives'.")
    ] = None,
    relative_margin: Annotated[float | None, typer.Option(help="Change the preset: 0.05 is TopK-PercPos 95 %.")] = None,
    absolute_margin: Annotated[
        float | None, typer.Option(help="Change the preset: below the positive's score.")
    ] = None,
    max_score: Annotated[float | None, typer.Option(help="Change the preset: the highest score.")] = None,
    min_score: Annotated[float | None, typer.Option(help="Change the preset: the lowest score.")] = None,
    range_min: Annotated[int | None, typer.Option(min=0, help="Change the preset: nearest candidates to skip.")] = None,
    range_max: Annotated[int | None, typer.Option(min=1, help="Change the preset: rank of the last candidate.")] = None,
    sampling: Annotated[str | None, typer.Option(help="Change the preset: top or random.")] = None,
    chunk: Annotated[int | None, typer.Option(min=2, help="Texts of a corpus that are in memory at a time.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Texts in a batch of the teacher's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of what is drawn.")] = None,
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """Mine hard negatives for the sources of a mixture, and write the mixture that trains with them.

    Sources that have hard negatives of their own stay as they are, unless --source names them. The same command again goes on
    with the sources that an interrupted run has not done.
    """
    quiet()
    from sentence_transformers import CrossEncoder

    from st_llm2vec.cli.evaluate import opened
    from st_llm2vec.cli.mined_folder import REPORT, MinedFolder
    from st_llm2vec.data import read_mixture
    from st_llm2vec.data.mine_source import has_negatives, mine_source, mined_source, source_entry, source_files
    from st_llm2vec.data.mining_settings import MiningSettings
    from st_llm2vec.evaluation.fingerprint import encoder_fingerprint

    changes: dict[str, Any] = {
        "negatives": negatives,
        "relative_margin": relative_margin,
        "absolute_margin": absolute_margin,
        "max_score": max_score,
        "min_score": min_score,
        "range_min": range_min,
        "range_max": range_max,
        "sampling": sampling,
        "chunk": chunk,
        "batch_size": batch_size,
        "seed": seed,
    }
    settings = MiningSettings.of(preset, **changes)
    if instructed and (query_prompt is not None or document_prompt is not None):
        raise ValueError(
            "--instructed tells the teacher the sources' instructions; leave the prompts out, or --instructed."
        )
    kept = MinedFolder(target)
    found = read_mixture(mixture, folder=folder)
    chosen = {one.label for one in read_mixture(mixture, folder=folder, only=source).sources}
    # All are read, since the rows of one may have its instruction.
    mined_before = {one.label: has_negatives(one) for one in found.sources if one.label in chosen}
    to_mine = [one for one in found.sources if one.label in chosen and (source or not mined_before[one.label])]
    if not to_mine:
        raise ValueError(f"Every source of {mixture} has hard negatives; name those to mine anew: --source NAME.")
    read = [file for one in found.sources for file, *_ in source_files(one)]
    kept.require_room([one.label for one in to_mine], [mixture, *read])
    if not as_json:
        say_dtype(dtype)
    ((_, model),) = opened([teacher], "bidirectional", dtype)
    judge = CrossEncoder(cross_encoder) if cross_encoder is not None else None
    told = [instructed, query_prompt, document_prompt, cross_encoder]
    asked = {"settings": asdict(settings), "told": told, "teacher": encoder_fingerprint(model)}
    entries: list[dict[str, Any]] = []
    reports: dict[str, Any] = {}
    for one in found.sources:
        if one not in to_mine:
            entries.append(source_entry(one))
            continue
        about = {**asked, "source": source_entry(one), "files": source_files(one)}
        report = kept.begun(one.label, about)
        if report is None:
            say(f"Mining for {one.label}")
            with contextlib.redirect_stdout(sys.stderr):
                mined = mine_source(
                    one,
                    model,
                    settings,
                    instructed=instructed,
                    query_prompt=query_prompt,
                    document_prompt=document_prompt,
                    cross_encoder=judge,
                    progress=messages.is_terminal,
                )
            kept.add(one.label, about, mined)
            report = mined.report
        else:
            say(f"{one.label} was mined before the interruption")
        note = f"{preset}, {negatives} negatives, teacher {teacher}; {REPORT} has the rest."
        entries.append(mined_source(one, kept.file(one.label), negatives, note))
        reports[one.label] = report
        if not as_json:
            output.print(_shown(one.label, report))
    full_report = {"teacher": teacher, "preset": preset, "instructed": instructed, "sources": reports}
    written = kept.finish({"description": found.description, "sources": entries}, full_report)
    if as_json:
        print_json({"mixture": str(written), **full_report})
    else:
        output.print(f"Train with them: st-llm2vec train --pairs {written} ...", soft_wrap=True, markup=False)


def _shown(name: str, report: dict[str, Any]) -> RenderableType:
    """What was found and removed, and some rows."""
    kept, rows = report["rows_with_negatives"], report["rows"]
    scores = report["scores"]
    rows_said = f"{kept:,} of {rows:,} have negatives, {report['rows_with_fewer']:,} of them fewer than asked for"
    said: dict[str, RenderableType] = {
        "rows": rows_said,
        "mined in": f"{report['corpus']:,} texts",
        "removed": "\n".join(f"{count:,} by {which}" for which, count in report["removed"].items()),
        "mean score": f"{scores['positive']:.3f} of positives, {scores['negative']:.3f} of negatives",
    }
    blocks: list[RenderableType] = [Text(name, style="bold"), Padding(facts(said), (0, 0, 0, 2))]
    for row in report["samples"][:3]:
        texts = [row["query"], row["positive"], *row["negative"][:2]]
        labels = ("query", "positive", "negative", "negative")
        figures = ["     ", *(f"{score:.3f}" for score in row["scores"])]
        lines = [
            f"{label:<9}{figure}  {shorten(text, 90)}"
            for label, figure, text in zip(labels, figures, texts, strict=False)
        ]
        blocks.append(Padding(Text("\n".join(lines), style="dim"), (1, 0, 0, 2)))
    return Group(*blocks, "")
