"""What an encoder is, as data: ``EncoderConfig``, and the recipes of ``recipes.yaml`` by their names."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from st_llm2vec.recipe.poolings import POOLINGS
from st_llm2vec.recipe.template import SLOT, as_words, parse_readings, parse_templates

Attention = Literal["bidirectional", "causal"]
LATENT_SETTINGS = ("num_latents", "num_heads", "head_dimension", "feed_forward_multiple")
LATENT_ATTENTION = "latent_attention"
POOLINGS_ELSEWHERE = {
    "eos_token": "llm2vec's eos_token is last_token here, of a recipe whose template ends in {eos}",
    "bos_token": "llm2vec's bos_token is last_token here, of a template that marks {pool}{bos}{/pool}",
    "lasttoken": "Sentence Transformers' lasttoken is last_token here",
    "weightedmean": "Sentence Transformers' weightedmean is weighted_mean here",
    "cls": "the first token of a decoder has seen no other; last_token is its counterpart",
}
"""What poolings of ``llm2vec`` and Sentence Transformers are here."""
FIELDS_ELSEWHERE = {
    "bidirectional": 'here it is attention="bidirectional" or attention="causal"',
    "enable_bidirectional": 'here it is attention="bidirectional" or attention="causal"',
    "pooling_mode": "here it is pooling",
    "skip_instruction": "the recipe says it: llm2vec leaves the instruction out of the mean, and mean counts it in",
}
"""What settings of ``llm2vec`` are here."""


@dataclass(frozen=True)
class Demonstration:
    """One in-context example that stands before the text.

    Args:
        text: The example's text.
        response: What the example answers: a word (PromptEOL) or a passage (bge-en-icl).
        instruction: The example's own instruction, where the method has one.
    """

    text: str
    response: str
    instruction: str = ""


@dataclass(frozen=True)
class EncoderConfig:
    """An encoder as data. Conversion compiles it to Sentence Transformers modules.

    A template is literal text with slots: ``{text}`` (the input; twice for Echo), ``{instruction}``,
    ``{bos}`` (the tokens that the tokenizer itself puts before a text), ``{eos}`` (the end-of-text token),
    ``{demonstrations}``, and ``{pool}`` ... ``{/pool}`` around what is pooled. Without ``{pool}`` every token
    is pooled, BOS and EOS included.

    Args:
        name: Name of the recipe.
        paper: Where the method comes from.
        attention: ``"bidirectional"`` or ``"causal"``.
        template: Template of a text without an instruction.
        instruction_template: Template of a text with one; ``None`` if the method takes none.
        pooling: ``"mean"``, ``"weighted_mean"`` (the k-th pooled token weighs k), ``"last_token"``, another key of
            :data:`st_llm2vec.recipe.poolings.POOLINGS`, or ``"latent_attention"``, over what the template marks.
        normalize: Whether vectors have length one.
        prompts: Name to bare instruction; ``encode_query`` and ``encode_document`` use ``"query"`` and ``"document"``.
        default_prompt_name: The prompt of a plain ``encode``; none by default.
        padding_side: ``"left"`` or ``"right"``. Vectors do not depend on it; ``output_value="token_embeddings"`` of plain
            Sentence Transformers does, which leaves padding out at the right only.
        max_length: Longest input in tokens, template included; ``None`` takes the model's context.
        demonstrations: In-context examples.
        demonstration_template: How one of them is written, with the slots ``{text}``, ``{response}`` and
            ``{instruction}``.
        layer: Hidden states to pool: ``-1`` is the model's output, ``-2`` the states before the last layer, and so on.
        latent_attention: Settings of ``LatentAttentionPooling`` other than its width.
        split_special_tokens: Whether the tokenizer's special tokens, such as ``</s>``, are text in a text or an instruction,
            and not control tokens. The template's own, and those of demonstrations, always are control tokens.
        readings: How each text is read, in passes of their own whose vectors are averaged: ``"forward"``, ``"backward"``
            (its words in reverse order), or both (ReverseEOL, arXiv 2606.05858).

    Raises:
        ValueError: If a field cannot be what it is; the message says which and what to do.

    Example:
        >>> config = get_recipe("prompteol").replace(max_length=64)
        >>> config.template
        '{bos}{demonstrations}This sentence : "{text}" means in one word:"'
    """

    name: str = "custom"
    paper: str = ""
    attention: Attention = "bidirectional"
    template: str = "{bos}{text}"
    instruction_template: str | None = None
    pooling: str = "mean"
    normalize: bool = True
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    padding_side: Literal["left", "right"] = "right"
    max_length: int | None = None
    demonstrations: tuple[Demonstration, ...] = ()
    demonstration_template: str | None = None
    layer: int = -1
    latent_attention: Mapping[str, int] = field(default_factory=dict)
    split_special_tokens: bool = True
    readings: tuple[str, ...] = ("forward",)

    def __post_init__(self) -> None:
        self._check_types()
        demonstrations = tuple(d if isinstance(d, Demonstration) else Demonstration(**d) for d in self.demonstrations)
        object.__setattr__(self, "demonstrations", demonstrations)
        object.__setattr__(self, "prompts", dict(self.prompts))
        object.__setattr__(self, "readings", parse_readings(self.readings))
        object.__setattr__(self, "latent_attention", dict(self.latent_attention))
        self._check_choices()
        written = self.formatter_config()
        parse_templates(written["template"], written["instruction_template"])
        if self.default_prompt_name is not None and self.default_prompt_name not in self.prompts:
            raise ValueError(
                f"default_prompt_name={self.default_prompt_name!r} is not among the prompts {sorted(self.prompts)}."
            )
        if any(self.prompts.values()) and self.instruction_template is None:
            raise ValueError(
                f"The recipe {self.name!r} takes no instruction (instruction_template is None), "
                f"but prompts were given: {dict(self.prompts)!r}. Leave them out, or set instruction_template."
            )

    def _check_types(self) -> None:
        types: dict[str, Any] = {
            "template": str,
            "instruction_template": str | None,
            "normalize": bool,
            "prompts": Mapping,
            "default_prompt_name": str | None,
            "max_length": int | None,
            "demonstrations": list | tuple,
            "demonstration_template": str | None,
            "layer": int,
            "latent_attention": Mapping,
            "split_special_tokens": bool,
            "readings": list | tuple,
        }
        for name, expected in types.items():
            value = getattr(self, name)
            if not isinstance(value, expected):
                wanted = getattr(expected, "__name__", str(expected))
                raise ValueError(f"{name}={value!r} must be of type {wanted}, not {type(value).__name__}.")
        if not all(isinstance(text, str) for text in self.prompts.values()):
            raise ValueError(f"prompts={dict(self.prompts)!r} must map names to instructions, as strings.")
        for one in self.demonstrations:
            if not isinstance(one, Demonstration) and not (
                isinstance(one, Mapping) and {"text", "response"} <= set(one) <= {"text", "response", "instruction"}
            ):
                raise ValueError(f"A demonstration needs text and response, and may have an instruction; got {one!r}.")

    def _check_choices(self) -> None:
        choices = {
            "attention": ("bidirectional", "causal"),
            "pooling": (*POOLINGS, LATENT_ATTENTION),
            "padding_side": ("left", "right"),
        }
        for name, allowed in choices.items():
            value = getattr(self, name)
            if value not in allowed:
                meant = POOLINGS_ELSEWHERE.get(str(value)) if name == "pooling" else None
                told = f": {meant}." if meant else "."
                raise ValueError(f"{name}={value!r} is not one of {', '.join(allowed)}{told}")
        if self.max_length is not None and self.max_length < 1:
            raise ValueError(f"max_length={self.max_length} must be a positive number of tokens, or None.")
        if self.layer >= 0:
            raise ValueError(f"layer={self.layer} must be negative: -1 is the model's output, -2 the states before it.")
        for name, value in self.latent_attention.items():
            if name not in LATENT_SETTINGS or type(value) is not int or value < 1:
                raise ValueError(
                    f"latent_attention has {name}={value!r}; it may hold {', '.join(LATENT_SETTINGS)}, each a positive number."
                )
        if self.demonstrations and self.demonstration_template is None:
            raise ValueError(
                f"The recipe {self.name!r} has demonstrations but no demonstration_template to write them with."
            )
        if self.demonstrations and "{demonstrations}" not in self.template + (self.instruction_template or ""):
            raise ValueError(
                f"The recipe {self.name!r} has demonstrations but no template with a {{demonstrations}} slot."
            )

    def formatter_config(self) -> dict[str, Any]:
        """The templates with the demonstrations written out, as ``InstructionFormatter`` takes them."""
        written = ""
        for demonstration in self.demonstrations:
            parts = {f"{{{slot}}}": as_words(value) for slot, value in dataclasses.asdict(demonstration).items()}
            written += "".join(parts.get(piece, piece) for piece in SLOT.split(self.demonstration_template or ""))
        template = self.template.replace("{demonstrations}", written)
        instructed = self.instruction_template
        if instructed is not None:
            instructed = instructed.replace("{demonstrations}", written)
        later: dict[str, Any] = {}  # folders of earlier versions do not name what they could not be otherwise
        if not self.split_special_tokens:
            later["split_special_tokens"] = False
        if self.readings != ("forward",):
            later["readings"] = list(self.readings)
        return {"template": template, "instruction_template": instructed, **later}

    def replace(self, **changes: Any) -> EncoderConfig:
        """A copy with some fields changed.

        Raises:
            ValueError: If a field does not exist or its value cannot be.
        """
        names = [f.name for f in dataclasses.fields(self)]
        for name in changes:
            if name not in names:
                meant = FIELDS_ELSEWHERE.get(name)
                told = f": {meant}." if meant else closest(name, names)
                raise ValueError(f"EncoderConfig has no field {name!r}{told} Fields: {', '.join(names)}.")
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that YAML and JSON can hold; :meth:`from_dict` reads it back."""
        data = dataclasses.asdict(self)
        data["demonstrations"] = [dict(one) for one in data["demonstrations"]]
        data["readings"] = list(data["readings"])
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EncoderConfig:
        """Build a config from plain data; a ``base`` key names a recipe that the other fields change.

        Raises:
            ValueError: If a field does not exist or its value cannot be.
        """
        changes = dict(data)
        base = get_recipe(changes.pop("base")) if "base" in changes else cls()
        try:
            return base.replace(**changes)
        except TypeError as error:
            raise ValueError(f"A field of the recipe has a value of the wrong type: {error}.") from error

    @classmethod
    def from_yaml(cls, path: str | Path) -> EncoderConfig:
        """Read a recipe from a YAML file.

        Raises:
            ValueError: If the file is not a mapping of EncoderConfig's fields.
        """
        try:
            data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is not valid YAML: {error}") from error
        if not isinstance(data, dict):
            raise ValueError(f"{path} must hold a mapping of EncoderConfig's fields, not {type(data).__name__}.")
        return cls.from_dict({"name": Path(path).stem, **data})

    def to_yaml(self, path: str | Path) -> None:
        """Write the recipe to a YAML file."""
        Path(path).write_text(yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True), encoding="utf-8")


def _named_recipes() -> dict[str, EncoderConfig]:
    """Read ``recipes.yaml``, in its order."""
    recipes: dict[str, EncoderConfig] = {}
    for fields in yaml.safe_load(Path(__file__).with_name("recipes.yaml").read_text(encoding="utf-8")):
        base = recipes[fields.pop("base")] if "base" in fields else EncoderConfig()
        recipes[fields["name"]] = base.replace(**fields)
    return recipes


RECIPES = _named_recipes()
"""The named recipes, by name."""


def get_recipe(recipe: str | Path | Mapping[str, Any] | EncoderConfig) -> EncoderConfig:
    """Resolve a recipe: its name, a YAML file, a mapping of fields, or an ``EncoderConfig``.

    Raises:
        ValueError: If there is no such recipe.
    """
    if isinstance(recipe, EncoderConfig):
        return recipe
    if not isinstance(recipe, str | Path | Mapping):
        raise ValueError(
            f"A recipe is a name, a YAML file, a mapping or an EncoderConfig, not {type(recipe).__name__}."
        )
    if isinstance(recipe, Mapping):
        return EncoderConfig.from_dict(recipe)
    if str(recipe) in RECIPES:
        return RECIPES[str(recipe)]
    if Path(recipe).suffix in (".yaml", ".yml"):
        if not Path(recipe).is_file():
            raise ValueError(f"There is no recipe file {recipe}.")
        return EncoderConfig.from_yaml(recipe)
    raise ValueError(
        f"There is no recipe {str(recipe)!r}{closest(str(recipe), list(RECIPES))} Known: {', '.join(RECIPES)}; "
        "or give a YAML file or an EncoderConfig."
    )


def closest(word: str, words: list[str]) -> str:
    """The end of a sentence about an unknown word: the known one that was probably meant, if there is any."""
    matches = difflib.get_close_matches(word, words, n=1)
    return f"; did you mean {matches[0]!r}?" if matches else "."
