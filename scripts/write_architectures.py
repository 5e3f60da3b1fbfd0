"""Probe a tiny decoder of every family and write ``docs/architectures.md`` and
``benchmarks/results/architectures.json``.

Run it in the repository's root: ``python scripts/write_architectures.py``. It takes about half a minute on one idle core.
"""

from __future__ import annotations

import inspect
import json
import textwrap
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import transformers
from tqdm import tqdm
from transformers import PreTrainedModel

from st_llm2vec.conversion.convert import apply_attention
from st_llm2vec.modules.attention import (
    AttentionProbe,
    CausalAttentionError,
    probe_attention,
    repair_attention,
    set_attention,
    without_cache,
)
from st_llm2vec.proof.left_padding import needs_position_ids
from tests.tiny_decoders import FAMILIES, tiny_decoder

ROOT = Path(__file__).resolve().parents[1]
DOCS, RESULTS = ROOT / "docs", ROOT / "benchmarks" / "results"
COMMAND = "python scripts/write_architectures.py"
IMPLEMENTATIONS = {"eager": "eager", "sdpa": "SDPA"}
TEXT_TOKENS, PADDING = 6, 4

VERDICTS = {
    "portable": "`is_causal` in `config.json` makes every layer bidirectional under every implementation the family "
    "has. The encoder can be saved with the modules of Sentence Transformers alone.",
    "repaired": "`is_causal` in `config.json` is not enough under at least one implementation. The attention modules "
    "must be changed after every load, so the encoder is saved with the modules of this package.",
    "hybrid": "the layers with attention become bidirectional, the others (recurrent, convolutional, or a plain MLP in "
    "a layer of its own) carry nothing backwards. The numbers are for the tiny model.",
    "depends": "conversion is accepted, but what a text sees depends on the attention implementation or on padding; "
    "the other columns say which.",
    "unclear": "the model as a whole sees the future, but no single layer was seen to: the probe of single layers does "
    "not fit the family.",
    "refused": "the model stays causal whatever it is told, and conversion to a bidirectional encoder raises an error. "
    "Causal recipes such as `echo` and `prompteol` still work, with padding on the right where the column before says "
    "that padding on the left changes the states.",
    "fails": "the model's own code raises an error when it is bidirectional, and so does conversion. Causal recipes "
    "such as `echo` and `prompteol` still work.",
    "not causal": "the model sees the future although it is told not to: it is no decoder.",
}

INTRODUCTION = """# Architectures

Whether a decoder can be made bidirectional depends on the code of its family, not on its size or training. This table
was made by trying: for every family, a model with two to four narrow layers and random weights is built, told to be
causal and then to be bidirectional, and asked what it sees.

The probe changes the last token of a short text and looks at the state of the first one. In a causal model that state
cannot change; in a bidirectional model it must. The probe does so in a batch without padding, with padding on the
right and with padding on the left, and then for each layer on its own.

The table was written by `{command}`
with Transformers {transformers} and PyTorch {torch}, on a CPU,
under two attention implementations: eager and SDPA (`torch.nn.functional.scaled_dot_product_attention`). Flash
attention needs a GPU and was not tried. The same data, with more detail, is in
[architectures.json](../benchmarks/results/architectures.json). `convert` runs the same probe on the model it is given, so nothing rests on
this table.

## What the columns say

- **eager**, **SDPA**: what the model is once `is_causal` in its configuration is `false`, without any repair:
  *bidirectional*; *hybrid*, where some layers stay causal; *mixed*, where it depends on padding; *causal*; *fails*,
  where the model's own code raises the error that is named. *Not supported* means that the family's class does not
  have the implementation.
- **repair**: whether the attention modules must be changed as well, and what follows for the saved folder.
- **layers that see the future**: how many layers alone carry something from the last token to the first. A layer
  counts if any part of it does: a layer of Falcon-H1 has attention and a recurrence side by side, and only the
  attention sees the future.
- **left padding needs position ids**: *yes* if padding on the left moves the positions of the text unless they are
  given. *No, but the states change* and *yes, and they are not enough* mean that a text has other states with padding
  on the left than alone, so such a family wants padding on the right.
- **verdict**:
{verdicts}

Every family but those marked *not causal* was also seen to be causal when it is told to be.

A sliding window stays a window, now on both sides of a token; the probe's text is shorter than any.

The probe tells what a token can see, not what it makes of it. In families with ALiBi (BLOOM, MPT, and Falcon where it
is configured so) the bias grows with the position of the key, so once the mask is gone, tokens far to the right are
preferred to near ones; such a model needs training before its vectors mean much.

## {count} families

{summary}.

| family | model class | eager | SDPA | repair | layers that see the future | left padding needs position ids | verdict |
|---|---|---|---|---|---|---|---|
"""


def main() -> None:
    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    families = [probe_family(family) for family in tqdm(sorted(FAMILIES), desc="Families")]
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    data = {"command": COMMAND, "versions": versions, "implementations": list(IMPLEMENTATIONS), "families": families}
    DOCS.mkdir(exist_ok=True)
    (RESULTS / "architectures.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    (DOCS / "architectures.md").write_text(markdown(families, versions), encoding="utf-8")
    print(summary(families))


# Probing ---------------------------------------------------------------------------------------------


def probe_family(family: str) -> dict[str, Any]:
    """Everything the table says of a family."""
    model = tiny_decoder(family)
    names = [name for name in IMPLEMENTATIONS if name == "eager" or model._supports_sdpa]
    outcomes = {name: probe_implementation(family, name) for name in names}
    conversion = convert_tiny(model, family)
    row = {
        "family": family,
        "model_class": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "conversion": conversion,
        "implementations": {name: outcomes.get(name) for name in IMPLEMENTATIONS},
    }
    return {**row, "verdict": verdict(conversion, list(outcomes.values()))}


def convert_tiny(model: PreTrainedModel, family: str) -> dict[str, Any]:
    """What ``convert`` does with the model's attention, under the implementation Transformers chooses."""
    try:
        probe, repaired = apply_attention(model, "bidirectional", family)
    except CausalAttentionError:
        return {"result": "refused", "repaired": False, "error": None}
    except Exception as error:
        return {"result": "fails", "repaired": False, "error": f"{type(error).__name__}: {error}"}
    return {"result": probe.kind, "repaired": repaired, "error": None}


def probe_implementation(family: str, implementation: str) -> dict[str, Any]:
    """What a family does under one attention implementation, told to be causal, then to be bidirectional."""
    model = tiny_decoder(family, implementation)
    set_attention(model, "causal")
    outcome: dict[str, Any] = {"causal_when_told": probe_attention(model).kind == "causal"}
    set_attention(model, "bidirectional")
    flag = try_probe(model)
    final = flag
    if not isinstance(flag, AttentionProbe) or not flag.sees_future:
        repair_attention(model, "bidirectional")
        final = try_probe(model)
    seen = isinstance(final, AttentionProbe) and final.sees_future
    if not seen:
        set_attention(model, "causal")
        repair_attention(model, "causal")
    return {
        **outcome,
        "flag_alone": flag.kind if isinstance(flag, AttentionProbe) else "fails",
        "after_repair": None if final is flag else final.kind if isinstance(final, AttentionProbe) else "fails",
        "error": None if isinstance(flag, AttentionProbe) else f"{type(flag).__name__}: {flag}",
        "sees_future": seen,
        "layers": list(final.layers) if isinstance(final, AttentionProbe) else [],
        **probe_padding(model),
    }


def try_probe(model: PreTrainedModel) -> AttentionProbe | Exception:
    """The probe, or the error the model's own code raises."""
    try:
        return probe_attention(model)
    except Exception as error:
        return error


@torch.no_grad()
def probe_padding(model: PreTrainedModel) -> dict[str, bool]:
    """Whether a text has the same states alone and beside padding."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(10, model.get_input_embeddings().num_embeddings, (1, TEXT_TOKENS), generator=generator)
    padding = torch.zeros(1, PADDING, dtype=torch.long)
    alone = model(input_ids=text, **without_cache(model)).last_hidden_state[0]

    def same(side: str, with_positions: bool) -> bool:
        order = (padding, text) if side == "left" else (text, padding)
        ids = torch.cat(order, dim=1)
        mask = torch.cat([torch.ones_like(part) if part is text else torch.zeros_like(part) for part in order], dim=1)
        options: dict[str, Any] = without_cache(model)
        if with_positions and "position_ids" in inspect.signature(model.forward).parameters:
            options["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
        padded = model(input_ids=ids, attention_mask=mask, **options).last_hidden_state[0][mask[0].bool()]
        return bool((alone - padded).abs().max() < 1e-3 * alone.abs().max())

    return {
        "right_padding_harmless": same("right", with_positions=False),
        "left_padding_harmless": same("left", with_positions=False),
        "left_padding_harmless_with_position_ids": same("left", with_positions=True),
        "needs_position_ids": needs_position_ids(model),
    }


def verdict(conversion: dict[str, Any], outcomes: list[dict[str, Any]]) -> str:
    """One word for a family; see :data:`VERDICTS`."""
    if not all(outcome["causal_when_told"] for outcome in outcomes):
        return "not causal"
    if conversion["result"] in ("refused", "fails"):
        return str(conversion["result"])
    if not all(outcome["sees_future"] and outcome["right_padding_harmless"] for outcome in outcomes):
        return "depends"
    if any(outcome["layers"] != outcomes[0]["layers"] for outcome in outcomes):
        return "depends"
    if outcomes[0]["layers"] and not any(outcomes[0]["layers"]):
        return "unclear"
    if conversion["repaired"]:
        return "repaired"
    return "hybrid" if conversion["result"] == "hybrid" else "portable"


# Writing ---------------------------------------------------------------------------------------------


def markdown(families: list[dict[str, Any]], versions: dict[str, str]) -> str:
    """The page."""
    found = {row["verdict"] for row in families}
    lines = (f"*{word}*: {meaning}" for word, meaning in VERDICTS.items() if word in found)
    verdicts = "\n".join(textwrap.fill(line, 120, initial_indent="  - ", subsequent_indent="    ") for line in lines)
    introduction = INTRODUCTION.format(
        command=COMMAND, verdicts=verdicts, count=len(families), summary=summary(families), **versions
    )
    return introduction + "".join(f"| {' | '.join(cells(row))} |\n" for row in families)


def summary(families: list[dict[str, Any]]) -> str:
    """How many families have each verdict, in words."""
    counts = Counter(row["verdict"] for row in families)
    return ", ".join(f"{counts[word]} {word}" for word in VERDICTS if counts[word])


def cells(row: dict[str, Any]) -> list[str]:
    """A family's line of the table."""
    outcomes = {name: outcome for name, outcome in row["implementations"].items() if outcome is not None}
    layers = {name: count_layers(outcome) for name, outcome in outcomes.items()}
    word = row["verdict"]
    if word == "hybrid":
        word = f"hybrid ({next(iter(layers.values()))} layers)"
    return [
        f"`{row['family']}`",
        f"`{row['model_class']}`",
        *(attention_cell(outcome) for outcome in row["implementations"].values()),
        repair_cell(row["conversion"], outcomes),
        together(layers),
        together({name: left_padding(outcome) for name, outcome in outcomes.items()}),
        word,
    ]


def attention_cell(outcome: dict[str, Any] | None) -> str:
    """What one implementation does."""
    if outcome is None:
        return "not supported"
    if outcome["error"]:
        return f"fails ({outcome['error'].split(':')[0]})"
    kind = str(outcome["flag_alone"])
    return kind if outcome["right_padding_harmless"] else f"{kind}, but padding changes the states"


def repair_cell(conversion: dict[str, Any], outcomes: dict[str, dict[str, Any]]) -> str:
    """Whether a repair is needed, and whether the saved folder needs this package for it."""
    if conversion["result"] in ("refused", "fails"):
        return "does not help"
    if not conversion["repaired"]:
        return "no"
    needed = [IMPLEMENTATIONS[name] for name, outcome in outcomes.items() if outcome["after_repair"] is not None]
    return f"yes, for {' and '.join(needed)}; saved with custom modules"


def count_layers(outcome: dict[str, Any]) -> str:
    """How many layers see the future."""
    layers = outcome["layers"]
    return f"{sum(layers)} of {len(layers)}" if layers else "not known"


def left_padding(outcome: dict[str, Any]) -> str:
    """What padding on the left asks for."""
    if outcome["needs_position_ids"]:
        return "yes" if outcome["left_padding_harmless_with_position_ids"] else "yes, and they are not enough"
    return "no" if outcome["left_padding_harmless"] else "no, but the states change"


def together(values: dict[str, str]) -> str:
    """One value where the implementations agree, or each with its name."""
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    return "; ".join(f"{IMPLEMENTATIONS[name]}: {value}" for name, value in values.items())


if __name__ == "__main__":
    main()
