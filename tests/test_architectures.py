"""What the package makes of each family's attention, and that the table in the documentation says the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING

from st_llm2vec import convert
from st_llm2vec.conversion.convert import apply_attention, prove_decoder
from st_llm2vec.modules.attention import CausalAttentionError, prove_attention, set_attention
from tests.promises import Promise
from tests.tiny_decoders import FAMILIES, tiny_decoder

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PORTABLE = ("gpt2", "llama")
REPAIRED = ("nemotron", "stablelm")
HYBRID = ("lfm2",)
REFUSED = ("gpt_neo", "mamba")
LARGEST = 2_500_000


@pytest.fixture(scope="module")
def table() -> dict[str, dict[str, Any]]:
    rows = json.loads((RESULTS / "architectures.json").read_text(encoding="utf-8"))["families"]
    return {row["family"]: row for row in rows}


@pytest.mark.promise(Promise.NEVER_CAUSAL)
@pytest.mark.parametrize("family", PORTABLE + REPAIRED + HYBRID + REFUSED)
def test_told_to_be_causal_it_is_causal(family: str) -> None:
    model = tiny_decoder(family)
    prove_decoder(model, family)
    assert prove_attention(model, "causal", family).kind == "causal"


@pytest.mark.promise(Promise.NEVER_CAUSAL)
@pytest.mark.parametrize("implementation", ("eager", "sdpa"))
@pytest.mark.parametrize("family", PORTABLE)
def test_portable(family: str, implementation: Any, table: dict[str, dict[str, Any]]) -> None:
    probe, repaired = apply_attention(tiny_decoder(family, implementation), "bidirectional", family)
    assert (probe.kind, probe.implementation, repaired) == ("bidirectional", implementation, False)
    assert probe.layers == (True, True)
    assert table[family]["verdict"] == "portable"


@pytest.mark.promise(Promise.NEVER_CAUSAL)
@pytest.mark.parametrize("family", REPAIRED)
def test_repaired(family: str, table: dict[str, dict[str, Any]]) -> None:
    model = tiny_decoder(family, "sdpa")
    set_attention(model, "bidirectional")
    with pytest.raises(CausalAttentionError, match="depends on the batch under sdpa"):
        prove_attention(model, "bidirectional", family)
    probe, repaired = apply_attention(model, "bidirectional", family)
    assert (probe.kind, repaired) == ("bidirectional", True)
    assert table[family]["verdict"] == "repaired"
    assert table[family]["implementations"]["sdpa"]["flag_alone"] == "mixed"


@pytest.mark.parametrize(("family", "layout"), (("llama", "text"), ("stablelm", "custom"), ("nemotron", "custom")))
def test_only_a_repaired_family_needs_custom_modules(tiny: Callable[..., str], family: str, layout: str) -> None:
    assert convert(tiny(family, "byte-level"), "llm2vec").manifest.layout == layout


@pytest.mark.promise(Promise.NEVER_CAUSAL)
@pytest.mark.parametrize("implementation", ("eager", "sdpa"))
@pytest.mark.parametrize("family", HYBRID)
def test_hybrid(family: str, implementation: Any, table: dict[str, dict[str, Any]]) -> None:
    probe, repaired = apply_attention(tiny_decoder(family, implementation), "bidirectional", family)
    assert (probe.kind, repaired) == ("hybrid", False)
    assert [*probe.layers] == [kind == "full_attention" for kind in FAMILIES[family]["layer_types"]]
    assert "1 of 4 layers" in probe.describe()
    assert table[family]["verdict"] == "hybrid"


@pytest.mark.promise(Promise.NEVER_CAUSAL)
@pytest.mark.parametrize("family", REFUSED)
def test_refused(family: str, table: dict[str, dict[str, Any]]) -> None:
    model = tiny_decoder(family)
    with pytest.raises(CausalAttentionError, match="echo"):
        apply_attention(model, "bidirectional", family)
    assert table[family]["verdict"] == "refused"


@pytest.mark.parametrize("family", REFUSED)
def test_a_refused_family_still_has_causal_recipes(tiny: Callable[..., str], family: str) -> None:
    folder = tiny(family, "byte-level")
    with pytest.raises(CausalAttentionError):
        convert(folder, "llm2vec")
    assert convert(folder, "echo").encode(["Hello"]).shape == (1, 64)


def test_the_table_has_every_family_in_order(table: dict[str, dict[str, Any]]) -> None:
    assert len(table) >= 45
    assert list(table) == sorted(FAMILIES)
    assert all(
        outcome["causal_when_told"] for row in table.values() for outcome in row["implementations"].values() if outcome
    )
    page = (ROOT / "docs" / "architectures.md").read_text(encoding="utf-8")
    assert [name for name in table if f"\n| `{name}` |" not in page] == []


def test_every_tiny_decoder_is_tiny() -> None:
    installed = [family for family in FAMILIES if family in CONFIG_MAPPING]
    sizes = {family: sum(one.numel() for one in tiny_decoder(family).parameters()) for family in installed}
    assert {family: size for family, size in sizes.items() if size > LARGEST} == {}


def test_the_seed_fixes_the_weights_and_leaves_the_random_state_alone() -> None:
    state = torch.random.get_rng_state()
    first, second, other = (next(tiny_decoder("llama", seed=seed).parameters()) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(ValueError, match="no tiny decoder of the family 'bert'. Known: afmoe, "):
        tiny_decoder("bert")
