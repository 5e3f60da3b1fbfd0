"""Load an encoder and guard it.

The LangChain and the LlamaIndex adapter know nothing of each other; this file is the same in both.
"""

from __future__ import annotations

import difflib
import importlib.util
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.util import is_sentence_transformer_model

NESTED = "model_kwargs"
FOR_THE_LIBRARY = (
    "dtype",
    "attn_implementation",
    "quantization_config",
    "token",
    "local_files_only",
    "verify",
    "truncate_dim",
    "processor_kwargs",
    "tokenizer_kwargs",
    "config_kwargs",
)
SET_AFTERWARDS = ("prompts", "default_prompt_name", "similarity_fn_name")
CALLED_ELSEWHERE = {
    "instruction": "query_instruction",
    "query_prompt": "query_instruction",
    "document_instruction": "text_instruction",
    "text_instruction": "document_instruction",
    "document_prompt": "document_instruction",
    "batch_size": "embed_batch_size",
    "embed_batch_size": "batch_size",
    "model": "model_name",
    "prompts": 'model_kwargs={"prompts": {"query": ...}}',
    "dtype": 'model_kwargs={"dtype": ...}',
    "max_length": "the folder's own setting, which convert and save write",
}
"""What arguments of the other adapter and of the library are called in an adapter that has them under another name."""


def refuse_unknown(given: Iterable[str], known: Iterable[str]) -> None:
    """Raise if an argument is unknown, which would otherwise be dropped without a word.

    Args:
        given: Names of arguments.
        known: Those that there are.

    Raises:
        ValueError: If one is unknown; the message says what was probably meant.
    """
    names = sorted(known)
    for name in sorted(set(given) - set(names)):
        near = [CALLED_ELSEWHERE[name]] if name in CALLED_ELSEWHERE else difflib.get_close_matches(name, names, n=1)
        hint = f"; here it is {near[0]}." if near else f". There are {', '.join(names)}."
        raise ValueError(f"There is no argument {name!r}{hint}")


def load_encoder(
    name: str,
    *,
    revision: str | None = None,
    device: str | None = None,
    cache_folder: str | None = None,
    trust_remote_code: bool = False,
    model_kwargs: dict[str, Any] | None = None,
) -> SentenceTransformer:
    """Load an encoder from a folder or the Hugging Face Hub.

    Where st-llm2vec is installed, it loads the encoder: custom modules need no trust, no code of the repository is
    run, and the attention is proven again. Elsewhere, and with ``trust_remote_code``, Sentence Transformers does.

    Args:
        name: A folder or a repository's name.
        revision: Branch, tag or commit on the Hub.
        device: Where to put it; chosen by Sentence Transformers if not given.
        cache_folder: Where downloads are kept.
        trust_remote_code: Whether code of the repository may run.
        model_kwargs: More arguments, by the names that ``SentenceTransformer`` has for them.

    Returns:
        The encoder.

    Raises:
        ValueError: If there is no such encoder, or an argument is unknown.
    """
    given = {"revision": revision, "device": device, "cache_folder": cache_folder}
    rest = dict(model_kwargs or {})
    doubled = sorted(key for key in given if key in rest and given[key] is not None)
    if doubled:
        raise ValueError(f"{', '.join(doubled)} is given twice, as a field and in model_kwargs. Give it once.")
    given |= {key: rest.pop(key) for key in list(rest) if key in given}
    trust_remote_code = rest.pop("trust_remote_code", trust_remote_code)
    if trust_remote_code or importlib.util.find_spec("st_llm2vec") is None:
        return _load_with_sentence_transformers(name, trust_remote_code, {**given, **rest})
    return _load_with_st_llm2vec(name, given, rest)


def _load_with_st_llm2vec(name: str, given: dict[str, Any], rest: dict[str, Any]) -> SentenceTransformer:
    from st_llm2vec import load

    settings = {key: rest.pop(key) for key in SET_AFTERWARDS if key in rest}
    options = {**dict(rest.pop(NESTED, {})), **rest}
    if "torch_dtype" in options:
        options["dtype"] = options.pop("torch_dtype")
    if unknown := sorted(set(options) - set(FOR_THE_LIBRARY)):
        raise ValueError(
            f"model_kwargs holds {', '.join(unknown)}, which st_llm2vec.load does not take; it takes "
            f"{', '.join([*FOR_THE_LIBRARY, *SET_AFTERWARDS])}. With trust_remote_code=True the encoder is loaded by "
            "SentenceTransformer, which takes all of its own arguments."
        )
    encoder = load(name, **given, **options)
    for key, value in settings.items():
        setattr(encoder, key, {**encoder.prompts, **value} if key == "prompts" else value)
    return encoder


def _load_with_sentence_transformers(name: str, trust: bool, options: dict[str, Any]) -> SentenceTransformer:
    about = {key: options.get(key) for key in ("token", "cache_folder", "revision")}
    about["local_files_only"] = options.get("local_files_only", False)
    if not (Path(name) / "modules.json").is_file() and not is_sentence_transformer_model(name, **about):
        raise ValueError(
            f"There is no encoder {name}: it is neither a folder with a modules.json nor a Sentence Transformers "
            "repository that can be reached. To make an encoder from a decoder, use st_llm2vec.convert."
        )
    try:
        return SentenceTransformer(name, trust_remote_code=trust, **options)
    except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
        advice = "" if trust else " If its modules are custom ones, install st-llm2vec, which loads them without trust."
        raise ValueError(f"The encoder {name} could not be loaded: {error}{advice}") from error


def with_separator(encoder: SentenceTransformer, instruction: str) -> str:
    """An instruction as this encoder reads it: portable ``prefix`` and ``text`` layouts want a blank after it.

    An encoder that st-llm2vec loaded adds the blank itself, and plain Sentence Transformers does not.
    """
    layout = getattr(getattr(getattr(encoder[0], "model", None), "config", None), "st_llm2vec_layout", None)
    return f"{instruction.strip()} " if layout in ("prefix", "text") and instruction.strip() else instruction


def require_instructions_read(encoder: SentenceTransformer, *instructions: str | None) -> None:
    """Have the encoder read a text with each instruction, so that one which it refuses shows before the first query.

    Raises:
        ValueError: If the encoder takes no instruction, or this one leaves no room for a text.
    """
    for instruction in filter(None, instructions):
        encoder.preprocess(["A text."], prompt=with_separator(encoder, instruction))


def width(encoder: SentenceTransformer, truncate_dim: int | None) -> int:
    """How many dimensions the vectors of a call with this ``truncate_dim`` have: it cuts, and never lengthens."""
    with encoder.truncate_embeddings(truncate_dim or encoder.truncate_dim):
        return encoder.get_embedding_dimension() or 0


def require_dimension(dimension: int, expected: int | None) -> None:
    """Refuse an encoder whose vectors do not fit an index that exists.

    Raises:
        ValueError: If they do not.
    """
    if expected is not None and dimension != expected:
        raise ValueError(
            f"The encoder gives vectors of {dimension} dimensions, and {expected} are expected. Use the encoder and the "
            "truncate_dim that the index was made with, or make a new index."
        )


class OneAtATime:
    """A lock, since tokenizers cannot be used by two threads at once; pickled and copied, it is a new one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[OneAtATime], tuple[()]]:
        return OneAtATime, ()
