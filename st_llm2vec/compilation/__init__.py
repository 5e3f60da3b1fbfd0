"""From an encoder's config to modules, and the proof that stock ones say the same."""

from __future__ import annotations

from st_llm2vec.compilation.compile import (
    Compilation,
    Layout,
    compile_encoder,
    compile_prompts,
    prove_reading,
)

__all__ = ["Compilation", "Layout", "compile_encoder", "compile_prompts", "prove_reading"]
