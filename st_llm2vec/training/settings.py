"""Settings that people type: which there are, and what each may be."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from sentence_transformers import SentenceTransformerTrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from st_llm2vec.recipe.config import closest

NEW_SWITCH = "activation_checkpointing"  # what Transformers came to call gradient checkpointing
WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    dict: "a mapping",
    list: "a list",
    type(None): "nothing (null)",
}
"""The types that are checked, in words."""


NAMES_ELSEWHERE = {
    "max_seq_length": "for MNTP it is block_size, for what comes after it max_length",
    "simcse_dropout": "the setting is attention_dropout, of the stage simcse",
    "stop_after_n_steps": "the setting is stop_after",
    "loss_scale": "the setting is scale",
    "data_collator_type": "the setting is masking, bert or all_mask",
    "mask_token_type": "the setting is mask_token; for blank it is _",
    "lora_r": "the setting is adapter: {r: ..., alpha: ...}, where llm2vec's alpha is twice its r",
    "lora_dropout": "the setting is adapter: {dropout: ...}",
    "torch_dtype": "the setting is dtype",
    "pooling_mode": "it belongs to the recipe: changes: {pooling: ...}",
    "bidirectional": "it belongs to the recipe: changes: {attention: ...}",
    "prompts": "they belong to the recipe: changes: {prompts: {query: ...}}",
    "peft_model_name_or_path": "`st-llm2vec import` makes an encoder of an adapter, and the plan's model is its folder",
    "model_name_or_path": "the plan's model says it",
    "train_file": "the setting is data",
    "dataset_name": "the setting is data",
    "dataset_config_name": "the setting is data; a configuration stands behind a colon, data: org/name:config",
    "dataset_file_path": "the setting is data",
    "query_instruction": "it is a setting of the data, data: {path: ..., query_instruction: ...}",
    "document_instruction": "it is a setting of the data, data: {path: ..., document_instruction: ...}",
    "batch_size": "it is an argument of the trainer, training: {per_device_train_batch_size: ...}",
    "epochs": "it is an argument of the trainer, training: {num_train_epochs: ...}",
    "steps": "it is an argument of the trainer, training: {max_steps: ...}",
    "lr": "it is an argument of the trainer, training: {learning_rate: ...}",
    "output_dir": "the command's --output says it, and checkpoints are kept under each stage's folder",
    "overwrite_output_dir": "an interrupted run goes on, and another one needs another folder",
    "do_train": "every stage of a plan is trained",
    "do_eval": "the setting is evaluation, and training: {eval_steps: ...} says how often",
    "evaluation_strategy": "the setting is evaluation, and training: {eval_steps: ...} says how often",
}
"""Where a plan has the settings of ``llm2vec``'s experiments, and what else is looked for in another place."""
UNREAD = ("output_dir", "do_train", "do_eval")
"""Arguments that the trainer has and no stage reads."""
TRAINER_ARGUMENTS = {one.name for one in dataclasses.fields(SentenceTransformerTrainingArguments)}


def check_names(
    given: Iterable[str], known: Iterable[str], complaint: str, elsewhere: Mapping[str, str] | None = None
) -> None:
    """Refuse names that are not known.

    Args:
        given: Names of settings.
        known: Those that there are.
        complaint: What the message begins with.
        elsewhere: Names that have another place, and which.

    Raises:
        ValueError: If there is no such setting; the message says for each what was probably meant.
    """
    names = list(known)
    unknown = [str(name) for name in given if name not in names]
    if unknown:
        known_ones = f" There are {', '.join(names)}." if len(names) < 30 else ""
        raise ValueError(
            f"{complaint}: {' '.join(_unknown(name, names, elsewhere or {}) for name in unknown)}{known_ones}"
        )


def _unknown(name: str, names: list[str], elsewhere: Mapping[str, str]) -> str:
    place = NAMES_ELSEWHERE.get(name) or elsewhere.get(name)
    if place:
        return f"there is no {name!r}: {place}."
    if "training" in names and name in TRAINER_ARGUMENTS:
        return f"there is no {name!r}: it is an argument of the trainer, training: {{{name}: ...}}."
    return f"there is no {name!r}{closest(name, names)}"


def check_fields(
    kind: type, given: Mapping[str, Any], complaint: str, elsewhere: Mapping[str, str] | None = None
) -> None:
    """Refuse settings that a dataclass does not have, and numbers, switches, texts, lists and mappings in each other's places.

    Args:
        kind: The dataclass.
        given: Values of its fields.
        complaint: What the message begins with.
        elsewhere: Names that have another place, and which.

    Raises:
        ValueError: If there is no such field, or its value is of another type.
    """
    hints = typing.get_type_hints(kind)
    fields = (name for name, one in kind.__dataclass_fields__.items() if one.init)  # type: ignore[attr-defined]
    check_names(given, fields, complaint, elsewhere)
    for name, value in given.items():
        kinds = _kinds(hints[name])
        fits = type(value) in kinds or (type(value) is int and float in kinds)
        if kinds <= WORDS.keys() and not fits:
            wanted = " or ".join(sorted(WORDS[one] for one in kinds))
            raise ValueError(f"{complaint}: {name} is {value!r}; it must be {wanted}.")


def put_on_top(arguments: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a trainer with others on top, of which epochs and a share go before a number of steps below.

    Args:
        arguments: The ones below, such as a paper's.
        given: The others.

    Example:
        >>> put_on_top({"max_steps": 1000, "seed": 1}, {"num_train_epochs": 3})
        {'max_steps': -1, 'seed': 1, 'num_train_epochs': 3}
    """
    by_epochs = {"max_steps": -1} if "num_train_epochs" in given and "max_steps" in arguments else {}
    by_share = {"warmup_steps": 0} if "warmup_ratio" in given and "warmup_steps" in arguments else {}
    return {**arguments, **by_epochs, **by_share, **given}


def build_arguments(given: Mapping[str, Any], beside: Iterable[str] = ()) -> SentenceTransformerTrainingArguments:
    """The trainer's arguments, checked, with what gradient checkpointing and bfloat16 on a CPU need besides.

    Args:
        given: Fields of ``SentenceTransformerTrainingArguments``.
        beside: Settings that are no such fields, and have their place beside them.

    Raises:
        ValueError: If there is no such field, or a value does not fit.
    """
    found = dict(given)
    switch = "gradient_checkpointing"
    if NEW_SWITCH in SentenceTransformerTrainingArguments.__dataclass_fields__:
        renamed = {switch: NEW_SWITCH, f"{switch}_kwargs": f"{NEW_SWITCH}_kwargs"}
        found, switch = {renamed.get(name, name): value for name, value in found.items()}, NEW_SWITCH
    if found.get(switch):
        found.setdefault(f"{switch}_kwargs", {"use_reentrant": False})
    if found.get("bf16") and not torch.accelerator.is_available():
        found.setdefault("use_cpu", True)  # which has bfloat16, and the trainer wants to be told
    complaint = "The training arguments do not fit SentenceTransformerTrainingArguments"
    places = dict.fromkeys(beside, "it is a setting of the stage itself, beside training")
    check_fields(SentenceTransformerTrainingArguments, found, complaint, places)
    try:
        return SentenceTransformerTrainingArguments(**found)
    except (TypeError, ImportError) as error:
        raise ValueError(f"{complaint}: {error}") from error


def check_loggers(names: list[str]) -> None:
    """Refuse loggers that are not there, which the trainer would find out when the model is loaded.

    Args:
        names: The arguments' ``report_to``.

    Raises:
        ValueError: If there is no such logger, or what it needs is not installed.
    """
    for name in names:
        try:
            for callback in get_reporting_integration_callbacks([name]):
                callback()
        except (ValueError, RuntimeError, ImportError) as error:
            raise ValueError(
                f"report_to names {name}, and that cannot be used here: {str(error).rstrip('.')}. Install what it needs, "
                "or leave it out."
            ) from error


def _kinds(hint: Any) -> set[Any]:
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return {typing.get_origin(one) or one for one in (typing.get_args(hint) if is_union else [hint])}
