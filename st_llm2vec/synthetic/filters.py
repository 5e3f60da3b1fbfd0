"""Examples that would teach something wrong are left out, each for a reason that is counted."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from st_llm2vec.data.overlap import normalized
from st_llm2vec.synthetic.groups import TaskGroup
from st_llm2vec.synthetic.settings import LANGUAGES
from st_llm2vec.synthetic.unique import copied

SHORT, LONG, SAME, COPIED, ECHO, LANGUAGE = (
    "too short",
    "too long",
    "two texts the same",
    "copied text",
    "the prompt's words",
    "another language",
)
COPY = 0.9
COPIED_FROM = 40  # characters; a shorter text may well stand in a longer one
ECHOED_WORDS = 4
JUDGED_FROM = 40  # characters; the language of less is a guess
NEIGHBOURS = ({"bs", "hr", "sr"}, {"id", "ms", "jv"}, {"no", "da"}, {"cs", "sk"}, {"hi", "mr", "ne", "sa"}, {"az", "tr"},
              {"af", "nl", "fy"}, {"ga", "gd"}, {"es", "gl", "pt"}, {"be", "ru", "uk"}, {"ky", "kk"}, {"zh", "ja"},
              {"bn", "as"}, {"ur", "fa", "ps"})  # fmt: skip
"""Languages that are taken for each other in a sentence or two."""


def why_not(group: TaskGroup, texts: Mapping[str, str], prompt: str, languages: Mapping[str, str]) -> str | None:
    """Why an example is left out.

    Args:
        group: Its group.
        texts: Its columns: ``query``, ``positive`` and, where the group has one, ``negative``.
        prompt: What the model was asked.
        languages: The language that each column was asked for in.

    Returns:
        The reason, or ``None`` where there is none.
    """
    for column, (fewest, most) in group.lengths.items():
        if not fewest <= len(texts[column]) <= most:
            return SHORT if len(texts[column]) < fewest else LONG
    if len({normalized(text) for text in texts.values()}) < len(texts):
        return SAME
    asked = normalized(prompt)
    for text in texts.values():
        words = normalized(text)
        if len(words.split()) >= ECHOED_WORDS and words in asked:
            return ECHO
    long = [text for text in texts.values() if len(text) >= COPIED_FROM]
    if any(copied(one, other) >= COPY for at, one in enumerate(long) for other in long[at + 1 :]):
        return COPIED
    if any(is_other_language(texts[column], language) for column, language in languages.items()):
        return LANGUAGE
    return None


def can_tell_languages() -> bool:
    """Whether py3langid is installed, without which no text is left out for its language."""
    return _identifier() is not None


def is_other_language(text: str, language: str) -> bool:
    """Whether a text is in another language than it should be; not where that cannot be told.

    Args:
        text: The text.
        language: The language's name.
    """
    identifier = _identifier()
    code = next(code for code, name in LANGUAGES.items() if name == language)
    if identifier is None or len(text) < JUDGED_FROM:
        return False
    ranked = [one for one, _ in identifier.rank(text) if one in LANGUAGES]
    if code not in ranked:
        return False
    return ranked[0] != code and not any({code, ranked[0]} <= those for those in NEIGHBOURS)


@cache
def _identifier() -> Any:
    try:
        import py3langid
    except ImportError:
        return None
    return py3langid
