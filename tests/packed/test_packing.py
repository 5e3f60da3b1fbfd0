"""From a padded batch to a row of tokens and back."""

from __future__ import annotations

import pytest
import torch

from st_llm2vec.packed.enable import shared_prefix
from st_llm2vec.packed.packing import Packing

RIGHT = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
MASKS = {"right": RIGHT, "left": RIGHT.flip(1)}


@pytest.mark.parametrize("side", MASKS)
def test_there_and_back(side: str) -> None:
    mask = MASKS[side]
    ids = torch.arange(20).view(4, 5)
    packing = Packing.of(mask)
    assert packing.segments.lengths == (2, 2, 4, 5)
    assert sorted(packing.pack(ids)[0].tolist()) == sorted(ids[mask.bool()].tolist())
    assert torch.equal(packing.unpack(packing.pack(ids.unsqueeze(-1)))[..., 0], ids * mask)
    assert packing.positions.tolist() == [0, 1, 0, 1, 0, 1, 2, 3, 0, 1, 2, 3, 4]


@pytest.mark.parametrize("side", MASKS)
def test_a_prefix_stands_in_the_row_once_and_comes_back_to_every_text(side: str) -> None:
    mask = MASKS[side]
    ids = torch.zeros(4, 5, dtype=torch.long)
    ids[mask.bool()] = torch.cat(
        [torch.tensor([7, *range(10 * segments, 10 * segments + n - 1)]) for segments, n in enumerate((4, 2, 5, 2))]
    )
    assert shared_prefix(ids, mask) == 1
    packing = Packing.of(mask, prefix=1)
    assert packing.segments.lengths == (1, 1, 3, 4)
    assert packing.segments.prefix == 1
    assert packing.pack(ids)[0].tolist().count(7) == 1
    assert packing.positions.tolist() == [0, 1, 1, 1, 2, 3, 1, 2, 3, 4]
    assert torch.equal(packing.unpack(packing.pack(ids.unsqueeze(-1)))[..., 0], ids)


def test_every_text_keeps_a_token_of_its_own() -> None:
    same = torch.full((3, 4), 5)
    assert shared_prefix(same, torch.ones_like(same)) == 3
    assert shared_prefix(same[:1], torch.ones_like(same[:1])) == 0
    assert shared_prefix(same, torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0]])) == 0


def test_a_row_without_tokens_comes_back_as_zeros() -> None:
    mask = torch.tensor([[1, 1], [0, 0]])
    packing = Packing.of(mask)
    assert packing.segments.lengths == (2,)
    assert packing.unpack(torch.ones(1, 2, 3)).sum(dim=-1).tolist() == [[3, 3], [0, 0]]
