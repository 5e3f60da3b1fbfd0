"""The student's texts become as alike as the teacher's are."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity

from st_llm2vec import TextEncoder, convert
from st_llm2vec.losses import SimilarityDistillationLoss

from ..conftest import TEXTS

TAUGHT = torch.randn(len(TEXTS), 7, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def student(decoder: str) -> TextEncoder:
    return convert(decoder, "llm2vec", dtype=torch.float32, device="cpu", measure=False)


def similarities(vectors: torch.Tensor) -> torch.Tensor:
    return cosine_similarity(vectors[:, None], vectors[None], dim=-1)


def test_it_is_the_mean_squared_difference_of_all_similarities(student: TextEncoder) -> None:
    student.eval()
    vectors = student.encode(TEXTS, convert_to_tensor=True)
    found = SimilarityDistillationLoss(student)([student.preprocess(TEXTS)], TAUGHT)
    expected = (similarities(vectors) - similarities(TAUGHT)).pow(2).mean()
    assert float(found) == pytest.approx(float(expected), rel=1e-4)
    own = SimilarityDistillationLoss(student)([student.preprocess(TEXTS)], 3 * vectors)
    assert float(own) == pytest.approx(0, abs=1e-9)


def test_with_a_temperature_it_is_the_divergence_from_the_other_texts(student: TextEncoder) -> None:
    student.eval()
    vectors = student.encode(TEXTS, convert_to_tensor=True)
    found = SimilarityDistillationLoss(student, temperature=0.1)([student.preprocess(TEXTS)], TAUGHT)
    expected = 0.0
    for place in range(len(TEXTS)):
        others = [one for one in range(len(TEXTS)) if one != place]
        student_share, teacher_share = (
            (similarities(one)[place, others] / 0.1).softmax(0) for one in (vectors, TAUGHT)
        )
        expected += float((teacher_share * (teacher_share / student_share).log()).sum()) / len(TEXTS)
    assert float(found) == pytest.approx(expected, rel=1e-3)


def test_several_columns_are_one_matrix(student: TextEncoder) -> None:
    student.eval()
    loss = SimilarityDistillationLoss(student)
    columns = [student.preprocess(part) for part in (TEXTS[:2], TEXTS[2:4])]
    together = loss(columns, torch.stack([TAUGHT[:2], TAUGHT[2:4]], dim=1))
    assert float(together) == pytest.approx(float(loss([student.preprocess(TEXTS[:4])], TAUGHT[:4])), rel=1e-4)


@pytest.mark.parametrize("temperature", [None, 0.1])
def test_the_gradient_comes_through_both_sides_of_the_matrix(temperature: float | None) -> None:
    vectors = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    loss = SimilarityDistillationLoss.__new__(SimilarityDistillationLoss)
    torch.nn.Module.__init__(loss)
    loss.temperature, loss.gather_across_devices = temperature, False
    leaf = vectors.float().requires_grad_()
    loss.compute_loss_from_embeddings([leaf], TAUGHT[:4]).backward()
    step = 1e-2
    for place in ((0, 0), (3, 2)):
        ends = []
        for sign in (1, -1):
            moved = vectors.float().clone()
            moved[place] += sign * step
            ends.append(float(loss.compute_loss_from_embeddings([moved], TAUGHT[:4])))
        assert float(leaf.grad[place]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=0.02, abs=1e-3)


def test_what_cannot_be_compared_is_refused(student: TextEncoder) -> None:
    features = [student.preprocess(TEXTS[:2])]
    with pytest.raises(ValueError, match="there are none"):
        SimilarityDistillationLoss(student)(features, None)
    with pytest.raises(ValueError, match=r"1 columns of 2 texts.*\(3, 7\); each text needs one"):
        SimilarityDistillationLoss(student)(features, TAUGHT[:3])
    with pytest.raises(ValueError, match="holds 2 texts"):
        SimilarityDistillationLoss(student, temperature=0.1)(features, TAUGHT[:2])
    with pytest.raises(ValueError, match="must be positive"):
        SimilarityDistillationLoss(student, temperature=0)
