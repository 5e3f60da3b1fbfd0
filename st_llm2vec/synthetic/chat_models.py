"""Which chat model is meant: a folder, an endpoint, a provider's model, or an object of one's own."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_llm2vec.synthetic.settings import SyntheticSettings

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

INSTALL = "pip install 'st-llm2vec[synthetic]'"
KEY = "OPENAI_API_KEY"
LOCAL, ENDPOINT, PROVIDER, OWN = "in this process", "endpoint", "provider", "object"


@dataclass(frozen=True)
class ChatModel:
    """A chat model and what is known of it.

    Args:
        model: The model.
        name: What requests know it by: the same name, wherever it runs.
        kind: How it is reached.
        about: What else belongs to the provenance.
    """

    model: BaseChatModel
    name: str
    kind: str
    about: dict[str, Any] = field(default_factory=dict)


def require_langchain() -> None:
    """Raise unless the packages of the extra are installed.

    Raises:
        ValueError: If one is not.
    """
    for name in ("langchain_core", "json_repair", "datasketch"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(f"Generating data needs {name}, which is not installed: {INSTALL}.") from error


def open_chat_model(
    name: str,
    settings: SyntheticSettings,
    *,
    base_url: str | None = None,
    key_from: str = KEY,
    timeout: float = 300.0,
    dtype: str | None = "auto",
) -> ChatModel:
    """Open a chat model by its name.

    Args:
        name: A decoder's folder, which runs in this process; the name of a model at ``base_url``;
            ``provider:name``, as ``init_chat_model`` of LangChain knows it; or ``package.module:object``, a chat model of
            LangChain's, or a function of ``temperature``, ``top_p`` and ``max_tokens`` that returns one.
        settings: The sampling.
        base_url: An endpoint that speaks OpenAI's protocol, such as ``http://localhost:8000/v1``.
        key_from: The environment variable with its key.
        timeout: Seconds that an answer may take.
        dtype: Weights' type of a folder.

    Raises:
        ValueError: If there is no such model, or what it needs is not installed.
    """
    require_langchain()
    sampling: dict[str, Any] = {"temperature": settings.temperature}
    sampling |= (
        {"top_p": settings.top_p} if settings.top_p < 1 else {}
    )  # 1 is everywhere the default, and not always known
    sampling |= {"max_tokens": settings.max_tokens} if settings.max_tokens is not None else {}
    if base_url is not None:
        made = _endpoint()(
            model=name, base_url=base_url, api_key=os.environ.get(key_from) or "none", timeout=timeout, max_retries=0,
            **sampling,
        )  # fmt: skip
        return ChatModel(made, name, ENDPOINT, {"base_url": base_url})
    if Path(name).expanduser().is_dir():
        from st_llm2vec.synthetic.local_chat import LocalChat

        folder = Path(name).expanduser().resolve()
        local = LocalChat(folder=str(folder), dtype=dtype, seed=settings.seed, **sampling)
        return ChatModel(local, folder.name, LOCAL, {"folder": str(folder), "max_tokens": local.max_tokens})
    before, colon, after = name.partition(":")
    if not (before and colon and after):
        raise ValueError(
            f"There is no folder {name}. Give a decoder's folder; a name with --base-url; provider:name, such as "
            "openai:gpt-4.1-mini; or package.module:object."
        )
    if "." in before or _is_module(before):
        return ChatModel(_own(before, after, settings), name, OWN)
    return ChatModel(_provided(name, {**sampling, "timeout": timeout, "max_retries": 0}), name, PROVIDER)


def _endpoint() -> Callable[..., Any]:
    try:
        from langchain_openai import ChatOpenAI
    except ImportError as error:
        raise ValueError(f"--base-url needs langchain-openai, which is not installed: {INSTALL}.") from error
    return ChatOpenAI


def _provided(name: str, options: dict[str, Any]) -> BaseChatModel:
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as error:
        raise ValueError(
            f"{name} is a provider's model, for which langchain and the provider's package are needed: pip install langchain."
        ) from error
    try:
        return init_chat_model(name, **options)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{name} cannot be opened: {error}") from error


def _is_module(name: str) -> bool:
    """Whether a name is that of a module beside the working directory's files."""
    return Path(f"{name}.py").is_file() or (Path(name) / "__init__.py").is_file()


def _own(module: str, attribute: str, settings: SyntheticSettings) -> BaseChatModel:
    from langchain_core.language_models import BaseChatModel

    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{module}:{attribute} cannot be imported: {error}.") from error
    if not isinstance(found, BaseChatModel) and callable(found):
        found = found(temperature=settings.temperature, top_p=settings.top_p, max_tokens=settings.max_tokens)
    if not isinstance(found, BaseChatModel):
        raise ValueError(
            f"{module}:{attribute} is {type(found).__name__}; a chat model of LangChain's is expected, or a function that "
            "returns one."
        )
    return found
