"""Save an encoder as a complete folder, all or nothing."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sentence_transformers.base.modules.module import Module

from st_llm2vec.checkpoints.manifest import MANIFEST_NAME
from st_llm2vec.checkpoints.module_file import MODULE_NAME, module_file_text
from st_llm2vec.modules import BidirectionalTransformer, LatentAttentionPooling, SpanPooling

if TYPE_CHECKING:
    from st_llm2vec.encoder import TextEncoder

CUSTOM_MODULES: dict[str, type[Module]] = {
    f"{MODULE_NAME}.{module.__name__}": module
    for module in (BidirectionalTransformer, SpanPooling, LatentAttentionPooling)
}
REQUIREMENTS = {
    "transformers": {
        "specifier": ">=5.2.0",
        "reason": "older versions ignore is_causal in config.json and would run this bidirectional encoder causally",
    }
}
# What an earlier encoder in the same folder may have left and the new one may not overwrite.
REPLACED = (
    "adapter_config.json",
    "adapter_model.*",
    "model*.safetensors",
    "model.safetensors.index.json",
    "chat_template.jinja",
    f"{MODULE_NAME}.py",
    MANIFEST_NAME,
    "[0-9]*_*",
)


def save_encoder(encoder: TextEncoder, path: Path, write: Callable[[Path], None]) -> None:
    """Write beside the target, complete the folder, then move it into place, ``modules.json`` last.

    Args:
        encoder: The encoder.
        path: Where its folder goes.
        write: Writes what Sentence Transformers writes into the folder it is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        write(staging)
        complete_folder(encoder, staging)
        staging.chmod(0o755)
        for file in staging.rglob("*.safetensors"):
            file.chmod(0o644)
        if path.exists():
            _move_into(staging, path)
        else:
            os.replace(staging, path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def complete_folder(encoder: TextEncoder, folder: Path) -> None:
    """Add what stock saving never writes: the requirements, the manifest, the module file, an adapter's base flag."""
    _require_bidirectional_reader(encoder, folder)
    if encoder.manifest is not None:
        encoder.manifest.write(folder)
    modules_path = folder / "modules.json"
    modules = json.loads(modules_path.read_text(encoding="utf-8"))
    if (folder / "adapter_config.json").is_file():
        _keep_attention_beside_adapter(encoder, folder, modules)
    for module in modules:
        name = module["type"].rsplit(".", 1)[-1]
        if not module["type"].startswith("sentence_transformers.") and f"{MODULE_NAME}.{name}" in CUSTOM_MODULES:
            module["type"] = f"{MODULE_NAME}.{name}"
    if any(module["type"] in CUSTOM_MODULES for module in modules):
        (folder / f"{MODULE_NAME}.py").write_text(module_file_text(), encoding="utf-8")
    modules_path.write_text(json.dumps(modules, indent=2) + "\n", encoding="utf-8")


def _require_bidirectional_reader(encoder: TextEncoder, folder: Path) -> None:
    if getattr(encoder.transformer.model.config, "is_causal", True):
        return
    path = folder / "config_sentence_transformers.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["requirements"] = REQUIREMENTS
    path.write_text(json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _keep_attention_beside_adapter(encoder: TextEncoder, folder: Path, modules: list[dict[str, str]]) -> None:
    """A folder with only an adapter reloads its base as the base is: name the module that sets the attention."""
    transformer = encoder.transformer
    config = transformer.model.config
    modules[0]["type"] = f"{MODULE_NAME}.{BidirectionalTransformer.__name__}"
    settings_path = folder / "sentence_bert_config.json"
    settings = json.loads(settings_path.read_text(encoding="utf-8"))
    settings["attention"] = "causal" if getattr(config, "is_causal", True) else "bidirectional"
    settings["formatter"] = getattr(transformer, "formatter", None)
    settings_path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _move_into(staging: Path, path: Path) -> None:
    for pattern in REPLACED:
        for stale in path.glob(pattern):
            if stale.is_dir():
                shutil.rmtree(stale)
            else:
                stale.unlink()
    entries = sorted(staging.iterdir(), key=lambda entry: entry.name == "modules.json")
    for entry in entries:
        os.replace(entry, path / entry.name)
