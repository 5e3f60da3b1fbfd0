"""``python -m st_llm2vec``: the command line, which ``accelerate launch -m`` needs too."""

from st_llm2vec.cli import app

if __name__ == "__main__":
    app(prog_name="st-llm2vec")
