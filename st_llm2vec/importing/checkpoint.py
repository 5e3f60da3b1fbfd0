"""A published checkpoint's folder: fetched without code and without pickles, and checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import processors
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from st_llm2vec.folder.check_stored import require_layers
from st_llm2vec.folder.download import download, hub_errors
from st_llm2vec.folder.files import INDEX, read_json, require_fields, require_readable, shard_files, tensor_names
from st_llm2vec.folder.gguf_file import is_gguf
from st_llm2vec.modules.special_tokens import leading_special_ids
from st_llm2vec.publishing.licence import licence_of_card

# Weights are named one by one: some repositories hold them twice, as `consolidated.safetensors` or `original/*.pth`.
WANTED = ["*.json", "*.model", "*.txt", "*.jinja", "README.md", "model*.safetensors", "adapter_model.safetensors"]
PICKLES = ["pytorch_model*.bin", "adapter_model.bin"]
TOKENIZERS = ("tokenizer.json", "tokenizer.model")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this machine.

    Args:
        name: Its folder or its name on the Hub, as it was given.
        folder: Where its files are.
        allow_pickles: Whether weights may be read from pickles where there are no safetensors.
    """

    name: str
    folder: Path
    allow_pickles: bool = False

    def has(self, file: str) -> bool:
        """Whether it holds a file."""
        return (self.folder / file).is_file()

    def read_json(self, file: str) -> dict[str, Any]:
        """Read a JSON file; empty where there is none.

        Raises:
            ValueError: If it is no JSON object.
        """
        if not self.has(file):
            return {}
        data: dict[str, Any] = read_json(self.folder / file, self.name)
        require_fields(data, {}, file, self.name)
        return data

    @property
    def has_tokenizer(self) -> bool:
        """Whether it brings a tokenizer of its own."""
        return any(map(self.has, TOKENIZERS))

    def licence(self) -> dict[str, str]:
        """The licence fields of its model card, if it has any."""
        return licence_of_card(self.folder / "README.md")

    def tensor_files(self) -> dict[str, Path]:
        """The model's safetensors, each file readable and none of them missing.

        Returns:
            Every tensor's file, by its name; empty if the weights are pickles and these are allowed.

        Raises:
            ValueError: If there are no weights, shards are missing, a file is damaged, there are only pickles, or fewer
                tensors than config.json declares layers.
        """
        if self.has(INDEX):
            files = shard_files(self.folder, self.name)
        elif self.has("model.safetensors"):
            files = [self.folder / "model.safetensors"]
        else:
            self.refuse_pickles("pytorch_model*.bin")
            files = []
            if not any(self.folder.glob("pytorch_model*.bin")):
                raise ValueError(
                    f"{self.name} holds no weights: neither model.safetensors nor {INDEX}. Download it again."
                )
        found = {name: file for file in files for name in tensor_names(file, self.name)}
        if found:
            require_layers(self.folder, len(found), self.name)
        return found

    def refuse_pickles(self, pattern: str) -> None:
        """Raise if there are files of this kind and they were not asked for."""
        pickles = sorted(path.name for path in self.folder.glob(pattern))
        if pickles and not self.allow_pickles:
            raise ValueError(
                f"{self.name} holds its weights only as a pickle ({pickles[0]}), which could run code when it is read. "
                "Use a revision with safetensors, or allow it: allow_pickles=True (--allow-pickles); it is then read "
                "with PyTorch's restricted unpickler."
            )


def load_tokenizer(source: Checkpoint) -> PreTrainedTokenizerBase:
    """A checkpoint's tokenizer, with the BOS that its settings ask for.

    Since Transformers 5 ``tokenizer.json`` alone decides what is put around a text, and some checkpoints ask for BOS only
    in ``tokenizer_config.json``; it would be lost without a word.

    Args:
        source: The checkpoint.

    Returns:
        The tokenizer.

    Raises:
        ValueError: If it cannot be loaded.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{source.name} has no tokenizer that could be loaded: {error}") from error
    asks = bool(source.read_json("tokenizer_config.json").get("add_bos_token"))
    if asks and tokenizer.is_fast and tokenizer.bos_token and not leading_special_ids(tokenizer):
        bos = str(tokenizer.bos_token)
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, tokenizer.bos_token_id)]
        )
    return tokenizer


def fetch(name: str | Path, hub: Mapping[str, Any], allow_pickles: bool = False) -> Checkpoint:
    """Find a checkpoint on this machine, or download what is needed of it: no code, and pickles only if allowed.

    Args:
        name: A folder, or a name on the Hugging Face Hub.
        hub: ``revision``, ``token`` and ``local_files_only``.
        allow_pickles: Whether weights may be read from pickles where there are no safetensors.

    Returns:
        Where its files are.

    Raises:
        ValueError: If there is no such folder and it cannot be downloaded, or a file of it is not what its name says.
    """
    if Path(name).is_dir():
        folder = Path(name)
    elif is_gguf(name):
        raise ValueError(
            f"{name} is a GGUF file, and published checkpoints are imported from their folders. A decoder in a GGUF file "
            f"is converted: `st-llm2vec convert {name}`."
        )
    else:
        with hub_errors(name):
            folder = download(str(name), allow_patterns=[*WANTED, *(PICKLES * allow_pickles)], **hub)
    require_readable(folder, name)
    return Checkpoint(str(name), folder, allow_pickles)
