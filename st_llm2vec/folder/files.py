"""The files of a folder before anything is loaded from them: are they what their names say?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError, safe_open

from st_llm2vec.folder.plain_files import require_plain_files
from st_llm2vec.folder.refuse_code import BERT_CONFIG, refuse_code

POINTER = b"version https://git-lfs.github.com/spec/"
CARRIED_BY_LFS = ("*.safetensors", "*.bin", "*.gguf", "tokenizer.json", "tokenizer.model")
INDEX = "model.safetensors.index.json"
AGAIN = "save or download it again"

Kinds = tuple[type, ...]
TEXT, WHOLE, FLAG, MAP, LIST = (str,), (int,), (bool,), (dict,), (list,)
WORDS: dict[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}
SHAPES: dict[str, dict[str, Kinds]] = {
    "config.json": {
        "model_type": TEXT,
        "architectures": LIST,
        "is_causal": FLAG,
        "st_llm2vec_layout": TEXT,
        "quantization_config": MAP,
    },
    "config_sentence_transformers.json": {
        "prompts": MAP,
        "default_prompt_name": TEXT,
        "similarity_fn_name": TEXT,
        "truncate_dim": WHOLE,
        "requirements": MAP,
    },
    BERT_CONFIG: {
        "max_seq_length": WHOLE,
        "do_lower_case": FLAG,
        "transformer_task": TEXT,
        "modality_config": MAP,
        "module_output_name": TEXT,
        "processing_kwargs": MAP,
        "model_kwargs": MAP,
        "processor_kwargs": MAP,
        "config_kwargs": MAP,
        "attention": TEXT,
        "formatter": MAP,
    },
    "tokenizer_config.json": {
        "tokenizer_class": TEXT,
        "model_max_length": (int, float),
        "padding_side": TEXT,
        "truncation_side": TEXT,
        "added_tokens_decoder": MAP,
        "extra_special_tokens": (list, dict),
        "chat_template": (str, list, dict),
        **dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), (str, dict)),
    },
    "adapter_config.json": {
        "peft_type": TEXT,
        "base_model_name_or_path": TEXT,
        "revision": TEXT,
        "auto_mapping": MAP,
    },
    INDEX: {"weight_map": MAP},
    "special_tokens_map.json": {},
    "added_tokens.json": {},
    "generation_config.json": {},
}
"""What the fields of a folder's JSON files may hold, where they are there and not null."""
MODULE_SHAPES: dict[str, Mapping[str, Kinds]] = {"config.json": {}, BERT_CONFIG: SHAPES[BERT_CONFIG]}
"""The same of the files in a module's own folder, the ``Transformer``'s among them if it has one."""


def require_readable(folder: Path, source: str | Path) -> None:
    """Raise if a file is none, a git-lfs pointer, no JSON or JSON of the wrong shape, or a shard is missing.

    Args:
        folder: A decoder's or an encoder's folder.
        source: Its name, for the message.

    Raises:
        ValueError: If a file is not what its name says; the message names it.
    """
    require_plain_files(folder, source)
    _refuse_pointers(folder, "", source)
    for name, fields in SHAPES.items():
        if (folder / name).is_file():
            data = read_json(folder / name, source)
            require_fields(data, fields, name, source)
            refuse_code(data, name, source)
    if (folder / INDEX).is_file():
        shard_files(folder, source)
    if (folder / BERT_CONFIG).is_file():
        _require_modalities(read_json(folder / BERT_CONFIG, source).get("modality_config"), source)


def read_modules(folder: Path, source: str | Path) -> list[dict[str, Any]]:
    """Read ``modules.json`` and look at the settings of each module.

    Args:
        folder: An encoder's folder.
        source: Its name, for the message.

    Returns:
        The modules, each with its ``type`` and its ``path`` inside the folder.

    Raises:
        ValueError: If it does not list modules, or their settings are of the wrong shape.
    """
    entries = read_json(folder / "modules.json", source)
    if not isinstance(entries, list) or not entries or not all(_is_module(entry) for entry in entries):
        raise ValueError(f"modules.json of {source} does not list modules with a type and a path; {AGAIN}.")
    for entry in entries:
        path = PurePosixPath(entry["path"])
        if path.is_absolute() or ".." in path.parts or "\\" in entry["path"]:
            raise ValueError(
                f"modules.json of {source} names the path {entry['path']!r}, which leads out of the folder."
            )
        _refuse_pointers(folder, entry["path"], source)
        for name, fields in MODULE_SHAPES.items() if entry["path"] else ():
            if (folder / path / name).is_file():
                data = read_json(folder / path / name, source, f"{path}/{name}")
                require_fields(data, fields, f"{path}/{name}", source)
                refuse_code(data, f"{path}/{name}", source)
    return entries


def read_json(path: Path, source: str | Path, name: str | None = None) -> Any:
    """Read a JSON file of a folder.

    Args:
        path: The file.
        source: The folder's name, for the message.
        name: The file's name there, if it is not in the folder itself.

    Returns:
        What it holds.

    Raises:
        ValueError: If it is not there, a git-lfs pointer or no JSON.
    """
    if not path.is_file():
        raise ValueError(f"{source} has no {name or path.name}, so it is incomplete; {AGAIN}.")
    refuse_pointer(path, source, name)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name or path.name} of {source} is not valid JSON ({error}); {AGAIN}.") from error


def require_fields(data: Any, fields: Mapping[str, Kinds], name: str, source: str | Path) -> None:
    """Raise unless data is an object whose fields hold what they must, where they are there and not null.

    Args:
        data: What the file holds.
        fields: The types that a field may have.
        name: The file's name, for the message.
        source: The folder's name, for the message.

    Raises:
        ValueError: If it is not; the message names the file and the field.
    """
    if not isinstance(data, dict):
        raise ValueError(f"{name} of {source} must hold a JSON object, not {_words(type(data))}; {AGAIN}.")
    for field, kinds in fields.items():
        value = data.get(field)
        if value is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            wanted = " or ".join(map(_words, kinds))
            raise ValueError(
                f"{name} of {source} must hold {wanted} as {field!r}, not {_words(type(value))} ({value!r:.60}); {AGAIN}."
            )


def refuse_pointer(file: Path, source: str | Path, name: str | None = None) -> None:
    """Raise if a file is what git leaves instead of a large one where git-lfs is missing."""
    if file.is_file() and file.stat().st_size < 1024:
        with file.open("rb") as opened:
            if opened.read(len(POINTER)) == POINTER:
                raise ValueError(
                    f"{name or file.name} of {source} is a git-lfs pointer, not the file itself: the repository was cloned without "
                    "git-lfs. Run `git lfs install` and `git lfs pull` there, or download it again."
                )


def tensor_names(file: Path, source: str | Path) -> set[str]:
    """The names of the tensors in a safetensors file, from its header.

    Raises:
        ValueError: If it is truncated or no safetensors file.
    """
    refuse_pointer(file, source)
    try:
        with safe_open(file, framework="pt") as tensors:
            return set(tensors.keys())
    except SafetensorError as error:
        size = file.stat().st_size
        raise ValueError(
            f"{file.name} of {source} is truncated or damaged ({size:,} bytes: {error}), so that it cannot be read; {AGAIN}."
        ) from error


def _refuse_pointers(folder: Path, path: str, source: str | Path) -> None:
    for pattern in CARRIED_BY_LFS:
        for file in sorted((folder / path).glob(pattern)):
            refuse_pointer(file, source, file.relative_to(folder).as_posix())


def shard_files(folder: Path, source: str | Path) -> list[Path]:
    """The files that the index of a folder's weights names.

    Args:
        folder: A folder with an index.
        source: Its name, for the message.

    Raises:
        ValueError: If the index names none, or a file is missing.
    """
    index = read_json(folder / INDEX, source)
    require_fields(index, SHAPES[INDEX], INDEX, source)
    weight_map = index.get("weight_map")
    if not weight_map or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise ValueError(f"{INDEX} of {source} has no weight_map from weights to files; {AGAIN}.")
    shards = sorted(set(weight_map.values()))
    outside = next((shard for shard in shards if PurePosixPath(shard).name != shard or "\\" in shard), None)
    if outside is not None:
        raise ValueError(f"{INDEX} of {source} names the path {outside!r}, which leads out of the folder.")
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise ValueError(
            f"{source} lacks {len(missing)} of its {len(shards)} shards (the first is {missing[0]}); download it again."
        )
    return [folder / shard for shard in shards]


def _require_modalities(modalities: Any, source: str | Path) -> None:
    if modalities is not None and not (
        isinstance(modalities.get("text"), dict)
        and all(isinstance(one, dict) and {"method", "method_output_name"} <= set(one) for one in modalities.values())
    ):
        raise ValueError(
            f"sentence_bert_config.json of {source} must say in modality_config how texts are read, with a method and a "
            f"method_output_name; it says {modalities!r:.80}; {AGAIN}."
        )


def _is_module(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("type"), str) and isinstance(entry.get("path"), str)


def _words(kind: type) -> str:
    return WORDS.get(kind, "null")
