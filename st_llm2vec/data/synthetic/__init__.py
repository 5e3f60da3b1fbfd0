"""Synthetic training data, which a chat model writes: prompts, requests that are kept, filters and a report."""

from st_llm2vec.data.synthetic.asking import Asking
from st_llm2vec.data.synthetic.chat_models import ChatModel, open_chat_model
from st_llm2vec.data.synthetic.generation import generate_data
from st_llm2vec.data.synthetic.output import Prices
from st_llm2vec.data.synthetic.settings import SyntheticSettings

__all__ = ["Asking", "ChatModel", "Prices", "SyntheticSettings", "generate_data", "open_chat_model"]
