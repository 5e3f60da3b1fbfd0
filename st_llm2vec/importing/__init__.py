"""Published checkpoints of other projects, brought home without running their code."""

from st_llm2vec.importing.detect import detect_recipe, from_published
from st_llm2vec.importing.llm2vec import from_llm2vec
from st_llm2vec.importing.nv_embed import from_nv_embed

__all__ = ["detect_recipe", "from_llm2vec", "from_nv_embed", "from_published"]
