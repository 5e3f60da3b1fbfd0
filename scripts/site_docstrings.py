"""What griffe calls for each docstring of the site: sections and roles of ours in the words that it knows."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r":\w+:`~?([^`]+)`")


class OurDocstrings(Extension):
    """``Example:`` is read as ``Examples:``, and a role such as ``:class:`X``` as code."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Griffe: an object has been read."""
        if obj.docstring:
            text = re.sub(r"^(\s*)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = ROLE.sub(r"`\1`", text)
