"""The command line: one file per command, registered here in the order in which ``--help`` lists them."""

from st_llm2vec.cli import convert, import_, inspect, train, evaluate, encode, embed  # noqa: F401, I001
from st_llm2vec.cli import publish, verify, check, export, serve, demo  # noqa: F401, I001
from st_llm2vec.cli.app import app

__all__ = ["app"]
