"""Save an encoder as a complete folder, all or nothing."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sentence_transformers.base.modules.module import Module

from st_llm2vec.encoding.inputs import TOKENIZING
from st_llm2vec.encoding.text_reader import TextReader
from st_llm2vec.folder.check_finite import require_finite
from st_llm2vec.folder.check_manifest import disagreements, require_tokenizer_fits
from st_llm2vec.folder.declare import declare
from st_llm2vec.folder.disk_errors import disk_errors
from st_llm2vec.folder.manifest_file import MANIFEST_NAME, write_manifest
from st_llm2vec.folder.module_file import MODULE_NAME, module_file_text
from st_llm2vec.folder.staging import replacing
from st_llm2vec.folder.weights import fingerprint, keeps_fingerprint
from st_llm2vec.losses.output_head import HEAD_FILE, write_head
from st_llm2vec.modules import BidirectionalTransformer, LatentAttentionPooling, MeanOfReadings, SpanPooling
from st_llm2vec.modules.adapter import has_adapter
from st_llm2vec.modules.attention import configured_attention

logger = logging.getLogger(__name__)

CUSTOM_MODULES: dict[str, type[Module]] = {
    f"{MODULE_NAME}.{module.__name__}": module
    for module in (BidirectionalTransformer, SpanPooling, LatentAttentionPooling, MeanOfReadings)
}
REQUIREMENTS = {
    "transformers": {
        "specifier": ">=5.17.0",
        "reason": "older versions run some families of decoders causally, or partly so, whatever config.json says",
    }
}
# Files of an earlier encoder that would change how the new one is read, if the new one does not replace them.
MISLEADING = re.compile(
    r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json|adapter_config\.json|"
    rf"adapter_model\.safetensors|{re.escape(HEAD_FILE)}|chat_template\.jinja|"
    rf"{re.escape(MODULE_NAME)}\.py|{re.escape(MANIFEST_NAME)}"
)
CARD = "README.md"
NOTE = (
    "> Sentence Transformers wrote this card by itself. `st_llm2vec.json` says what the encoder is and how it was made, and "
    "`st-llm2vec publish` writes a whole card of it: recipe, prompts, training, limitations and servers."
)
MNTP = "mntp"  # the stage that trains a head
MODULE_FOLDER = re.compile(r"\d+_[A-Za-z]+")


def save_encoder(encoder: TextReader, path: Path, write: Callable[[Path], None]) -> None:
    """Write a folder beside, complete it, and put it in the place of the old one, whole.

    Args:
        encoder: The encoder.
        path: Where its folder goes. Other files there stay.
        write: Writes what Sentence Transformers writes into the folder it is given.

    Raises:
        ValueError: If the encoder is not what its manifest says, has a weight that is not finite, or holds an adapter
            whose base would be lost.
        OSError: If it cannot be written. What was there is as it was.
    """
    refuse_wrong_attention(encoder)
    refuse_lost_base(encoder, path)
    with TOKENIZING:
        refuse_disagreement(encoder)
    require_tokenizer_fits(encoder.transformer.model, encoder.tokenizer, "the encoder")
    require_finite(encoder, "The encoder")
    for module in encoder:
        if type(module).__module__ == "__main__":
            logger.warning(
                "%s is a class of the running program, and no other will find it: a folder has the names of classes, not "
                "their source. Move it to a module that can be imported where the encoder is loaded.",
                type(module).__name__,
            )
    old_modules = module_folders(path / "modules.json")
    with (
        disk_errors(path),
        replacing(path, lambda name: name in old_modules or MISLEADING.fullmatch(name) is not None) as fresh,
    ):
        write(fresh)
        _forget_last_call(encoder, fresh / "tokenizer.json")
        complete_folder(encoder, fresh)
        if encoder.manifest is not None:
            model = encoder.transformer.model
            # The weights under an adapter are not in the folder; a reload is held against their fingerprint.
            compared = has_adapter(model) and keeps_fingerprint(model)
            manifest = replace(encoder.manifest, adapter_base=encoder.base_fingerprint if compared else None)
            write_manifest(manifest, fresh)  # the last file, since it has the checksums of the others
        for file in fresh.rglob("*.safetensors"):
            file.chmod(0o644)
        if _is_no_model_card(path / CARD):
            (fresh / CARD).unlink(missing_ok=True)


def _forget_last_call(encoder: TextReader, file: Path) -> None:
    """Let the tokenizer's file not hold how long the last call let texts be, which is set anew by each.

    Nor does the tokenizer hold it then, which a trainer saves once more.
    """
    backend = getattr(encoder.tokenizer, "backend_tokenizer", None)
    if backend is not None:
        with TOKENIZING:  # in the middle of another thread's call it would be cut no more
            backend.no_truncation()
            backend.no_padding()
            if file.is_file():
                backend.save(str(file))


def refuse_wrong_attention(encoder: TextReader) -> None:
    """Raise if the configuration that would be saved does not say what the encoder is meant to be."""
    found = configured_attention(encoder.transformer.model)
    if encoder.manifest is not None and found != encoder.manifest.config.attention:
        raise ValueError(
            f"The encoder is meant to be {encoder.manifest.config.attention}, but its model's configuration says "
            f"{found}; something changed it since. Set it back with st_llm2vec.set_attention, then save."
        )


def refuse_disagreement(encoder: TextReader) -> None:
    """Raise if the modules are not those that the manifest would be saved to describe."""
    found = disagreements(encoder)
    if found:
        raise ValueError(
            f"The encoder is not what its manifest says: {found[0]}. Set it back, or convert the decoder with a recipe that "
            "says what you want; an encoder of your own making is saved without a manifest (encoder.manifest = None)."
        )


def refuse_lost_base(encoder: TextReader, path: Path) -> None:
    """Raise if the encoder holds an adapter and a reload would not find the very base that it was attached to."""
    adapters = getattr(encoder.transformer.model, "peft_config", None)
    if not adapters:
        return
    bases = {str(adapter.base_model_name_or_path or "") for adapter in adapters.values()}
    if any(base and Path(base).is_dir() and Path(base).resolve() == path.resolve() for base in bases):
        raise ValueError(
            f"The adapter's base is {path} itself, which would be overwritten and lost. Save to another folder, or "
            "merge the adapter first."
        )
    if "" in bases or encoder.base_fingerprint != fingerprint(encoder.transformer.model):
        raise ValueError(
            "The adapter is attached to weights that are not those of a folder or repository, so a reload would put it "
            "on others. Save the encoder before the adapter is attached, load it from there and attach it to that; or "
            "merge the adapter first."
        )


def complete_folder(encoder: TextReader, folder: Path) -> None:
    """Add what stock saving never writes but for the manifest: requirements, servers' keys, head, module file, base flag."""
    _require_bidirectional_reader(encoder, folder)
    declare(encoder, folder)
    write_head(encoder.transformer, folder)
    _carry_trained_head(encoder, folder)
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


def _carry_trained_head(encoder: TextReader, folder: Path) -> None:
    """Copy the head of the folder that the encoder was loaded from, if MNTP trained it last and none is attached."""
    last = encoder.manifest.stages[-1] if encoder.manifest is not None and encoder.manifest.stages else {"name": MNTP}
    kept = encoder.trained_head / HEAD_FILE if encoder.trained_head is not None else None
    if kept is not None and kept.is_file() and last["name"] == MNTP and not (folder / HEAD_FILE).exists():
        shutil.copyfile(kept, folder / HEAD_FILE)


def _require_bidirectional_reader(encoder: TextReader, folder: Path) -> None:
    if configured_attention(encoder.transformer.model) == "causal":
        return
    path = folder / "config_sentence_transformers.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["requirements"] = REQUIREMENTS
    path.write_text(json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _keep_attention_beside_adapter(encoder: TextReader, folder: Path, modules: list[dict[str, Any]]) -> None:
    """A folder with only an adapter reloads its base as the base is: name the module that sets the attention."""
    transformer = encoder.transformer
    modules[0]["type"] = f"{MODULE_NAME}.{BidirectionalTransformer.__name__}"
    settings_path = folder / "sentence_bert_config.json"
    settings = json.loads(settings_path.read_text(encoding="utf-8"))
    settings["attention"] = configured_attention(transformer.model)
    settings["formatter"] = getattr(transformer, "formatter", None)
    settings_path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def name_whole_card(card: Path) -> None:
    """Say in a card that the host wrote where the recipe stands and what writes a whole card.

    Args:
        card: The card. It is left as it is where it says so, or where ``publish`` wrote it, whose tags name this package.
    """
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    front, mark, rest = text.partition("\n# ")
    if mark and NOTE not in text and "\n- st-llm2vec\n" not in text:
        title, _, body = rest.partition("\n")
        card.write_text(f"{front}{mark}{title}\n\n{NOTE}\n{body}", encoding="utf-8")


def _is_no_model_card(readme: Path) -> bool:
    """Whether it is somebody's own, and not one that saving wrote."""
    try:
        return "library_name: sentence-transformers" not in readme.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def module_folders(file: Path) -> frozenset[str]:
    """The folders of an encoder's modules, as its ``modules.json`` names them; none where it cannot be read."""
    try:
        folders = {str(module["path"]).split("/")[0] for module in json.loads(file.read_text(encoding="utf-8"))}
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()
    return frozenset(folder for folder in folders if MODULE_FOLDER.fullmatch(folder))
