"""Errors of a source that say where in which file it is declared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass


class FieldError(ValueError):
    """What is wrong with one field of a source.

    Args:
        message: The sentence.
        field: The field.
    """

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


@contextmanager
def about(field: str) -> Iterator[None]:
    """Say of an error which field of a source it is about, unless that is known.

    Args:
        field: The field.

    Raises:
        FieldError: If anything within raises a ``ValueError``.
    """
    try:
        yield
    except FieldError:
        raise
    except ValueError as error:
        raise FieldError(str(error), field) from error


@dataclass(frozen=True)
class Place:
    """Where a source is declared.

    Args:
        file: The file.
        line: The line on which it begins.
        lines: Those of its fields.
    """

    file: str
    line: int
    lines: Mapping[str, int]

    def of(self, error: ValueError) -> str:
        """File and line of what an error is about."""
        return f"{self.file}, line {self.lines.get(getattr(error, 'field', ''), self.line)}"


class PlacedError(ValueError):
    """An error that says where it is."""


@contextmanager
def placed(place: Place | None) -> Iterator[None]:
    """Begin the sentence of an error with file and line.

    Args:
        place: Where what is done within was declared, if in a file.

    Raises:
        PlacedError: If anything within raises a ``ValueError``.
    """
    try:
        yield
    except PlacedError:
        raise
    except ValueError as error:
        if place is None:
            raise
        raise PlacedError(f"{place.of(error)}: {error}") from error
