"""What each server makes of an encoder: the same vectors, or why not."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from sentence_transformers.base.modules import Normalize
from sentence_transformers.sentence_transformer.modules import Pooling, WordWeights

from st_llm2vec.encoding.text_reader import TextReader
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.modules.adapter import has_adapter
from st_llm2vec.modules.attention import configured_attention
from st_llm2vec.serving.gguf_export import gguf_refusal

SPELT = "special tokens that a text spells, such as </s>, are control tokens there, and text here"

Outcome = Literal["exact", "documents only", "needs this command", "wrong", "unknown"]


@dataclass(frozen=True)
class Server:
    """What a server reads of a folder, a row of ``servers.yaml``.

    Args:
        name: Its name.
        run: The version that was run for this project; empty where none was.
        source: The files of its source that the rules are taken from.
        bidirectional: Families that it runs in both directions, and the key of ``config.json`` that says so.
        causal: Families that it runs causally.
        poolings: The poolings that it has, by the stock ``Pooling``'s names.
        other_pooling: What it does where it has not.
        command: How it is started.
        overrides: Options in the place of a missing key of ``config.json``.
        unsure: What is not known of a family.
        control_tokens: Whether special tokens that a text spells are control tokens there, whatever the folder says.
    """

    name: str
    run: str
    source: str
    bidirectional: dict[str, str]
    causal: list[str]
    poolings: list[str]
    other_pooling: str
    command: str
    overrides: dict[str, str]
    unsure: dict[str, str] = field(default_factory=dict)
    control_tokens: bool = False


@dataclass(frozen=True)
class Verdict:
    """What a server makes of an encoder.

    Args:
        server: The server.
        outcome: ``"exact"``: the same vectors, a query's too if its prompt is put before it; ``"documents only"``: those of
            texts without a prompt; ``"needs this command"``: the same with these options only; ``"wrong"``: others, or none;
            ``"unknown"``: nobody has compared.
        reason: Why.
        command: How to start it; empty where the vectors are wrong.
        source: Where the rule comes from.
        run: The version that was run for this project; empty where the rule is from the source alone.
    """

    server: str
    outcome: Outcome
    reason: str
    command: str
    source: str
    run: str

    def to_dict(self) -> dict[str, str]:
        """Plain data that JSON can hold."""
        return dict(dataclasses.asdict(self))


SERVERS = tuple(
    Server(**row) for row in yaml.safe_load(Path(__file__).with_name("servers.yaml").read_text(encoding="utf-8"))
)
"""The servers that read Sentence Transformers' folders."""


def verdicts(encoder: TextEncoder, folder: str | Path = "FOLDER") -> list[Verdict]:
    """What vLLM, Text Embeddings Inference, SGLang, llama.cpp and Ollama make of an encoder's folder.

    Args:
        encoder: The encoder.
        folder: Its folder or its name on the Hub, for the commands.

    Returns:
        A verdict for each.

    Example:
        >>> from st_llm2vec import convert, decoder_path
        >>> [one.outcome for one in verdicts(convert(decoder_path(), "mean")) if one.server == "vLLM"]
        ['exact']
    """
    return [_judge(server, encoder, str(folder)) for server in SERVERS] + _gguf_verdicts(encoder, str(folder))


def _judge(server: Server, encoder: TextEncoder, folder: str) -> Verdict:
    wrong = _wrong_everywhere(encoder) or _wrong_pooling(server, encoder)
    outcome: Outcome = "wrong"
    reason, options = wrong or "", ""
    if not wrong:
        outcome, reason, options = _attention(server, encoder)
    if outcome in ("exact", "needs this command") and not _includes_prompt(encoder):
        if any(text for name, text in encoder.prompts.items() if name != "query"):
            outcome, reason = "wrong", "it counts prompts in, which this encoder leaves out of the pooling"
        else:
            outcome = "documents only"
            reason = "it counts the prompt in, which this encoder leaves out of the pooling: encode queries here"
    if outcome != "wrong" and server.control_tokens and encoder.tokenizer.split_special_tokens:
        reason = f"{reason}; {SPELT}" if reason else SPELT
    known = outcome in ("exact", "documents only", "needs this command")
    command = f"{_command(server, encoder, folder)} {options}".strip() if known else ""
    return Verdict(server.name, outcome, reason, command, server.source, server.run)


def _wrong_everywhere(encoder: TextReader) -> str | None:
    """Why no server that reads the folder gives the encoder's vectors."""
    if any(not type(module).__module__.startswith("sentence_transformers.") for module in encoder):
        return "it does not know this encoder's custom modules"
    if has_adapter(encoder.transformer.model):
        return "the folder holds an adapter; merge it first"
    if encoder.layout == "message":
        return "it leaves out the chat template in which this encoder reads texts"
    if encoder.transformer.modality_config["text"]["method_output_name"] != "last_hidden_state":
        return "it takes the last layer's states, and this encoder those of another"
    if any(isinstance(module, WordWeights) for module in encoder):
        return "it counts BOS in, which this encoder leaves out of the mean"
    if not any(isinstance(module, Normalize) for module in encoder):
        return "it may make vectors of length one, which this encoder does not"
    return None


def _wrong_pooling(server: Server, encoder: TextReader) -> str | None:
    found = [module.pooling_mode for module in encoder if isinstance(module, Pooling)]
    if len(found) == 1 and found[0] in server.poolings:
        return None
    return f"it has no pooling {' and '.join(map(str, found))} and {server.other_pooling}"


def _attention(server: Server, encoder: TextReader) -> tuple[Outcome, str, str]:
    """Outcome, reason, and options beside the command."""
    config: Any = encoder.transformer.model.config
    family = config.model_type
    if configured_attention(encoder.transformer.model) == "causal":
        if family not in server.causal:
            return (
                "unknown",
                server.unsure.get(family) or f"nobody has compared decoders of the type {family} there",
                "",
            )
        return "exact", "", ""
    key = server.bidirectional.get(family)
    if key is None:
        return "wrong", f"it runs decoders of the type {family} causally", ""
    if family in server.unsure:
        return "unknown", server.unsure[family], ""
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if window is not None and (encoder.max_seq_length or window + 1) > window:
        return "unknown", f"its window of {window} tokens may be another there for longer texts", ""
    if key != "is_causal" and not getattr(config, key, False):
        if key not in server.overrides:
            return "wrong", f"it is causal there, since config.json lacks {key}: save it again with this version", ""
        return (
            "needs this command",
            f"it is causal without, since config.json lacks {key}",
            server.overrides[key].format(),
        )
    return "exact", "", ""


def _includes_prompt(encoder: TextReader) -> bool:
    return all(module.include_prompt for module in encoder if isinstance(module, Pooling))


def _command(server: Server, encoder: TextReader, folder: str) -> str:
    dtype = str(encoder.transformer.model.dtype).removeprefix("torch.")
    return server.command.format(folder=folder, dtype=dtype, length=encoder.max_seq_length)


def _gguf_verdicts(encoder: TextEncoder, folder: str) -> list[Verdict]:
    """llama.cpp reads a file that is exported, and Ollama runs llama.cpp or an engine of its own."""
    source = "src/llama-vocab.cpp, src/models/ and conversion/ of ggml-org/llama.cpp"
    run = "node-llama-cpp 3.22.1 (llama.cpp of November 2026), on a CPU"
    refusal = gguf_refusal(encoder)
    if refusal:
        return [Verdict(name, "wrong", refusal, "", source, run) for name in ("llama.cpp", "Ollama")]
    file = f"{Path(folder).name}.gguf"
    export = f"st-llm2vec export {folder} --output {file}"
    size = encoder.max_seq_length
    serve = f"llama-server -m {file} --embeddings -ctk f32 -ctv f32 -fa off -c {size} -b {size} -ub {size}"
    return [
        Verdict(
            "llama.cpp",
            "needs this command",
            f"keys and values are kept in half precision without, which moves some vectors by up to 1e-2; {SPELT}",
            f"{export} && {serve}",
            source,
            run,
        ),
        Verdict(
            "Ollama",
            "unknown",
            f"not run; a Modelfile is written beside the exported file; {SPELT}",
            export,
            source,
            "",
        ),
    ]
