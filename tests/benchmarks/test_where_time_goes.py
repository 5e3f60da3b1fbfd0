"""The shares of a pass add up, and operations are counted as what they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.side_by_side.encoders import Encoder
from benchmarks.where_time_goes import KINDS, kind_of, shares


class Products(Encoder):
    """Nothing but a matrix product."""

    def encode(self, texts: list[str]) -> Any:
        square = torch.ones(400, 400)
        for _ in texts:
            square = square @ square / 400
        return np.asarray(square)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::mm", 0),
        ("aten::addmm", 0),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", 1),
        ("aten::silu", 2),
        ("## Call CompiledFxGraph f00 ##", 2),
        ("something else", 3),
    ],
)
def test_kinds(name: str, kind: int) -> None:
    assert kind_of(name) == KINDS[kind]


def test_shares_of_a_pass() -> None:
    found = shares(Products(), ["one"] * 60)
    assert sum(found["shares"].values()) == pytest.approx(1, abs=0.05)
    assert found["shares"]["matrix products"] > 0.5
