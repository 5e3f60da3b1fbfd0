"""The Sentence Transformers modules of this encoder, from st-llm2vec (Apache-2.0).

With st-llm2vec installed, ``st_llm2vec.load`` reads this folder without running this file.
Without it, ``SentenceTransformer(..., trust_remote_code=True)`` does.
"""

from __future__ import annotations
from collections.abc import Iterable, Iterator
from collections.abc import Mapping, Sequence
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from dataclasses import dataclass
from sentence_transformers.base.modules import Transformer
from sentence_transformers.base.modules.module import Module
from torch import nn
from transformers import PreTrainedModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers import PreTrainedTokenizerBase
from typing import Any
from typing import Any, Literal
from typing import Any, cast
import inspect
import itertools
import logging
import numpy as np
import re
import torch

ADAPTER_PREFIX = "base_model.model."
DOWNLOAD_OPTIONS = ("revision", "token", "cache_dir", "local_files_only")


def has_adapter(model: nn.Module) -> bool:
    """Whether PEFT, or Transformers by its means, has attached an adapter to the model."""
    return bool(getattr(model, "peft_config", None))


def adapter_weights(model: Any) -> set[str]:
    """Name the model's weights that PEFT keeps for its adapters, whatever their kind; all others are the base's."""
    if not has_adapter(model):
        return set()
    from peft import get_peft_model_state_dict
    from peft.tuners.tuners_utils import BaseTunerLayer

    kept = {
        weight.data_ptr()
        for name in model.peft_config
        for weight in get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False).values()
    }
    names = {name for name, weight in model.state_dict().items() if weight.data_ptr() in kept}
    for place, module in model.named_modules():  # and what a layer has beside its base without keeping it: a rank, say
        if isinstance(module, BaseTunerLayer):
            own = (
                name for name, _ in cast("nn.Module", module).named_parameters() if not name.startswith("base_layer.")
            )
            names |= {f"{place}.{name}" for name in own}
    return names


def refuse_unloadable(model: Any) -> None:
    """Raise if a folder with the model's adapters could be written and never be read.

    Raises:
        ValueError: If Transformers, which attaches adapters at load, does not take their kind.
    """
    if not has_adapter(model):
        return
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    for config in model.peft_config.values():
        tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
        if config.is_prompt_learning or getattr(tuner, "uses_shared_state", False):
            raise ValueError(
                f"An adapter of the kind {config.peft_type.value} could be saved and not be loaded again: Transformers, "
                "which attaches adapters at load, does not take it. Attach one of another kind, such as LoRA; one of "
                "weights can be merged before it is saved: st_llm2vec.training.merge_adapter(encoder)."
            )


def keep_full_precision(model: Any) -> None:
    """Put the adapters' weights into float32: half precision rounds most of an optimizer's steps away.

    PEFT's own ``get_peft_model`` does so, and Transformers' ``add_adapter`` and ``from_pretrained`` do not. Whole copies
    of the base's modules (``modules_to_save``, LN tuning) stay in its type, since they compute with its states.
    """
    from peft import PeftType
    from peft.functional import cast_adapter_dtype

    for name, config in (getattr(model, "peft_config", None) or {}).items():
        if config.peft_type != PeftType.LN_TUNING:
            cast_adapter_dtype(model, name)


def restore_adapter(model: Any, source: str, **options: Any) -> None:
    """Load an adapter's weights as PEFT does, all of them, in float32.

    Transformers, which has attached the adapter to the model, rounds them to the base's type and leaves out DoRA's
    magnitudes.

    Args:
        model: The model with the adapter attached.
        source: The adapter's folder or repository.
        **options: ``revision``, ``token``, ``cache_dir`` and ``local_files_only``, those that are set.

    Raises:
        ValueError: If weights are missing, or have no place in the model.
    """
    from peft import get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict

    keep_full_precision(model)
    stored = load_peft_weights(source, device="cpu", **options)
    stored = {name.removeprefix(ADAPTER_PREFIX): weight for name, weight in stored.items()}
    missing = sorted(set(get_peft_model_state_dict(model, save_embedding_layers=False)) - set(stored))
    if missing:
        raise ValueError(
            f"{source} lacks {len(missing)} of the adapter's weights (the first is {missing[0]}); they would be random. "
            "Save or download it again."
        )
    report: Any = set_peft_model_state_dict(model, stored)
    unknown = sorted(report.unexpected_keys)
    if unknown:
        raise ValueError(
            f"{source} holds {len(unknown)} weights of an adapter that have no place in its base (the first is "
            f"{unknown[0]}); the adapter is for another model. Give its own base."
        )


Attention = Literal["bidirectional", "causal"]
PROBE_TOKENS = 8


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

    Args:
        model: A decoder without its output head.
        attention: ``"bidirectional"`` or ``"causal"``.
    """
    configs = {id(config): config for config in (model.config, model.config.get_text_config(decoder=True))}
    for config in configs.values():
        if attention == "bidirectional" or hasattr(config, "is_causal"):
            config.is_causal = attention == "causal"


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
        unpadded, layers = _sees_last(model, ids, full)
        right_padded, padded_layers = _sees_last(model, ids, right)
        return AttentionProbe(
            implementation=str(getattr(model.config, "_attn_implementation", None) or "eager"),
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
        ValueError: If the model is meant to be causal and is not.
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
            f"{name} ({model.config.model_type}) is meant to be causal, but the probe found: {probe.describe()}."
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


UNLIMITED = 1_000_000
SLOT = re.compile(r"(\{/?[a-z_]+\})")
SLOTS = ("{bos}", "{eos}", "{instruction}", "{text}", "{pool}", "{/pool}")


@dataclass(frozen=True)
class Template:
    """A parsed template.

    Args:
        pieces: The template in order; each piece is a slot name such as ``"{text}"`` or a literal string.
        bos: Whether the text opens with the tokens that the tokenizer itself puts before a text.
        eos: Whether the text closes with the end-of-text token.
        pools_bos: Whether the opening tokens are pooled.
        pools_eos: Whether the end-of-text token is pooled.
    """

    pieces: tuple[str, ...]
    bos: bool
    eos: bool
    pools_bos: bool
    pools_eos: bool

    @classmethod
    def parse(cls, template: str) -> Template:
        """Parse a template string.

        Args:
            template: Literal text with the slots ``{text}`` (at least once), ``{instruction}``, ``{bos}`` (first),
                ``{eos}`` (last), and ``{pool}`` ... ``{/pool}`` around what is pooled. Without ``{pool}``
                everything is pooled, special tokens included.

        Returns:
            The parsed template.

        Raises:
            ValueError: If a slot is unknown, misplaced, or missing.
        """
        pieces = [piece for piece in SLOT.split(template) if piece]
        unknown = [piece for piece in pieces if SLOT.fullmatch(piece) and piece not in SLOTS]
        if unknown:
            raise ValueError(
                f"The template {template!r} has the unknown slot {unknown[0]}; known are {', '.join(SLOTS)}."
            )
        if "{text}" not in pieces:
            raise ValueError(f"The template {template!r} has no {{text}} slot; write {{text}} where the text belongs.")
        if pieces.count("{pool}") > 1 or pieces.count("{pool}") != pieces.count("{/pool}"):
            raise ValueError(f"The template {template!r} must mark what is pooled with one {{pool}} and one {{/pool}}.")
        pooled = "{pool}" in pieces
        if pooled and pieces.index("{pool}") > pieces.index("{/pool}"):
            raise ValueError(f"The template {template!r} closes {{/pool}} before it opens {{pool}}.")
        content = [piece for piece in pieces if piece not in ("{pool}", "{/pool}")]
        if content.count("{bos}") > 1 or ("{bos}" in content and content[0] != "{bos}"):
            raise ValueError(f"The template {template!r} may have {{bos}} only once, at its very start.")
        if content.count("{eos}") > 1 or ("{eos}" in content and content[-1] != "{eos}"):
            raise ValueError(f"The template {template!r} may have {{eos}} only once, at its very end.")
        bos, eos = "{bos}" in content, "{eos}" in content
        return cls(
            pieces=tuple(piece for piece in pieces if piece not in ("{bos}", "{eos}")),
            bos=bos,
            eos=eos,
            pools_bos=bos and (not pooled or pieces.index("{pool}") < pieces.index("{bos}")),
            pools_eos=eos and (not pooled or pieces.index("{/pool}") > pieces.index("{eos}")),
        )

    @property
    def copies(self) -> int:
        """How often the text stands in the template."""
        return self.pieces.count("{text}")

    def words(self) -> str:
        """The template without what marks BOS, EOS and the pooled span."""
        return "".join(piece for piece in self.pieces if piece not in ("{pool}", "{/pool}"))

    @property
    def pools_everything(self) -> bool:
        """Whether no span is marked."""
        return "{pool}" not in self.pieces

    def around_instruction(self) -> tuple[str, str]:
        """The literals before and after the ``{instruction}`` slot, up to the next slot or the edge."""
        content = [piece for piece in self.pieces if piece not in ("{pool}", "{/pool}")]
        index = content.index("{instruction}")
        before = content[index - 1] if index > 0 and content[index - 1] not in SLOTS else ""
        after = content[index + 1] if index + 1 < len(content) and content[index + 1] not in SLOTS else ""
        return before, after

    @property
    def separates_by_a_blank(self) -> bool:
        """Whether nothing but a blank stands between the instruction and the text."""
        return "{instruction} {text}" in self.words()

    def render(self, text: str, instruction: str) -> tuple[str, tuple[int, int], list[tuple[int, int]]]:
        """Fill in the slots.

        Returns:
            The string, the pooled characters ``(start, end)``, and the ``(start, end)`` of each copy of the text.
        """
        body, start, end = "", 0, None
        copies: list[tuple[int, int]] = []
        for piece in self.pieces:
            if piece == "{pool}":
                start = len(body)
            elif piece == "{/pool}":
                end = len(body)
            elif piece == "{text}":
                copies.append((len(body), len(body) + len(text)))
                body += text
            else:
                body += instruction if piece == "{instruction}" else piece
        return body, (start, len(body) if end is None else end), copies


class InstructionFormatter:
    """Turns instruction and text into token ids and the mask of the tokens to pool, exact to the token.

    The whole string is tokenised at once, as the methods' own code does; a token is pooled when one of its
    characters lies between ``{pool}`` and ``{/pool}``. A row that is too long loses the end of its *text*,
    in every copy alike, before the string is built: template, suffix and end-of-text token always stay.

    Where nothing but a blank separates instruction and text, blanks that the text begins with are left out: to those
    who get the string in one piece, ``"Find it: " + "a text"`` and ``"Find it:" + " a text"`` are the same.

    Args:
        template: Template of a bare text, see :meth:`Template.parse`.
        instruction_template: Template of a text with an instruction; ``None`` if the method takes none.

    Raises:
        ValueError: If a template is malformed.

    Example:
        >>> formatter = InstructionFormatter("{text}", "Instruct: {instruction}\\nQuery: {pool}{text}{/pool}")
        >>> formatter.bare_instruction("Instruct: Find the capital.\\nQuery: ")
        'Find the capital.'
    """

    def __init__(self, template: str, instruction_template: str | None = None) -> None:
        self.template_string, self.instruction_template_string = template, instruction_template
        self.template = Template.parse(template)
        if "{instruction}" in self.template.pieces:
            raise ValueError(f"The template {template!r} is for bare texts and cannot have an {{instruction}} slot.")
        self.instruction_template = None
        if instruction_template is not None:
            self.instruction_template = Template.parse(instruction_template)
            if self.instruction_template.pieces.count("{instruction}") != 1:
                raise ValueError(f"The template {instruction_template!r} needs exactly one {{instruction}} slot.")

    def get_config_dict(self) -> dict[str, Any]:
        """The templates, as the constructor takes them."""
        return {"template": self.template_string, "instruction_template": self.instruction_template_string}

    def bare_instruction(self, instruction: str | None) -> str:
        """Strip blanks, and the template's words where the whole instruction stands between them, as a caller wraps it.

        An instruction may begin or end with a word of the template's by itself, and keeps it; where the template has words
        on one side only, nothing tells the two, and all are the instruction's.
        """
        instruction = (instruction or "").strip()
        before, after = self.wrapping()
        if instruction.startswith(before) and instruction.endswith(after) and len(instruction) >= len(before + after):
            instruction = instruction[len(before) : len(instruction) - len(after)].strip()
        return instruction

    def wrapping(self) -> tuple[str, str]:
        """What stands before and after an instruction that a caller has wrapped, blanks at its ends stripped.

        Both are empty unless the template has words on both sides: words on one may be the instruction's own.
        """
        if self.instruction_template is None:
            return "", ""
        before, after = self.instruction_template.around_instruction()
        return (before.lstrip(), after.rstrip()) if before.strip() and after.strip() else ("", "")

    def __call__(
        self,
        texts: Sequence[str],
        instruction: str | Sequence[str | None] | None,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
    ) -> dict[str, torch.Tensor]:
        """Format and tokenise a batch.

        Args:
            texts: The texts.
            instruction: One instruction for all texts, or one for each of them; empty or ``None`` for none.
            tokenizer: A fast tokenizer with a padding token; its ``padding_side`` is used.
            max_length: Longest row, in tokens, template included.

        Returns:
            ``input_ids``, ``attention_mask`` and ``pooling_mask``, each of shape ``(batch, tokens)``.

        Raises:
            ValueError: If the method takes no instruction, if the numbers of texts and instructions differ,
                or if the template alone is longer than ``max_length``.
        """
        if instruction is None or isinstance(instruction, str):
            instructions: list[str] = [self.bare_instruction(instruction)] * len(texts)
        else:
            instructions = [self.bare_instruction(one) for one in instruction]
        if len(instructions) != len(texts):
            raise ValueError(f"Got {len(texts)} texts but {len(instructions)} instructions; give one for each text.")
        if any(instructions) and self.instruction_template is None:
            raise ValueError(
                f"This encoder's template {self.template_string!r} has no place for an instruction, "
                f"but one was given: {next(filter(None, instructions))!r}. Encode without a prompt."
            )
        rows = self._tokenize(self._behind_blanks(texts, instructions), instructions, tokenizer, max_length)
        return pad_rows(rows, tokenizer)

    def _behind_blanks(self, texts: Sequence[str], instructions: list[str]) -> list[str]:
        if self.instruction_template is None or not self.instruction_template.separates_by_a_blank:
            return list(texts)
        return [text.lstrip(" ") if told else text for text, told in zip(texts, instructions, strict=True)]

    def _tokenize(
        self, texts: list[str], instructions: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> list[tuple[list[int], list[int]]]:
        bos_ids = leading_special_ids(tokenizer)
        rows: list[tuple[list[int], list[int]] | None] = [None] * len(texts)
        pending = list(range(len(texts)))
        while pending:
            templates = [self._template_for(instructions[i]) for i in pending]
            rendered = [t.render(texts[i], instructions[i]) for t, i in zip(templates, pending, strict=True)]
            bodies = [body for body, _, _ in rendered]
            encoded = tokenizer(
                bodies,
                add_special_tokens=False,
                return_offsets_mapping=True,
                return_attention_mask=False,
                verbose=False,
            )
            too_long = []
            tokens = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
            for index, template, (ids, offsets), (_, pool, copies) in zip(
                pending, templates, tokens, rendered, strict=True
            ):
                excess = len(ids) + len(bos_ids) * template.bos + template.eos - max_length
                if excess <= 0:
                    mask = [int(start < pool[1] and end > pool[0] and end > start) for start, end in offsets]
                    rows[index] = self._add_special(ids, mask, template, bos_ids, tokenizer)
                else:
                    texts[index] = self._cut(texts[index], offsets, copies, excess, max_length)
                    too_long.append(index)
            pending = too_long
        return [row for row in rows if row is not None]

    def _template_for(self, instruction: str) -> Template:
        return self.instruction_template if instruction and self.instruction_template else self.template

    @staticmethod
    def _add_special(
        ids: list[int], mask: list[int], template: Template, bos_ids: list[int], tokenizer: PreTrainedTokenizerBase
    ) -> tuple[list[int], list[int]]:
        ids, mask = list(ids), list(mask)
        if template.bos:
            ids, mask = bos_ids + ids, [int(template.pools_bos)] * len(bos_ids) + mask
        if template.eos:
            if tokenizer.eos_token_id is None:
                raise ValueError("The template asks for {eos}, but the tokenizer has no end-of-text token; set one.")
            ids, mask = [*ids, tokenizer.eos_token_id], [*mask, int(template.pools_eos)]
        return ids, mask

    @staticmethod
    def _cut(
        text: str, offsets: list[tuple[int, int]], copies: list[tuple[int, int]], excess: int, max_length: int
    ) -> str:
        """Shorten the text so that each copy loses its share of the excess tokens, at least one character."""
        start, end = copies[0]
        inside = [s for s, e in offsets if e > start and s < end and e > s]
        keep = len(inside) - -(-excess // len(copies))
        cut = inside[keep] - start if 0 < keep < len(inside) else 0
        if cut <= 0:
            raise ValueError(
                f"The template and the instruction leave no room for the text: max_length={max_length} tokens are "
                f"{excess} too few for the whole. Shorten the instruction or the demonstrations, or raise max_length."
            )
        return text[: min(cut, len(text) - 1)]


def leading_special_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that the tokenizer itself puts before a text (usually BOS or nothing)."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    special = tokenizer("a")["input_ids"]
    for start in range(len(special) - len(plain) + 1):
        if special[start : start + len(plain)] == plain:
            return list(special[:start])
    return []


def pad_rows(rows: list[tuple[list[int], list[int]]], tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
    """Pad ``(ids, pooling mask)`` rows at the tokenizer's padding side.

    A row without any token becomes one padding token that is attended to but not pooled, so that the model
    has something to read and the text's vector is zero.
    """
    rows = [row if row[0] else ([tokenizer.pad_token_id], [0]) for row in rows]
    input_ids, attention_mask = pad_ids([ids for ids, _ in rows], tokenizer)
    pooling_mask = torch.zeros_like(attention_mask)
    pooling_mask[attention_mask.bool()] = _flat([mask for _, mask in rows])
    return {"input_ids": input_ids, "attention_mask": attention_mask, "pooling_mask": pooling_mask}


def pad_ids(rows: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad rows of token ids at the tokenizer's padding side.

    Args:
        rows: The ids of each text.
        tokenizer: Its padding token and its padding side are used.

    Returns:
        ``input_ids`` and ``attention_mask``, both of shape ``(batch, tokens)``.
    """
    lengths = torch.tensor([len(row) for row in rows]).unsqueeze(1)
    width = int(lengths.max())
    places = torch.arange(width)
    read = places >= width - lengths if tokenizer.padding_side == "left" else places < lengths
    input_ids = torch.full(read.shape, cast("int", tokenizer.pad_token_id), dtype=torch.long)
    input_ids[read] = _flat(rows)
    return input_ids, read.long()


def _flat(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    return torch.from_numpy(np.fromiter(itertools.chain.from_iterable(rows), np.int64))


INSTRUCTED_KEYS = {"instruction", "text"}


def carries_instruction(row: Any) -> bool:
    """Whether an input is meant as a text with an instruction.

    Args:
        row: The input.

    Returns:
        True for ``{"instruction": ..., "text": ...}``, and for lists and tuples of strings such as
        ``[instruction, text]``, which is how LLM2Vec and INSTRUCTOR are called.

    Example:
        >>> carries_instruction(["Name it:", "a cat"]), carries_instruction("a cat"), carries_instruction([5, 6])
        (True, False, False)
    """
    if isinstance(row, Mapping):
        return set(row) == INSTRUCTED_KEYS
    return isinstance(row, list | tuple) and any(isinstance(part, str) for part in row)


def split_instructed(rows: Sequence[Any], prompt: Any = None) -> tuple[list[str], list[str]]:
    """Split texts from their instructions.

    Args:
        rows: ``[instruction, text]`` or ``{"text": str, "instruction": str | None}``.
        prompt: Must be empty: the rows have instructions of their own.

    Returns:
        The texts, and the instruction of each, without blanks around it; an empty one is none.

    Raises:
        ValueError: If a row has no instruction of its own, or there is a prompt too.

    Example:
        >>> split_instructed([["Name it:", "a cat"], {"text": "the sea", "instruction": None}])
        (['a cat', 'the sea'], ['Name it:', ''])
    """
    if prompt is not None and (not isinstance(prompt, str) or prompt.strip()):
        raise ValueError(f"The texts have instructions of their own, and the prompt {prompt!r} was given; keep one.")
    texts, instructions = [], []
    for number, row in enumerate(rows):
        parts = (row["instruction"], row["text"]) if isinstance(row, Mapping) and carries_instruction(row) else row
        pair = list(parts) if isinstance(parts, list | tuple) else []
        if len(pair) != 2 or not isinstance(pair[0], str | None) or not isinstance(pair[1], str):
            raise ValueError(
                f"Row {number} of the batch is {str(row)[:60]!r}; another row has an instruction of its own, or this one "
                'is meant to, so that each must be [instruction, text] or {"text": a string, "instruction": a string or '
                "None}."
            )
        texts.append(str(pair[1]))
        instructions.append(str(pair[0] or "").strip())
    return texts, instructions


logger = logging.getLogger(__name__)

UNCUT = (False, "do_not_truncate")
HONOURED: dict[str, dict[str, tuple[Any, ...]]] = {
    "text": {"truncation": (True, "longest_first", "only_first", *UNCUT), "padding": (True, "longest")},
    "common": {"return_tensors": ("pt",)},
    "chat_template": {},
}


def longest_input(
    transformer: Transformer, max_length: int | None = None, processing_kwargs: dict[str, Any] | None = None
) -> int:
    """The longest input of a call, in tokens, template included.

    Args:
        transformer: The module that reads it.
        max_length: What the call asks for.
        processing_kwargs: The call's settings of the processor, which come first.

    Returns:
        The number of tokens.
    """
    settings = _settings(transformer, processing_kwargs, "text")
    if settings.get("truncation", True) in UNCUT:
        return UNLIMITED
    return settings.get("max_length") or max_length or transformer.max_seq_length or UNLIMITED


def _settings(transformer: Transformer, processing_kwargs: dict[str, Any] | None, kind: str) -> dict[str, Any]:
    """The module's own settings of a kind, completed by the call's."""
    own: dict[str, Any] = dict(transformer.processing_kwargs)
    return {**(own.get(kind) or {}), **((processing_kwargs or {}).get(kind) or {})}


def add_position_ids(features: dict[str, Any], model: PreTrainedModel) -> dict[str, Any]:
    """Give a left-padded batch explicit positions, which models with absolute positions (GPT-2) need.

    Args:
        features: ``input_ids`` and ``attention_mask`` of shape ``(batch, tokens)``.
        model: The model that will read them.

    Returns:
        The same features, with ``position_ids`` of shape ``(batch, tokens)`` where the batch is left-padded
        and the model takes them.
    """
    if "position_ids" in features:
        return features
    mask = features.get("attention_mask")
    if isinstance(mask, torch.Tensor) and mask.ndim == 2 and mask.numel() and bool((mask[:, 0] == 0).any()):
        if "position_ids" in inspect.signature(model.forward).parameters:
            features["position_ids"] = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
    return features


class BidirectionalTransformer(Transformer):
    """A stock ``Transformer`` that sets its attention, repairs it where it must, and proves it at load.

    An encoder that stock modules can express uses a stock ``Transformer`` with ``"is_causal": false`` in its
    ``config.json``. This class is for the rest: an :class:`InstructionFormatter` before the model, families
    that ignore the configuration (StableLM, Nemotron), a folder that holds only an adapter, and composing by hand.

    Args:
        model_name_or_path: As for ``Transformer``.
        attention: ``"bidirectional"`` or ``"causal"``; proven by behaviour when the module is made.
        formatter: The templates of an :class:`InstructionFormatter` (``template`` and
            ``instruction_template``); ``None`` leaves the texts to the stock preprocessing.
        **kwargs: As for ``Transformer``.

    Raises:
        CausalAttentionError: If the model is meant to be bidirectional and is not.
        ValueError: If the folder holds an adapter that lacks weights.
    """

    config_keys = [*Transformer.config_keys, "attention", "formatter"]

    def __init__(
        self,
        model_name_or_path: str,
        *,
        attention: Attention = "bidirectional",
        formatter: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model_name_or_path, **kwargs)
        if has_adapter(self.model):
            options = kwargs.get("model_kwargs") or {}
            restore_adapter(
                self.model, model_name_or_path, **{name: options[name] for name in DOWNLOAD_OPTIONS if name in options}
            )
        self.attention = attention
        self.formatter = formatter
        self._formatter = InstructionFormatter(**formatter) if formatter is not None else None
        set_attention(self.model, attention)
        probe = probe_attention(self.model)
        if probe.kind == "mixed" and repair_attention(self.model, attention):
            logger.info("%s: attention repaired on the modules themselves", model_name_or_path)
            probe = probe_attention(self.model)
        require_attention(probe, self.model, attention, model_name_or_path)

    @classmethod
    def from_transformer(
        cls, transformer: Transformer, attention: Attention, formatter: dict[str, Any] | None
    ) -> BidirectionalTransformer:
        """Take over a loaded stock ``Transformer``, whose attention is already set and proven, weights and all."""
        module = cls.__new__(cls)
        module.__dict__.update(transformer.__dict__)
        module.attention = attention
        module.formatter = formatter
        module._formatter = InstructionFormatter(**formatter) if formatter is not None else None
        return module

    def preprocess(  # type: ignore[override]
        self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Format and tokenise texts.

        Args:
            inputs: The texts; or texts with an instruction each, ``[instruction, text]`` or
                ``{"text": str, "instruction": str | None}``.
            prompt: The bare instruction of all texts.
            **kwargs: As for ``Transformer.preprocess``; ``max_length`` overrides the encoder's own, and of
                ``processing_kwargs`` the length and the truncation of texts are known.

        Returns:
            ``input_ids``, ``attention_mask`` and ``pooling_mask``, each of shape ``(batch, tokens)``.

        Raises:
            ValueError: If an input is not a text, there is a list of instructions, a setting is not known, or the
                formatter refuses an input.
        """
        if self._formatter is None:
            features = super().preprocess(inputs, prompt=prompt, **kwargs)
            return add_position_ids(features, self.model)
        if not inputs:
            return {}
        if not isinstance(prompt, str | None):
            raise ValueError(
                f"prompt={prompt!r} is no single instruction. Sentence Transformers sorts the texts of a call by their "
                "length, and would deal the instructions of a list out to others: give [[instruction, text], ...] as "
                "inputs, or load the encoder with st_llm2vec.load, which takes a list."
            )
        instructions: str | list[str] | None = prompt
        if any(map(carries_instruction, inputs)):
            inputs, instructions = split_instructed(inputs, prompt)
        wrong = next((one for one in inputs if not isinstance(one, str)), None)
        if wrong is not None:
            raise ValueError(f"This encoder reads texts; got {type(wrong).__name__}: {wrong!r}.")
        settings = kwargs.get("processing_kwargs")
        self._require_known(settings)
        tokenizer = cast("PreTrainedTokenizerBase", self.tokenizer)
        max_length = longest_input(self, kwargs.get("max_length"), settings)
        features = self._formatter(inputs, instructions, tokenizer, max_length)
        return add_position_ids({**features, "modality": "text"}, self.model)

    def _require_known(self, processing_kwargs: dict[str, Any] | None) -> None:
        """Refuse settings of the processor that the formatter, which tokenises in its place, would ignore."""
        for kind, honoured in HONOURED.items():
            for name, value in _settings(self, processing_kwargs, kind).items():
                if name == "max_length" and kind == "text":
                    known = value is None or (type(value) is int and value > 0)
                else:
                    known = any(
                        value is one or (isinstance(one, str) and value == one) for one in honoured.get(name, ())
                    )
                if not known:
                    raise ValueError(
                        f"processing_kwargs has {kind}: {name}={value!r}, which this encoder cannot honour: its own "
                        'formatter tokenises the texts. Of "text" it takes max_length (a number of tokens), truncation '
                        "(True or False) and padding (True)."
                    )

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Run the model; ``token_embeddings`` of shape ``(batch, tokens, hidden)`` is added to the features."""
        pooling_mask = features.pop("pooling_mask", None)
        features = super().forward(features, **kwargs)
        if pooling_mask is not None:
            features["pooling_mask"] = pooling_mask
        return features

    def __repr__(self) -> str:
        return super().__repr__().replace("Transformer(", f"{type(self).__name__}(", 1)


SpanPoolingMode = Literal["mean", "weighted_mean", "last_token"]


def span_weights(pooling_mask: torch.Tensor, mode: SpanPoolingMode) -> torch.Tensor:
    """Weights that sum to one over each row's span, and to zero for an empty span.

    Args:
        pooling_mask: 1 for the tokens of the span, ``(batch, tokens)``.
        mode: ``"mean"``; ``"weighted_mean"``, in which the k-th token of the span weighs k (SGPT,
            arXiv 2202.08904, equation 2); or ``"last_token"``.

    Returns:
        Float weights, ``(batch, tokens)``.
    """
    mask = pooling_mask.to(torch.float32)
    order = mask.cumsum(dim=1)
    if mode == "weighted_mean":
        mask = mask * order
    elif mode == "last_token":
        mask = mask * (order == order[:, -1:])
    return mask / mask.sum(dim=1, keepdim=True).clamp(min=1.0)


class SpanPooling(Module):
    """Pools the tokens that ``pooling_mask`` marks, wherever they lie.

    The vector of an empty span is zero.

    Args:
        embedding_dimension: Width of the token embeddings.
        pooling_mode: ``"mean"``, ``"weighted_mean"`` or ``"last_token"``.

    Raises:
        ValueError: If the mode is unknown.

    Example:
        >>> import torch
        >>> pooling = SpanPooling(2, "mean")
        >>> states = torch.tensor([[[9.0, 9.0], [1.0, 2.0], [3.0, 4.0]]])
        >>> pooling({"token_embeddings": states, "pooling_mask": torch.tensor([[0, 1, 1]])})["sentence_embedding"]
        tensor([[2., 3.]])
    """

    MODES = ("mean", "weighted_mean", "last_token")
    config_keys = ["embedding_dimension", "pooling_mode"]

    def __init__(self, embedding_dimension: int, pooling_mode: SpanPoolingMode = "mean") -> None:
        super().__init__()
        if pooling_mode not in self.MODES:
            raise ValueError(f"Unknown pooling mode {pooling_mode!r}; SpanPooling has {', '.join(self.MODES)}.")
        self.embedding_dimension = embedding_dimension
        self.pooling_mode = pooling_mode

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Pool ``token_embeddings`` ``(batch, tokens, hidden)`` to ``sentence_embedding`` ``(batch, hidden)``.

        Raises:
            ValueError: If the features carry no ``pooling_mask``.
        """
        if "pooling_mask" not in features:
            raise ValueError(
                "SpanPooling found no pooling_mask in the features, so it cannot know what to pool; "
                "the first module must be a BidirectionalTransformer with a formatter."
            )
        states = features["token_embeddings"]
        weights = span_weights(features["pooling_mask"], self.pooling_mode)
        pooled = (states.to(torch.promote_types(states.dtype, torch.float32)) * weights.unsqueeze(-1)).sum(dim=1)
        features["sentence_embedding"] = pooled.to(states.dtype)
        return features

    def get_embedding_dimension(self) -> int:
        """Width of the sentence embedding."""
        return self.embedding_dimension

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Save the settings."""
        self.save_config(output_path)


logger = logging.getLogger(__name__)


class GatedFeedForward(nn.Module):
    """``Linear -> GEGLU -> Linear``: half of the first product, gated by GELU of the other half."""

    def __init__(self, width: int, multiple: int) -> None:
        super().__init__()
        self.project_in = nn.Linear(width, 2 * multiple * width)
        self.project_out = nn.Linear(multiple * width, width)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """``(tokens, width)`` to ``(tokens, width)``."""
        values, gate = self.project_in(states).chunk(2, dim=-1)
        return self.project_out(values * nn.functional.gelu(gate))


class LatentAttentionPooling(Module):
    """Latent attention (NV-Embed, arXiv 2405.17428, section 3.2), trainable, of any width.

    ::

        token embeddings (tokens, width)          latents (latents, width)
                 | LayerNorm                               | LayerNorm
                 | query                                   | key, value
                 +------------- cross-attention -----------+
                 + residual
                 | LayerNorm -> feed-forward (GEGLU) + residual
                 v
           mean over the pooled tokens

    Every token looks at the latents alone, so only the tokens that are pooled are computed. At NV-Embed's own
    size (width 4096, 512 latents, 8 heads of 4096) the module has 740 million parameters, 537 million of them
    in the cross-attention. The vector of an empty span is zero.

    Args:
        embedding_dimension: Width of the token embeddings and of the result.
        num_latents: Entries of the dictionary; 512 in NV-Embed.
        num_heads: Attention heads; 8 in NV-Embed.
        head_dimension: Width of one head; NV-Embed uses the full width of the model, which is the default.
        feed_forward_multiple: Inner width of the feed-forward network as a multiple of the width.
    """

    config_keys = ["embedding_dimension", "num_latents", "num_heads", "head_dimension", "feed_forward_multiple"]

    def __init__(
        self,
        embedding_dimension: int,
        num_latents: int = 512,
        num_heads: int = 8,
        head_dimension: int | None = None,
        feed_forward_multiple: int = 4,
    ) -> None:
        super().__init__()
        self.embedding_dimension = embedding_dimension
        self.num_latents = num_latents
        self.num_heads = num_heads
        self.head_dimension = head_dimension or embedding_dimension
        self.feed_forward_multiple = feed_forward_multiple
        inner = self.num_heads * self.head_dimension
        self.latents = nn.Parameter(torch.randn(num_latents, embedding_dimension))
        self.query_norm = nn.LayerNorm(embedding_dimension)
        self.latent_norm = nn.LayerNorm(embedding_dimension)
        self.to_query = nn.Linear(embedding_dimension, inner, bias=False)
        self.to_key_value = nn.Linear(embedding_dimension, 2 * inner, bias=False)
        self.to_output = nn.Linear(inner, embedding_dimension, bias=False)
        self.feed_forward_norm = nn.LayerNorm(embedding_dimension)
        self.feed_forward = GatedFeedForward(embedding_dimension, feed_forward_multiple)
        logger.info("latent attention pooling: %s parameters", f"{self.num_parameters:,}")

    @property
    def num_parameters(self) -> int:
        """How many parameters the module has."""
        return sum(parameter.numel() for parameter in self.parameters())

    def transform(self, states: torch.Tensor) -> torch.Tensor:
        """Look up the latents: ``(tokens, width)`` to ``(tokens, width)``."""
        heads = (self.num_heads, self.head_dimension)
        query = self.to_query(self.query_norm(states)).unflatten(-1, heads).transpose(0, 1)
        key, value = self.to_key_value(self.latent_norm(self.latents)).chunk(2, dim=-1)
        key, value = (part.unflatten(-1, heads).transpose(0, 1) for part in (key, value))
        attended = nn.functional.scaled_dot_product_attention(query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0))
        states = states + self.to_output(attended.squeeze(0).transpose(0, 1).flatten(1))
        return states + self.feed_forward(self.feed_forward_norm(states))

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Pool ``token_embeddings`` ``(batch, tokens, width)`` to ``sentence_embedding`` ``(batch, width)``.

        The tokens are those of ``pooling_mask``, or of ``attention_mask`` where there is none. Weights in float32, as they
        learn, compute in float32 whatever the type of the token embeddings.
        """
        states = features["token_embeddings"]
        mask = features.get("pooling_mask", features["attention_mask"]).bool()
        found = self.transform(states[mask].to(self.latents.dtype))
        transformed = found.new_zeros(states.shape)
        transformed[mask] = found
        weights = span_weights(mask, "mean").to(torch.promote_types(states.dtype, torch.float32))
        features["sentence_embedding"] = (transformed * weights.unsqueeze(-1)).sum(dim=1).to(states.dtype)
        return features

    def get_embedding_dimension(self) -> int:
        """Width of the sentence embedding."""
        return self.embedding_dimension

    def __repr__(self) -> str:
        return (
            f"LatentAttentionPooling(width={self.embedding_dimension}, latents={self.num_latents}, "
            f"heads={self.num_heads}, head_dimension={self.head_dimension}, parameters={self.num_parameters:,})"
        )

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Save settings and weights."""
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    def load(  # type: ignore[override]
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        **kwargs: Any,
    ) -> LatentAttentionPooling:
        """Load settings and weights from a folder or repository."""
        hub: dict[str, Any] = {"token": token, "cache_folder": cache_folder, "revision": revision}
        hub["local_files_only"] = local_files_only
        module = cls(**cls.load_config(model_name_or_path, subfolder=subfolder, **hub))
        return cls.load_torch_weights(model_name_or_path, subfolder=subfolder, model=module, **hub)
