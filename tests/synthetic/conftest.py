"""Data is generated with packages of the extra `synthetic`, which the environment of the developers has."""

from __future__ import annotations

import pytest

pytest.importorskip("langchain_core")
pytest.importorskip("json_repair")
pytest.importorskip("datasketch")
