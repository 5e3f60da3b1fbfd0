"""Stock preprocessing without its repetition: what stands around the texts is made once, and only texts are read.

For each text, stock preprocessing infers its modality twice, makes messages of it, renders a chat template in a sandbox,
and turns nested lists into tensors. For the two stock layouts of this package the result is that of tokenising
``before + text + after``, so that is done instead. Where it is not provably the same, the stock way is taken: inputs
other than texts, texts that are cut inside a template, settings or a template that are not this package's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from jinja2 import Environment, TemplateSyntaxError, nodes
from sentence_transformers.base.modules import Transformer
from transformers import BatchEncoding, PreTrainedTokenizerBase

from st_llm2vec.layouts.message import READS_MESSAGES
from st_llm2vec.layouts.special_tokens import UNBROKEN, Breaks
from st_llm2vec.modules.padding import pad_ids

PLACE = "\ufdd0 the text \ufdd1"  # noncharacters, which no text should hold
FEATURES = {"input_ids", "attention_mask"}
OPTIONS = {"task", "max_length"}
KEPT_FRAMES = 1024
FILTERS = {"trim", "length"}
HARMLESS = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.If,
    nodes.Assign,
    nodes.NSRef,
    nodes.Name,
    nodes.Getattr,
    nodes.Getitem,
    nodes.Slice,
    nodes.Const,
    nodes.Neg,
    nodes.Call,
    nodes.Filter,
    nodes.And,
    nodes.Compare,
    nodes.Operand,
)


@dataclass(frozen=True)
class Frame:
    """What stands around every text of a batch.

    Args:
        before: The string before the text.
        after: The string after it.
        features: The features that are no tensors.
        breaks: Where special tokens in the texts are broken.
    """

    before: str
    after: str
    features: dict[str, Any]
    breaks: Breaks = UNBROKEN


class Rendering:
    """Preprocesses batches of texts as a stock ``Transformer`` does, faster, or says that it cannot."""

    def __init__(self) -> None:
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._frames: dict[Any, Frame | None] = {}

    def __call__(
        self, transformer: Transformer, texts: Sequence[Any], prompt: Any, options: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Tokenise a batch.

        Args:
            transformer: A module that reads texts, or messages through a chat template.
            texts: The inputs.
            prompt: As for ``Transformer.preprocess``.
            options: The other arguments for ``Transformer.preprocess``.

        Returns:
            What ``transformer.preprocess(texts, prompt=prompt, **options)`` returns, or ``None`` where only that knows.
        """
        if not texts or not _is_plain(transformer, prompt, options) or not all(type(text) is str for text in texts):
            return None
        tokenizer = cast("PreTrainedTokenizerBase", transformer.tokenizer)
        max_length = options.get("max_length")
        frame = self._frame(transformer, tokenizer, prompt or None, max_length)
        if frame is None:
            return None
        filled = [f"{frame.before}{frame.breaks(text)}{frame.after}" for text in texts]
        if frame.features["modality"] == "text":
            rows = _tokenize(tokenizer, filled, truncation="longest_first", max_length=max_length)
        else:
            limit = max_length or transformer.max_seq_length
            rows = _tokenize(tokenizer, filled, add_special_tokens=False)
            if limit is None or max(map(len, rows)) >= limit:
                return None
        if not any(rows):
            return None
        input_ids, attention_mask = pad_ids(rows, tokenizer)
        features = {"input_ids": input_ids, "attention_mask": attention_mask, **frame.features}
        return cast("dict[str, Any]", BatchEncoding(features))

    def _frame(
        self, transformer: Transformer, tokenizer: PreTrainedTokenizerBase, prompt: str | None, max_length: int | None
    ) -> Frame | None:
        """What stands around the texts, as long as nothing that it is made of has changed."""
        if tokenizer is not self._tokenizer:
            self._tokenizer, self._frames = tokenizer, {}
        if len(self._frames) >= KEPT_FRAMES:
            self._frames.clear()
        message = "message" in transformer.modality_config
        made_of = (tokenizer.chat_template, tokenizer.eos_token) if message else (max_length,)
        key = (prompt, message, *made_of)
        if key not in self._frames:
            if message:
                self._frames[key] = _template_frame(transformer, tokenizer, prompt)
            else:
                self._frames[key] = _prompt_frame(transformer, prompt, max_length)
        return self._frames[key]


def _is_plain(transformer: Transformer, prompt: Any, options: dict[str, Any]) -> bool:
    """Whether nothing is asked for that this module does not know, by the call or by the module's settings."""
    tokenizer = transformer.processor
    return (
        type(transformer).preprocess is Transformer.preprocess
        and (prompt is None or type(prompt) is str)
        and options.keys() <= OPTIONS
        and type(options.get("max_length") or 1) is int
        and isinstance(tokenizer, PreTrainedTokenizerBase)
        and tokenizer.is_fast
        and set(tokenizer.model_input_names) == FEATURES
        and transformer.transformer_task == "feature-extraction"
        and {"text"} <= transformer.modality_config.keys() <= {"text", "message"}
        and not transformer.processing_kwargs
        and not transformer.can_flatten_inputs
        and transformer.query_expansion is transformer.query_length is transformer.document_length is None
    )


def _tokenize(tokenizer: PreTrainedTokenizerBase, texts: list[str], **options: Any) -> list[list[int]]:
    return tokenizer(texts, return_attention_mask=False, verbose=False, **options)["input_ids"]


def _prompt_frame(transformer: Transformer, prompt: str | None, max_length: int | None) -> Frame:
    """The prompt as a prefix; how many tokens it has, the stock way is asked."""
    if prompt is None:
        return Frame("", "", {"modality": "text"})
    found = transformer.preprocess([""], prompt=prompt, max_length=max_length)
    return Frame(prompt, "", {"modality": "text", "prompt_length": found["prompt_length"]})


def _template_frame(transformer: Transformer, tokenizer: PreTrainedTokenizerBase, prompt: str | None) -> Frame | None:
    """The chat template rendered once, and cut where the text stands."""
    template = tokenizer.chat_template
    flat = transformer.input_formatter.message_format == "flat"
    if not flat or not isinstance(template, str) or not puts_text_verbatim(template):
        return None
    system = [{"role": "system", "content": prompt}] if prompt else []
    rendered = tokenizer.apply_chat_template([*system, {"role": "user", "content": PLACE}], tokenize=False)
    before, *after = str(rendered).split(PLACE)
    breaks = Breaks.in_template(template)
    return Frame(before, after[0], {"modality": "message"}, breaks) if len(after) == 1 else None


def puts_text_verbatim(template: str) -> bool:
    """Whether a chat template is one of this package's, whose text is output as it is and decides nothing else.

    Args:
        template: The chat template.

    Example:
        >>> puts_text_verbatim(READS_MESSAGES + "{{- 'Query: ' -}}{{- turn.text -}}")
        True
        >>> puts_text_verbatim(READS_MESSAGES + "{{- turn.text | trim -}}")
        False
    """
    if not template.startswith(READS_MESSAGES):
        return False
    try:
        tree = Environment().parse(Breaks.left_out(template.removeprefix(READS_MESSAGES)))
    except TemplateSyntaxError:
        return False
    if not all(isinstance(node, HARMLESS) for node in tree.find_all(nodes.Node)):
        return False
    if not {node.name for node in tree.find_all(nodes.Filter)} <= FILTERS:
        return False
    used = {id(node.node): node for node in tree.find_all(nodes.Getattr) if isinstance(node.node, nodes.Name)}
    names = [node for node in tree.find_all(nodes.Name) if node.name not in ("eos_token", "raise_exception")]
    if not all(name.name == "turn" and id(name) in used for name in names):
        return False
    output = {id(node) for found in tree.find_all(nodes.Output) for node in found.nodes}
    written = any(node.attr == "text" for node in tree.find_all(nodes.NSRef))
    texts = [used[id(name)] for name in names if used[id(name)].attr == "text"]
    return not written and all(id(text) in output for text in texts)
