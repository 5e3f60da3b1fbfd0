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

SPELT = (
    "Special tokens that a text spells, such as </s>, are control tokens in {server} and text in this encoder, so such texts "
    "have other vectors there."
)

OTHERS = "it would give other vectors"

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
        reason: Why, in sentences: what the encoder does, what the server does, and what follows. Empty where all is the same.
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
        pooled = "This encoder leaves prompts out of what it pools, and {server} pools them too"
        if any(text for name, text in encoder.prompts.items() if name != "query"):
            outcome, reason = "wrong", f"{pooled}, so {OTHERS}."
        else:
            outcome = "documents only"
            reason = f"{pooled}: serve texts without a prompt there, and encode queries with Sentence Transformers."
    if outcome != "wrong" and server.control_tokens and encoder.tokenizer.split_special_tokens:
        reason = f"{reason} {SPELT}".strip()
    known = outcome in ("exact", "documents only", "needs this command")
    command = f"{_command(server, encoder, folder)} {options}".strip() if known else ""
    told = reason.replace("{server}", server.name)
    return Verdict(server.name, outcome, told, command, server.source, server.run)


def _wrong_everywhere(encoder: TextReader) -> str | None:
    """Why no server that reads the folder gives the encoder's vectors."""
    own = [
        type(module).__name__ for module in encoder if not type(module).__module__.startswith("sentence_transformers.")
    ]
    if own:
        return f"This encoder has modules of its own ({', '.join(own)}), which {{server}} does not have, so {OTHERS}, or none."
    if has_adapter(encoder.transformer.model):
        return f"This folder holds an adapter apart from its decoder, and {{server}} reads whole weights, so {OTHERS}: merge it first."
    if encoder.layout == "message":
        return f"This encoder reads each text inside a chat template, which {{server}} leaves out, so {OTHERS}."
    if encoder.transformer.modality_config["text"]["method_output_name"] != "last_hidden_state":
        return f"This encoder pools the states of an inner layer, and {{server}} takes the last layer's, so {OTHERS}."
    if any(isinstance(module, WordWeights) for module in encoder):
        return f"This encoder leaves the token that its tokenizer puts before every text (BOS) out of its mean, and {{server}} counts it in, so {OTHERS}."
    if not any(isinstance(module, Normalize) for module in encoder):
        return "This encoder keeps the lengths of its vectors, and {server} may make them one, so it may give other vectors."
    return None


def _wrong_pooling(server: Server, encoder: TextReader) -> str | None:
    found = [module.pooling_mode for module in encoder if isinstance(module, Pooling)]
    if len(found) == 1 and found[0] in server.poolings:
        return None
    names = " and ".join(map(str, found))
    return f"This encoder pools by {names}, which {{server}} does not have: it {server.other_pooling}."


def _attention(server: Server, encoder: TextReader) -> tuple[Outcome, str, str]:
    """Outcome, reason, and options beside the command."""
    config: Any = encoder.transformer.model.config
    family = config.model_type
    if configured_attention(encoder.transformer.model) == "causal":
        if family in server.causal:
            return "exact", "", ""
        unsure = server.unsure.get(family) or f"Nobody has compared decoders of the type {family} in {{server}}."
        return "unknown", unsure, ""
    key = server.bidirectional.get(family)
    if key is None:
        causally = (
            f"This encoder attends in both directions, and {{server}} runs decoders of the type {family} causally"
        )
        return "wrong", f"{causally}, so {OTHERS}.", ""
    if family in server.unsure:
        return "unknown", server.unsure[family], ""
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    longest = encoder.max_seq_length
    if window is not None and (longest or window + 1) > window:
        of_longer = f"the vectors of texts longer than {window} tokens may be others there"
        return "unknown", f"This encoder attends within {window} tokens, and {{server}} may not, so {of_longer}.", ""
    if key != "is_causal" and not getattr(config, key, False):
        lacks = (
            f"This encoder attends in both directions, but its config.json lacks {key}, by which {{server}} knows that"
        )
        if key not in server.overrides:
            return "wrong", f"{lacks}, so it would run causally: save it again with this version.", ""
        return (
            "needs this command",
            f"{lacks}; without this option it would run causally.",
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
        return [
            Verdict(
                name,
                "wrong",
                f"{name} reads GGUF files, and none can be written of this encoder: {refusal}.",
                "",
                source,
                run,
            )
            for name in ("llama.cpp", "Ollama")
        ]
    file = f"{Path(folder).name}.gguf"
    export = f"st-llm2vec export {folder} --output {file}"
    size = encoder.max_seq_length
    serve = f"llama-server -m {file} --embeddings -ctk f32 -ctv f32 -fa off -c {size} -b {size} -ub {size}"
    rounded = (
        "llama.cpp keeps keys and values in half precision unless it is told otherwise, which moves some vectors by up to 1e-2; "
        "these options keep them in float32."
    )
    tried = "Nobody has compared its vectors in Ollama; the export writes a Modelfile for it beside the GGUF file."
    return [
        Verdict(
            "llama.cpp",
            "needs this command",
            f"{rounded} {SPELT.format(server='llama.cpp')}",
            f"{export} && {serve}",
            source,
            run,
        ),
        Verdict("Ollama", "unknown", f"{tried} {SPELT.format(server='Ollama')}", export, source, ""),
    ]
