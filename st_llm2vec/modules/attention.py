"""Set a decoder's attention, and prove by its behaviour what it is."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel

Attention = Literal["bidirectional", "causal"]
PROBE_TOKENS = 8
PACKED = "st_llm2vec_packed"
"""This package's own attention implementation (``packed/``), which is SDPA for every batch that is not packed."""


class CausalAttentionError(ValueError):
    """A model that is meant to be bidirectional cannot see the future."""


@dataclass(frozen=True)
class AttentionProbe:
    """What a model's first token sees of its last one, for the attention implementation in use.

    Args:
        implementation: The attention implementation, e.g. ``"sdpa"``.
        unpadded: Whether the first token's state changes with the last token in a batch without padding.
        right_padded: The same in a batch with right padding, for every row.
        left_padded: The same in a batch with left padding, for every row.
        layers: For each layer, whether it alone carries information from later tokens to the first;
            empty where the layers cannot be run one by one.
        padded_layers: The same in a batch with padding.
    """

    implementation: str
    unpadded: bool
    right_padded: bool
    left_padded: bool
    layers: tuple[bool, ...] = ()
    padded_layers: tuple[bool, ...] = ()

    @property
    def kind(self) -> Literal["bidirectional", "causal", "hybrid", "mixed"]:
        """``hybrid``: some layers stay causal; ``mixed``: the answer depends on padding, in the whole or in a layer."""
        answers = {self.unpadded, self.right_padded, self.left_padded}
        if answers == {False}:
            return "causal"
        if answers == {True, False} or self.layers != self.padded_layers:
            return "mixed"
        return "bidirectional" if all(self.layers) else "hybrid"

    @property
    def sees_future(self) -> bool:
        """Whether every row sees the future, through all layers or, in a hybrid, through some."""
        return self.kind in ("bidirectional", "hybrid")

    def describe(self) -> str:
        """The probe's result in words."""
        if self.kind == "hybrid":
            stay = self.layers.count(False)
            return (
                f"hybrid under {self.implementation}: the future is visible through {self.layers.count(True)} of "
                f"{len(self.layers)} layers; the other {stay} (recurrent or convolutional) stay causal"
            )
        if self.kind == "mixed" and self.unpadded and self.right_padded and self.left_padded:
            return (
                f"depends on the batch under {self.implementation}: the future is visible through "
                f"{self.layers.count(True)} layers without padding and through {self.padded_layers.count(True)} with it"
            )
        if self.kind == "mixed":
            answers = {
                "without padding": self.unpadded,
                "right-padded": self.right_padded,
                "left-padded": self.left_padded,
            }
            sees = " and ".join(name for name, answer in answers.items() if answer)
            blind = " and ".join(name for name, answer in answers.items() if not answer)
            return f"depends on the batch under {self.implementation}: bidirectional {sees}, causal {blind}"
        return f"{self.kind} under {self.implementation}, with and without padding"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        lists = {"layers": list(self.layers), "padded_layers": list(self.padded_layers)}
        return {**asdict(self), **lists, "kind": self.kind}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> AttentionProbe:
        """Read back what :meth:`to_dict` wrote."""
        fields = {name: value for name, value in data.items() if name != "kind"}
        layers, padded = tuple(fields.pop("layers")), tuple(fields.pop("padded_layers"))
        return cls(**fields, layers=layers, padded_layers=padded)


def set_attention(model: PreTrainedModel, attention: Attention) -> None:
    """Set ``is_causal`` in the model's configuration, which Transformers (>= 5.2) reads at every forward.

    The flag is saved with ``config.json``, so a plain reload has it too. It must be set on the configuration
    object: passed to ``from_pretrained`` it is dropped where ``config.json`` lacks the key.

    Gemma 3 has a key of its own beside it, ``use_bidirectional_attention``, the only one that servers read. A configuration that
    is read with it halves its sliding window, and one that is saved with it doubles it, so that set here it changes none.

    Args:
        model: A decoder without its output head.
        attention: ``"bidirectional"`` or ``"causal"``.
    """
    configs = {id(config): config for config in (model.config, model.config.get_text_config(decoder=True))}
    for config in configs.values():
        set_before = not getattr(config, "is_causal", True)
        if attention == "bidirectional" or hasattr(config, "is_causal"):
            config.is_causal = attention == "causal"
        if config.model_type == "gemma3_text" and (attention == "bidirectional" or set_before):
            config.use_bidirectional_attention = attention == "bidirectional"
            repair_attention(model, attention)  # the layers took the key's value when they were built


def configured_attention(model: PreTrainedModel) -> Attention:
    """What the model's configuration says, as :func:`set_attention` writes it; decoders without the key are causal."""
    return "causal" if getattr(model.config, "is_causal", True) else "bidirectional"


def repair_attention(model: PreTrainedModel, attention: Attention) -> bool:
    """Set ``is_causal`` on the attention modules themselves, for families that ignore the configuration.

    StableLM and Nemotron skip the mask of an unpadded batch under SDPA and fall back on this attribute.

    Returns:
        Whether any module was changed.
    """
    changed = False
    for module in model.modules():
        if isinstance(getattr(module, "is_causal", None), bool) and module.is_causal != (attention == "causal"):
            module.is_causal = attention == "causal"  # type: ignore[assignment]
            changed = True
    return changed


@torch.no_grad()
def probe_attention(model: PreTrainedModel) -> AttentionProbe:
    """Change the last token and look at the first token's state, with and without padding.

    Args:
        model: A decoder without its output head; its mode (training or evaluation) is restored.

    Returns:
        What was seen.

    Raises:
        ValueError: If a state is not finite, as where float16 overflows.
    """
    training = model.training
    model.eval()
    try:
        vocabulary = int(model.config.get_text_config(decoder=True).vocab_size)
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(min(10, vocabulary // 2), vocabulary, (2, PROBE_TOKENS), generator=generator)
        short = PROBE_TOKENS - 3
        full = torch.ones(2, PROBE_TOKENS, dtype=torch.long)
        right, left = full.clone(), full.clone()
        right[1, short:] = 0
        left[1, : PROBE_TOKENS - short] = 0
        in_use = getattr(model.config, "_attn_implementation", None)
        unpadded, layers = _sees_last(model, ids, full)
        right_padded, padded_layers = _sees_last(model, ids, right)
        return AttentionProbe(
            implementation="sdpa" if in_use == PACKED else str(in_use or "eager"),
            unpadded=unpadded,
            right_padded=right_padded,
            left_padded=_sees_last(model, ids, left, by_layer=False)[0],
            layers=layers,
            padded_layers=padded_layers,
        )
    finally:
        model.train(training)


def prove_attention(model: PreTrainedModel, attention: Attention, name: str) -> AttentionProbe:
    """Raise unless the model attends as it is meant to.

    Args:
        model: A decoder without its output head.
        attention: What it is meant to be.
        name: The model's name, for the message.

    Returns:
        The probe, if the attention is as meant; a hybrid counts as bidirectional.

    Raises:
        CausalAttentionError: If the model is meant to be bidirectional and is not, under any padding.
        ValueError: If the model is to be causal and is not.
    """
    probe = probe_attention(model)
    require_attention(probe, model, attention, name)
    return probe


def require_attention(probe: AttentionProbe, model: PreTrainedModel, attention: Attention, name: str) -> None:
    """Raise as :func:`prove_attention` does, from a probe that was made."""
    if attention == "bidirectional" and not probe.sees_future:
        raise CausalAttentionError(
            f"{name} ({model.config.model_type}) is meant to attend in both directions, but the probe found: "
            f"{probe.describe()}. Its vectors would be wrong without a word. Use a decoder of another architecture, "
            'another attn_implementation ("eager" or "sdpa"), or a causal recipe such as "echo" or "prompteol".'
        )
    if attention == "causal" and probe.kind != "causal":
        raise ValueError(
            f"{name} ({model.config.model_type}) was told to attend causally, but the probe found: {probe.describe()}. "
            "Use a decoder, or a recipe whose attention is bidirectional."
        )


def tokens_differ(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two states differ by more than rounding.

    What a token cannot see leaves its state untouched, bit by bit, but for the rounding of experts that are
    computed in other groups. What it sees changes most elements, if only in the last bits of half precision.
    Elements are compared each with its own size, since a few of a first token's may be huge.
    """
    rounding = 64 if first.dtype in (torch.float32, torch.float64) else 0.5
    changed = (first - second).abs() > rounding * torch.finfo(first.dtype).eps * first.abs()
    return bool((changed.float().mean() > 0.25).item())


def without_cache(model: PreTrainedModel) -> dict[str, bool]:
    """The keyword that turns the key-value cache off, for models that have one."""
    return {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}


def _sees_last(
    model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, by_layer: bool = True
) -> tuple[bool, tuple[bool, ...]]:
    """Whether the first token's state depends on the last token, and for each layer alone whether it carries that."""
    rows = torch.arange(ids.shape[0])
    first = mask.argmax(dim=1)
    last = mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)
    changed = ids.clone()
    changed[rows, last] = ids[rows, last - 1]
    inputs, other_inputs = (_inputs(batch, mask, next(model.parameters()).device) for batch in (ids, changed))
    layers = list(decoder_layers(model) or []) if by_layer else []
    with _recorded(layers) as calls:
        states = model(**inputs, **without_cache(model)).last_hidden_state[rows, first]
    others = model(**other_inputs, **without_cache(model)).last_hidden_state[rows, first]
    if not (states.isfinite().all() and others.isfinite().all()):
        raise ValueError(
            f"The model ({model.config.model_type}) gives states that are not finite in {str(states.dtype).removeprefix('torch.')}, "
            "so its vectors would not be numbers. Load it in another type, such as dtype=torch.float32."
        )
    sees = all(tokens_differ(states[row], others[row]) for row in range(ids.shape[0]))
    return sees, tuple(_carries(layer, calls[layer]) for layer in layers)


def _inputs(ids: torch.Tensor, mask: torch.Tensor, device: torch.device) -> dict[str, torch.Tensor]:
    """Without padding the mask is left out, as it is for a single text."""
    inputs = {"input_ids": ids.to(device)}
    if bool((mask == 0).any()):
        inputs["attention_mask"] = mask.to(device)
    return inputs


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList | None:
    """The list of the decoder's layers, or ``None`` where there is no such list."""
    count = getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", None)
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == count]
    return lists[0] if lists else None


@dataclass
class _Call:
    """What a layer was given, and what it answered for the first token."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    first: torch.Tensor = field(default_factory=lambda: torch.empty(0))


@contextmanager
def _recorded(layers: Iterable[nn.Module]) -> Iterator[dict[nn.Module, _Call]]:
    """Record the layers' calls."""
    calls: dict[nn.Module, _Call] = {}

    def before(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls[layer] = _Call(args, kwargs)

    def after(layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        calls[layer].first = _first_states(output).clone()

    hooks = [layer.register_forward_pre_hook(before, with_kwargs=True) for layer in layers]
    hooks += [layer.register_forward_hook(after) for layer in layers]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _first_states(output: Any) -> torch.Tensor:
    states: torch.Tensor = output[0] if isinstance(output, tuple | list) else output
    return states[..., 0, :]


def _carries(layer: nn.Module, call: _Call) -> bool:
    """Run a layer alone on the states it got in the model, with all states but the first replaced."""
    states = call.args[0] if call.args else call.kwargs["hidden_states"]
    changed = states.clone()
    changed[..., 1:, :] = states[..., 1:, :].flip(-1)
    if call.args:
        output = layer(changed, *call.args[1:], **call.kwargs)
    else:
        output = layer(**{**call.kwargs, "hidden_states": changed})
    return tokens_differ(call.first, _first_states(output))
