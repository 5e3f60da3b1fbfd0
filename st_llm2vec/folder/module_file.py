"""The module file that a custom folder carries, so that it loads where this package is not installed."""

from __future__ import annotations

import ast
from pathlib import Path

MODULE_NAME = "st_llm2vec_modules"
SOURCES = (
    "modules/adapter.py",
    "modules/attention.py",
    "recipe/template.py",
    "recipe/poolings.py",
    "modules/special_tokens.py",
    "modules/pooled_span.py",
    "modules/truncation.py",
    "modules/padding.py",
    "modules/readings.py",
    "modules/formatter.py",
    "modules/instructed.py",
    "modules/transformer.py",
    "modules/span_pooling.py",
    "modules/latent_attention.py",
)
HEADER = '''"""The Sentence Transformers modules of this encoder, from st-llm2vec (Apache-2.0).

With st-llm2vec installed, ``st_llm2vec.load`` reads this folder without running this file.
Without it, ``SentenceTransformer(..., trust_remote_code=True)`` does.
"""
'''


def module_file_text() -> str:
    """This package's modules as one file without imports among themselves."""
    folder = Path(__file__).parents[1]
    imports: set[str] = set()
    bodies: list[str] = []
    for name in SOURCES:
        source = (folder / name).read_text(encoding="utf-8")
        lines = source.splitlines()
        for node in ast.parse(source).body:
            is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if isinstance(node, ast.Import | ast.ImportFrom) or is_docstring:
                if not is_docstring and not (
                    isinstance(node, ast.ImportFrom) and str(node.module).startswith("st_llm2vec")
                ):
                    imports.add(ast.unparse(node))
                for index in range(node.lineno - 1, node.end_lineno or node.lineno):
                    lines[index] = ""
        bodies.append("\n".join(lines).strip())
    future = "from __future__ import annotations"
    ordered = [future, *sorted(imports - {future})]
    return HEADER + "\n" + "\n".join(ordered) + "\n\n" + "\n\n\n".join(bodies) + "\n"
