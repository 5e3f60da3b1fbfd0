"""The command line: one file per command, registered here in the order in which ``--help`` lists them."""

from st_llm2vec.cli import convert, import_, inspect, data, data_mine, data_generate, data_preview, train  # noqa: F401, I001
from st_llm2vec.cli import evaluate, evaluate_tasks, evaluate_report, evaluate_layers  # noqa: F401, I001
from st_llm2vec.cli import demonstrations  # noqa: F401, I001
from st_llm2vec.cli import encode, embed, publish, verify, check, export, serve, demo  # noqa: F401, I001
from st_llm2vec.cli.app import app

__all__ = ["app"]
