"""``python -m st_llm2vec``, which ``accelerate launch -m`` needs."""

from st_llm2vec.cli import app

app(prog_name="st-llm2vec")
