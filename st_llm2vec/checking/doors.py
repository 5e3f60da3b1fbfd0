"""One folder, one vector: saved and loaded, read by plain Sentence Transformers, and in other types of weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from st_llm2vec.checking.finding import Finding
from st_llm2vec.checking.subject import Subject
from st_llm2vec.folder.load import load
from st_llm2vec.folder.module_file import MODULE_NAME
from st_llm2vec.modules.attention import configured_attention
from st_llm2vec.proof.distance import largest_cosine_distance
from st_llm2vec.proof.fresh_process import read_without_package
from st_llm2vec.proof.tolerances import DRIFT


def reloaded(subject: Subject) -> Iterator[Finding]:
    """What is saved is loaded with the same vectors."""
    again = subject.vectors(load(subject.saved, device=str(subject.encoder.device)))
    distance = largest_cosine_distance(again, subject.together)
    yield subject.compared("saving and loading", f"{subject.compared_on}, before and after", distance)


def plain_reading(subject: Subject) -> Iterator[Finding]:
    """Sentence Transformers alone, in a process where this package is missing, gives the same vectors and attention."""
    name = "plain Sentence Transformers"
    custom = (subject.saved / f"{MODULE_NAME}.py").is_file()
    folder = subject.saved if subject.folder is None or custom else subject.folder  # no code of a given folder runs
    device = str(subject.encoder.device)
    try:
        reading = read_without_package(
            folder, subject.texts, subject.prompt_names, trust_remote_code=custom, device=device
        )
    except ValueError as error:
        yield Finding(name, False, str(error))
        return
    if configured_attention(subject.encoder.transformer.model) == "bidirectional" and not reading.probe.sees_future:
        yield Finding(name, False, f"It is meant to attend in both directions, and is {reading.probe.describe()}.")
        return
    way = "by the module file that it carries" if custom else "by stock modules"
    said = f"{subject.compared_on}, read where st_llm2vec is missing, {way}; {reading.probe.describe()}"
    yield subject.compared(name, said, largest_cosine_distance(reading.vectors, subject.together))


def drift(subject: Subject, name: str) -> Finding:
    """The vectors in another type of weights are those in float32, but for its rounding.

    Args:
        subject: What is checked.
        name: The type, e.g. ``"bfloat16"``.
    """
    if getattr(subject.encoder.transformer.model, "is_quantized", False):
        return Finding(name, None, "The weights are quantised, and have no other type.")
    dtype = getattr(torch, name)
    try:
        if dtype == torch.float32:
            found = subject.in_float32
        elif dtype == subject.dtype:
            found = subject.together
        else:
            found = subject.vectors(load(subject.saved, dtype=dtype, device=str(subject.encoder.device)))
    except ValueError as error:
        return Finding(name, False, str(error))
    except RuntimeError as error:  # PyTorch lacks an operation in this type
        return Finding(name, None, f"It cannot be computed here: {str(error).splitlines()[0]}")
    by_text = [
        largest_cosine_distance(*pair)
        for pair in zip(found.swapaxes(0, 1), subject.in_float32.swapaxes(0, 1), strict=True)
    ]
    distance = max(by_text)
    said = f"{subject.compared_on}, in {name} and float32"
    if distance > DRIFT.of(dtype):
        said += (
            f"; farthest is {subject.texts[by_text.index(distance)][:40]!r}, and the median is {np.median(by_text):.1e}"
        )
    return Finding.measured(name, said, distance, DRIFT.of(dtype))
