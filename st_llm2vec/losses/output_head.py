"""A decoder's own output head, apart from its body."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.func import functional_call
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

HEAD_NAME = "mntp_head"
HEAD_FILE = f"{HEAD_NAME}.safetensors"


class OutputHead(nn.Module):
    """From hidden states to logits, by the architecture's own code.

    Every family has its own head: a matrix alone, with a bias, a scale, a soft cap. The causal language model's own
    class is built without weights and its body replaced by the states at hand, so that what follows the body is what
    runs.

    Args:
        body: The decoder without its head. It is used for its configuration, and for its embeddings where the head is
            tied to them; it does not become a part of this module.
        weights: The head's own weights by their names in the causal language model; a tied one is left out.
        trainable: Whether ``weights`` learn.

    Raises:
        ValueError: If Transformers has no causal language model around this body.
    """

    def __init__(self, body: PreTrainedModel, weights: dict[str, Tensor], *, trainable: bool = False) -> None:
        super().__init__()
        causal_lm, self._body_name = skeleton(body)
        setattr(causal_lm, self._body_name, _States(getattr(causal_lm, self._body_name)))
        self.__dict__["_causal_lm"] = causal_lm.eval()
        self.names = list(weights)
        self.weights = nn.ParameterList(nn.Parameter(weight, requires_grad=trainable) for weight in weights.values())

    def forward(self, states: Tensor, tied: dict[str, Tensor]) -> Tensor:
        """Compute logits.

        Args:
            states: The body's last hidden states, of shape ``(positions, hidden)``.
            tied: The weights that the head shares with the body, by name.

        Returns:
            Logits of shape ``(positions, vocabulary)``.
        """
        causal_lm: Any = self._causal_lm
        getattr(causal_lm, self._body_name).states = states[None]
        weights = dict(zip(self.names, self.weights, strict=True)) | tied
        try:
            return functional_call(causal_lm, weights, kwargs={"inputs_embeds": states[None]}).logits[0]
        finally:
            getattr(causal_lm, self._body_name).states = None


def skeleton(body: PreTrainedModel) -> tuple[PreTrainedModel, str]:
    """Build the causal language model around a body's architecture, without weights.

    Args:
        body: The decoder without its head.

    Returns:
        The model on the meta device, and the name of its attribute that is the body.

    Raises:
        ValueError: If Transformers has none.
    """
    kind = type(body).__name__
    try:
        with torch.device("meta"):
            causal_lm = AutoModelForCausalLM.from_config(body.config)
        causal_lm.tie_weights()
        names = [name for name, child in causal_lm.named_children() if type(child).__name__ == kind]
        return causal_lm, names[0]
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"Transformers has no causal language model around {kind} "
            f"(model_type {body.config.model_type!r}), so there is no output head to predict tokens with."
        ) from error


def tied_weights(body: PreTrainedModel) -> tuple[list[str], list[str]]:
    """Name the weights of the architecture's head: those shared with the input embeddings, and its own."""
    causal_lm, body_name = skeleton(body)
    embeddings = embedding_weight(causal_lm)
    head = {
        name: weight
        for name, weight in causal_lm.named_parameters(remove_duplicate=False)
        if not name.startswith(f"{body_name}.")
    }
    tied = [name for name, weight in head.items() if weight is embeddings]
    return tied, [name for name in head if name not in tied]


def base_head(body: PreTrainedModel, base: str, revision: str | None, names: list[str]) -> dict[str, Tensor]:
    """Read the head's own weights from the decoder that an encoder was made from; its body stays on disk.

    Args:
        body: The encoder's decoder, whose type and vocabulary the head must fit.
        base: Folder or Hub name of the decoder with its head.
        revision: Branch, tag or commit on the Hub.
        names: The weights' names.

    Returns:
        The weights by name.

    Raises:
        ValueError: If the base is not there, lacks them or is of another shape.
    """
    causal_lm, body_name = skeleton(body)
    device_map = {name: "disk" if name == body_name else "cpu" for name, _ in causal_lm.named_children()}
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with tempfile.TemporaryDirectory() as folder:
            options: dict[str, Any] = {"device_map": device_map, "offload_folder": folder, "output_loading_info": True}
            loaded = AutoModelForCausalLM.from_pretrained(
                base, dtype=body.dtype, revision=revision or "main", trust_remote_code=False, **options
            )
            whole, report = cast("tuple[Any, Any]", loaded)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"The output head could not be read from the base {base}: {error}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    found = dict(whole.named_parameters())
    expected = dict(causal_lm.named_parameters())
    lost = [name for name in names if name in report["missing_keys"] or name not in found]
    lost += [name for name in names if name not in lost and found[name].shape[1:] != expected[name].shape[1:]]
    if lost:
        raise ValueError(f"The base {base} has no {lost[0]} that fits this encoder, so there is no output head.")
    return {name: found[name].detach().clone() for name in names}


def write_head(transformer: nn.Module, folder: Path) -> None:
    """Write the head that learned as a part of the transformer, if there is one, as ``mntp_head.safetensors``."""
    head = getattr(transformer, HEAD_NAME, None)
    if head is not None:
        weights = dict(zip(head.names, head.weights, strict=True))
        save_file({name: weight.detach().contiguous().cpu() for name, weight in weights.items()}, folder / HEAD_FILE)


def restore_head(encoder: SentenceTransformer, folder: Path) -> None:
    """Make a folder's trained head, if it holds one, a part of the encoder's first module again."""
    if (folder / HEAD_FILE).is_file():
        head = OutputHead(plain_body(encoder), load_file(folder / HEAD_FILE), trainable=True)
        attach_head(encoder, head)


def attach_head(encoder: SentenceTransformer, head: OutputHead) -> None:
    """Make a head that learns a part of the encoder's first module, whose every pass then touches its weights.

    Distributed training expects all weights in the forward pass; the head itself runs after it.
    """
    encoder[0].add_module(HEAD_NAME, head.to(encoder.device))

    def touch(module: nn.Module, inputs: Any, features: dict[str, Any]) -> None:
        if module.training and torch.is_grad_enabled():
            nothing = sum(weight.sum() * 0 for weight in head.weights)
            features["token_embeddings"] = features["token_embeddings"] + nothing

    encoder[0].register_forward_hook(touch)


def plain_body(encoder: SentenceTransformer) -> PreTrainedModel:
    """The encoder's decoder, without what PEFT may have put around it."""
    body: Any = encoder[0].model
    return body.get_base_model() if hasattr(body, "get_base_model") else body


def embedding_weight(body: PreTrainedModel) -> Tensor:
    """The input embeddings, of shape ``(vocabulary, hidden)``."""
    embeddings: Any = body.get_input_embeddings()
    return embeddings.weight


class _States(nn.Module):
    """Stands where the body was, and returns the states it was given."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.__dict__["body"] = body
        self.states: Tensor | None = None

    @property
    def decoder(self) -> nn.Module:
        """OPT's head passes over its body and calls the decoder inside."""
        return self

    def forward(self, *args: Any, **kwargs: Any) -> _Output:
        return _Output(self.states)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["body"], name)


class _Output:
    """A body's output: the states first, and nothing in any other field that a head may ask for."""

    def __init__(self, states: Tensor | None) -> None:
        self.last_hidden_state = states

    def __getitem__(self, index: int) -> Tensor | None:
        return (self.last_hidden_state, None)[index]

    def __getattr__(self, name: str) -> None:
        return None
