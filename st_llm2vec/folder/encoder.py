"""The ``SentenceTransformer`` that ``convert`` and ``load`` return."""

from __future__ import annotations

import logging
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import WordWeights
from torch import nn

from st_llm2vec.encoding.inputs import TOKENIZING
from st_llm2vec.encoding.text_reader import TextReader
from st_llm2vec.folder.card_data import EncoderCardData
from st_llm2vec.folder.check_loaded import prove_meant_attention, require_sound
from st_llm2vec.folder.manifest_file import read_manifest
from st_llm2vec.folder.save import CARD, CUSTOM_MODULES, name_whole_card, save_encoder
from st_llm2vec.folder.weights import fingerprint, learned_beside_quantized, restore_latents
from st_llm2vec.host.trainer_uploads import refuse_trainer_uploads
from st_llm2vec.layouts.choose import compile_prompts
from st_llm2vec.losses.output_head import HEAD_FILE, restore_head
from st_llm2vec.modules import LatentAttentionPooling
from st_llm2vec.modules.adapter import keep_full_precision, refuse_unloadable
from st_llm2vec.packed.enable import enable_padding_free
from st_llm2vec.recipe.config import FIELDS_ELSEWHERE
from st_llm2vec.recipe.manifest import Manifest

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

ATTRIBUTES_ELSEWHERE = {
    "max_length": "the longest input is max_seq_length",
    "doc_max_length": "documents are cut at max_seq_length too",
    "pooling_mode": "the pooling is the recipe's, convert(decoder, recipe, pooling=...)",
    "skip_instruction": FIELDS_ELSEWHERE["skip_instruction"],
}
"""What attributes of ``llm2vec``'s models are here, where setting them would change nothing."""


class TextEncoder(TextReader):
    """A ``SentenceTransformer`` that saves complete, portable folders and knows its recipe.

    It is made of stock modules wherever they can express the encoder, and everything else is the host's:
    ``encode``, ``encode_query``, ``encode_document``, ``similarity``, training, ``push_to_hub``.

    Args:
        model_name_or_path: As for ``SentenceTransformer``. What is loaded of a folder is held against it as
            :func:`st_llm2vec.load` does; of a repository only the attention is proven, so load that with ``load``.
        manifest: What the encoder is and how it was made; read from the folder where there is one.
        base_is_stored: Whether the decoder's weights are those of a folder or repository, so that an adapter can be
            saved without them.
        **kwargs: As for ``SentenceTransformer``.
    """

    _warned = False
    model_card_data_class = EncoderCardData  # type: ignore[assignment]

    def __init__(
        self,
        model_name_or_path: str | None = None,
        *,
        manifest: Manifest | None = None,
        base_is_stored: bool = True,
        **kwargs: Any,
    ) -> None:
        refuse_backend(kwargs.get("backend", "torch"))
        super().__init__(model_name_or_path, **kwargs)
        in_folder = model_name_or_path is not None and Path(model_name_or_path).is_dir()
        self.manifest = read_manifest(str(model_name_or_path)) if manifest is None and in_folder else manifest
        for module in self:
            if isinstance(module, WordWeights):
                module.requires_grad_(False)  # they say what is pooled, which no training may change
        self.base_fingerprint = fingerprint(self.transformer.model) if base_is_stored else None
        if in_folder:
            folder = Path(str(model_name_or_path))
            self.trained_head = folder if (folder / HEAD_FILE).is_file() else None
            require_sound(self, folder, str(model_name_or_path), kwargs.get("cache_folder"))
        elif model_name_or_path is not None:
            prove_meant_attention(self, model_name_or_path)
        padded_because = enable_padding_free(self.transformer)
        if padded_because is not None:
            logger.info("Batches stay padded: %s.", padded_because)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ATTRIBUTES_ELSEWHERE:
            raise AttributeError(f"An encoder has no {name!r}: {ATTRIBUTES_ELSEWHERE[name]}.")
        super().__setattr__(name, value)

    def save(
        self,
        path: str,
        model_name: str | None = None,
        create_model_card: bool = True,
        train_datasets: list[str] | None = None,
        safe_serialization: bool = True,
    ) -> None:
        """Save a complete folder, all or nothing: weights, tokenizer, modules, requirements and manifest.

        Prompts that were given since conversion are first said as those of conversion are, so that every door reads them.

        Args:
            path: The folder. What it holds of an earlier encoder is replaced.
            model_name: As for ``SentenceTransformer.save``.
            create_model_card: Whether to write a ``README.md``.
            train_datasets: As for ``SentenceTransformer.save``.
            safe_serialization: Must be true; weights are saved as safetensors.

        Raises:
            ValueError: If ``safe_serialization`` is false, the modules cannot say the prompts, the attention is not what
                it is meant to be, an adapter's base would be lost, or it is of a kind that could not be loaded again.
        """
        if path is None:
            return
        if not safe_serialization:
            raise ValueError("Encoders are saved as safetensors only; leave safe_serialization at True.")
        refuse_unloadable(self.transformer.model)
        if self.manifest is not None:
            with TOKENIZING:
                config, self.prompts = compile_prompts(
                    list(self), self.manifest.config, self.layout, self.prompts, self.default_prompt_name
                )
            self.manifest = replace(self.manifest, config=config)

        def write(folder: Path) -> None:
            SentenceTransformer.save(
                self,
                str(folder),
                model_name=model_name,
                create_model_card=create_model_card,
                train_datasets=train_datasets,
            )
            if self.manifest is not None:
                name_whole_card(folder / CARD)

        save_encoder(self, Path(path), write)

    def add_adapter(self, *args: Any, **kwargs: Any) -> None:
        """Attach an adapter as the host does, with what learns in float32: its weights, and those of latent attention.

        Args:
            *args: As for the host: the PEFT configuration and the adapter's name.
            **kwargs: The same, by name.
        """
        super().add_adapter(*args, **kwargs)
        keep_full_precision(self.transformer.model)
        for module in self:
            if isinstance(module, LatentAttentionPooling):
                module.float()

    def train(self, mode: bool = True) -> Self:
        """Go into training mode, as the trainer does before each step, with a warning where steps would be rounded away.

        Args:
            mode: Whether to train; false is ``eval()``.

        Returns:
            The encoder.
        """
        if mode and not self._warned:
            rounded = {one.dtype for one in self.parameters() if one.requires_grad} & {torch.bfloat16, torch.float16}
            self._warned = bool(rounded)
            for dtype in rounded:
                logger.warning(
                    "Weights of this encoder learn in %s, which rounds most of an optimizer's steps away. Load it with "
                    "dtype=torch.float32 (bf16=True in the trainer's arguments computes in bfloat16 all the same), or "
                    "attach an adapter, whose weights are in float32: encoder.add_adapter(...).",
                    dtype,
                )
        return super().train(mode)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights; a quantised decoder keeps its own and takes the adapter's only, as the trainer's resume needs."""
        if getattr(self.transformer.model, "is_quantized", False):
            state_dict = learned_beside_quantized(state_dict, self.transformer.model)
            strict = False
        return super().load_state_dict(state_dict, strict, assign)

    @classmethod
    def merge(cls, models: Sequence[str | Path | Self], method: str = "linear", **options: Any) -> Self:
        """Merge runs of one decoder, as ``SentenceTransformer.merge`` does, and record that they were (model soups).

        Args:
            models: Encoders, or their folders; the first one's stages stay in the record.
            method: A method of mergekit, which ``pip install "sentence-transformers[merge]"`` brings.
            **options: As for ``SentenceTransformer.merge``.

        Returns:
            The merged encoder.

        Raises:
            ImportError: If mergekit is not installed.
            ValueError: If the encoders are not of one kind.
        """
        merged = super().merge(models, method, **options)
        if merged.manifest is not None:
            settings = {
                "method": method,
                "parameters": options.get("parameters"),
                "models": [_name(one) for one in models],
            }
            stage = {"name": "merge", "settings": settings}
            merged.manifest = replace(merged.manifest, stages=[*merged.manifest.stages, stage])
        merged.base_fingerprint = None
        return merged

    def push_to_hub(
        self,
        repo_id: str,
        token: str | None = None,
        private: bool | None = None,
        safe_serialization: bool = True,
        commit_message: str | None = None,
        local_model_path: str | None = None,
        exist_ok: bool = False,
        replace_model_card: bool = False,
        train_datasets: list[str] | None = None,
        revision: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Publish the encoder as :func:`st_llm2vec.publish` does: adapters merged, verified, in one commit.

        Args:
            repo_id: ``org/name``.
            token: Access token; the one that is logged in if not given.
            private: Whether a new repository is private.
            safe_serialization: Must be true; weights are saved as safetensors.
            commit_message: The commit's first line.
            local_model_path: A saved encoder's folder, published in the place of this one.
            exist_ok: Whether the repository may hold something already.
            replace_model_card: Whether a model card that is there is replaced.
            train_datasets: Names of data sets on the Hub, for the model card.
            revision: Branch; it is made if it is not there.
            create_pr: Whether to open a pull request.

        Returns:
            The address of the commit or pull request.

        Raises:
            ValueError: If anything is not as it must be; then nothing is published.
        """
        # By its name, since publishing is built on encoders.
        publish = pkgutil.resolve_name("st_llm2vec.publishing.publication:publish")
        if not safe_serialization:
            raise ValueError("Encoders are published as safetensors only; leave safe_serialization at True.")
        published = publish(
            local_model_path or self,
            repo_id,
            token=token,
            private=private,
            commit_message=commit_message,
            exist_ok=exist_ok,
            replace_model_card=replace_model_card,
            train_datasets=train_datasets or (),
            revision=revision,
            create_pr=create_pr,
        )
        return str(published.url)

    def __repr__(self) -> str:
        """The modules, a line each, without the vocabulary that ``WordWeights`` would print."""
        lines = [f"  ({name}): {_describe(module)}" for name, module in self.named_children()]
        return "\n".join([f"{type(self).__name__}(", *lines, ")"])

    @classmethod
    def _load_with_module_classes(
        cls, model_name_or_path: str, module_classes: Mapping[str, type[nn.Module]], **kwargs: Any
    ) -> TextEncoder:
        """Let the trainer reload its own checkpoints of encoders with custom modules."""
        encoder = super()._load_with_module_classes(model_name_or_path, {**module_classes, **CUSTOM_MODULES}, **kwargs)
        restore_head(encoder, Path(model_name_or_path))
        restore_latents(encoder, Path(model_name_or_path))
        return encoder


refuse_trainer_uploads(TextEncoder)


def _name(model: str | Path | TextEncoder) -> str:
    """A folder's or repository's name; of an encoder in memory that of its recipe."""
    if not isinstance(model, TextEncoder):
        return str(model)
    return "in memory" if model.manifest is None else f"{model.manifest.config.name}, in memory"


def refuse_backend(backend: str) -> None:
    """Raise for any other backend than PyTorch.

    Raises:
        ValueError: If it is another one.
    """
    if backend != "torch":
        raise ValueError(
            f"The backend {backend!r} does not keep an encoder's attention and vectors (docs/backends.md); leave backend "
            'out, or set it to "torch".'
        )


def _describe(module: nn.Module) -> str:
    if isinstance(module, WordWeights):
        return f"WordWeights({len(module.vocab)} tokens, all of weight 1 but {module.word_weights})"
    return repr(module).replace("\n", "\n  ")
