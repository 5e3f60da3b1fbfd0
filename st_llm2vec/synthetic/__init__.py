"""Synthetic training data, which a chat model writes: prompts, requests that are kept, filters and a report."""

from st_llm2vec.synthetic.asking import Asking
from st_llm2vec.synthetic.chat_models import ChatModel, open_chat_model
from st_llm2vec.synthetic.generation import generate_data
from st_llm2vec.synthetic.output import Prices
from st_llm2vec.synthetic.settings import SyntheticSettings

__all__ = ["Asking", "ChatModel", "Prices", "SyntheticSettings", "generate_data", "open_chat_model"]
