"""The model card: what the encoder is, how it was made, how to use it, and what was checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.folder.save import REQUIREMENTS
from st_llm2vec.modules.attention import configured_attention
from st_llm2vec.publishing.check import Check
from st_llm2vec.publishing.names import is_hub_name
from st_llm2vec.publishing.servers import in_servers
from st_llm2vec.publishing.snippets import (
    OWN_INSTRUCTION,
    document_prompt_name,
    langchain_adapter_snippet,
    langchain_snippet,
    llama_index_snippet,
    own_snippet,
    sentence_transformers_snippet,
)
from st_llm2vec.recipe.manifest import Manifest

ARXIV = "arXiv "


def model_card(
    encoder: TextEncoder,
    repo_id: str,
    check: Check,
    *,
    manifest: Manifest | None,
    custom: bool,
    licence: Mapping[str, str],
    results: Sequence[EvalResult] = (),
    train_datasets: Sequence[str] = (),
) -> str:
    """Write a model card, metadata included.

    Args:
        encoder: The encoder, as it is published.
        repo_id: Where it is published.
        check: What was checked before.
        manifest: Its manifest, without local paths.
        custom: Whether it needs its own module file.
        licence: ``license`` and its like.
        results: Evaluation results.
        train_datasets: Names of data sets on the Hub that it was trained on, beside those of the stages.

    Returns:
        The card, in Markdown.
    """
    sections = [
        f"# {repo_id.split('/')[-1]}",
        _introduction(encoder, manifest, custom),
        "## Use",
        _usage(encoder, repo_id, custom),
        "## What it is",
        _table(("property", "value"), _facts(encoder, manifest, custom)),
        "## In servers",
        in_servers(encoder, repo_id),
        *_making(manifest),
        *_evaluation(results),
        "## What was checked before publishing",
        _checks(check, custom),
        *_licence(licence, manifest),
    ]
    data = _metadata(repo_id, manifest, custom, licence, results, train_datasets, _attention(encoder, manifest))
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"


def _metadata(
    repo_id: str,
    manifest: Manifest | None,
    custom: bool,
    licence: Mapping[str, str],
    results: Sequence[EvalResult],
    train_datasets: Sequence[str],
    attention: str,
) -> ModelCardData:
    tags = ["sentence-transformers", "sentence-similarity", "feature-extraction", "text-embeddings", "st-llm2vec"]
    tags += [attention, *([manifest.config.name] if manifest is not None else [])]
    if manifest is not None and ARXIV in manifest.config.paper:
        tags.append("arxiv:" + manifest.config.paper.rpartition(ARXIV)[2].split()[0])
    base = manifest.base.get("name") if manifest is not None else None
    datasets = [*train_datasets, *(name for stage in _stages(manifest) for name in _data_names(stage))]
    datasets = sorted({name for name in datasets if is_hub_name(name)})
    return ModelCardData(
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=tags + ["custom_code"] * custom,
        base_model=base if is_hub_name(base) and base != repo_id else None,
        datasets=datasets or None,
        model_name=repo_id.split("/")[-1] if results else None,
        eval_results=list(results) or None,
        license=licence.get("license"),
        license_name=licence.get("license_name"),
        license_link=licence.get("license_link"),
    )


def _introduction(encoder: TextEncoder, manifest: Manifest | None, custom: bool) -> str:
    dimension, limit = encoder.get_embedding_dimension(), encoder.max_seq_length
    base = f" made of the decoder {_linked(str(manifest.base.get('name')))}" if manifest and manifest.base else ""
    recipe = f" with the recipe `{manifest.config.name}` ({manifest.config.paper})" if manifest else ""
    code = (
        "It needs custom code: the module file that it carries runs only with `trust_remote_code=True`, and is not needed "
        "with `st_llm2vec.load`, which never runs code from a repository."
        if custom
        else "It needs no custom code: Sentence Transformers' own modules say everything."
    )
    return (
        f"A text encoder{base}{recipe}. It maps texts of up to {limit} tokens to {dimension} dimensions and attends "
        f"{'in both directions' if _attention(encoder, manifest) == 'bidirectional' else 'causally'}. {code}"
    )


def _usage(encoder: TextEncoder, repo_id: str, custom: bool) -> str:
    needs = " ".join(f"{name}{one['specifier']}".replace(".0", "") for name, one in REQUIREMENTS.items())
    parts = [
        f'```bash\npip install "sentence-transformers>=6" "{needs}"\n```',
        f"```python\n{sentence_transformers_snippet(encoder, repo_id, custom)}```",
    ]
    if custom:
        parts.append("Or, without running code from this repository, with st-llm2vec (`pip install st-llm2vec`):")
        parts.append(f"```python\n{own_snippet(encoder, repo_id)}```")
    parts.append(_prompts(encoder))
    prompted = bool(encoder.prompts.get("query") or document_prompt_name(encoder))
    parts.append(
        f"LangChain (`langchain-huggingface`){_langchain_loses(prompted)}:\n\n"
        f"```python\n{langchain_snippet(encoder, repo_id, custom)}```"
    )
    parts.append(
        "`HuggingFaceEmbeddings` also replaces line breaks by blanks, so that a text with line breaks has another vector "
        "than with Sentence Transformers. `langchain-st-llm2vec` leaves texts as they are and takes the saved prompts by "
        f"itself:\n\n```python\n{langchain_adapter_snippet(repo_id)}```"
    )
    parts.append(
        f"LlamaIndex (`llama-index-embeddings-huggingface`){_llama_index_loses(prompted)}:\n\n"
        f"```python\n{llama_index_snippet(encoder, repo_id, custom)}```"
    )
    parts.append(
        'The vectors are those of PyTorch. `backend="onnx"` and `backend="openvino"` are not supported: their exports do '
        "not keep the attention and the vectors."
    )
    return "\n\n".join(part for part in parts if part)


def _langchain_loses(prompted: bool) -> str:
    if not prompted:
        return ""
    return (
        ". Its class calls `encode` for queries and documents alike, and without the lines that name the prompts, texts "
        "lose them and have other vectors; with `multi_process=True` they lose them all the same"
    )


def _llama_index_loses(prompted: bool) -> str:
    if not prompted:
        return ""
    return ". Its class puts empty prompts in the place of the saved ones, unless they are given again"


def _prompts(encoder: TextEncoder) -> str:
    quoted = {name: json.dumps(text, ensure_ascii=False) for name, text in encoder.prompts.items() if text}
    rows = {f"`{name}`": f"`{_one_line(text)}`" for name, text in quoted.items()}
    if not rows:
        return ""
    own = OWN_INSTRUCTION if encoder.layout in ("prefix", "text") else ""
    return f"Its prompts, by name (`prompt_name=`); `encode_query` takes `query`.{own}\n\n" + _table(
        ("name", "prompt"), rows
    )


def _facts(encoder: TextEncoder, manifest: Manifest | None, custom: bool) -> dict[str, str]:
    facts = {
        "attention": _attention(encoder, manifest),
        "vectors": f"{encoder.get_embedding_dimension()} dimensions",
        "longest text": f"{encoder.max_seq_length} tokens, template included",
        "similarity": str(encoder.similarity_fn_name),
        "parameters": f"{sum(one.numel() for one in encoder.parameters()):,}",
        "modules": " → ".join(type(module).__name__ for module in encoder),
        "custom code": "yes" if custom else "no",
    }
    if manifest is not None:
        config = manifest.config
        facts["vectors"] += ", of length one" if config.normalize else ""
        facts["pooling"] = config.pooling.replace("_", " ")
        facts["template"] = f"`{_one_line(config.template)}`"
        if config.instruction_template is not None:
            facts["template with an instruction"] = f"`{_one_line(config.instruction_template)}`"
    return facts


def _making(manifest: Manifest | None) -> list[str]:
    if manifest is None:
        return []
    base = manifest.base
    text = f"Base: {_linked(str(base.get('name')))} (`{base.get('architecture')}`"
    text += f", revision `{base['revision']}`)." if base.get("revision") else ")."
    if base.get("source") and base["source"] != base.get("name"):
        text += f" Imported from {_linked(str(base['source']))}."
    stages = _stages(manifest)
    if not stages:
        return ["## How it was made", text + " No training beyond the base's own is recorded."]
    return ["## How it was made", text, *(_stage(number, stage) for number, stage in enumerate(stages, 1))]


def _stage(number: int, stage: Mapping[str, Any]) -> str:
    rows = {}
    for name in ("method", "source", "steps", "merged"):
        if stage.get(name) is not None:
            value = stage[name]
            rows[name] = {True: "yes", False: "no"}[value] if isinstance(value, bool) else _cell(value)
    if stage.get("data"):
        rows["data"] = _cell(stage["data"])
    settings = stage.get("settings")
    for name, value in settings.items() if isinstance(settings, Mapping) else ():
        if value is not None:
            rows[str(name)] = _cell(value)
    return f"### Stage {number}: {stage.get('name', 'unnamed')}\n\n" + _table(("setting", "value"), rows)


def _evaluation(results: Sequence[EvalResult]) -> list[str]:
    if not results:
        return []
    lines = ["| dataset | metric | value |", "|---|---|---|"]
    for one in results:
        split = f" ({one.dataset_split})" if one.dataset_split else ""
        lines.append(f"| {one.dataset_name}{split} | {one.metric_type} | {one.metric_value:.4f} |")
    return ["## Evaluation", "\n".join(lines)]


def _checks(check: Check, custom: bool) -> str:
    way = "`trust_remote_code=True`" if custom else "no custom code"
    versions = ", ".join(f"{name} {version}" for name, version in check.versions.items())
    rows = {
        f"vectors read by Sentence Transformers alone ({way}) against those of the encoder": _distance(check.distance),
        "each text alone against the same text in a batch": _distance(check.invariance),
        "attention, by its behaviour": check.probe.describe(),
    }
    if check.merged is not None:
        rows["adapters attached against merged"] = _distance(check.merged)
    return (
        f"Read in a fresh process without st-llm2vec ({versions}), {check.texts} texts with {check.prompts} "
        f"prompt{'s' if check.prompts > 1 else ''} (none included), {check.dtype}:\n\n"
        + _table(("check", "found"), rows)
    )


def _licence(licence: Mapping[str, str], manifest: Manifest | None) -> list[str]:
    if licence.get("license"):
        name = licence.get("license_name") or licence["license"]
        link = f"[{name}]({licence['license_link']})" if licence.get("license_link") else f"`{name}`"
        return ["## Licence", f"{link}, that of the base model unless its owner says otherwise."]
    base = _linked(str(manifest.base.get("name"))) if manifest is not None and manifest.base else "the base model"
    return ["## Licence", f"Not stated here; the licence of {base} applies."]


def _attention(encoder: TextEncoder, manifest: Manifest | None) -> str:
    return manifest.config.attention if manifest is not None else configured_attention(encoder.transformer.model)


def _stages(manifest: Manifest | None) -> list[dict[str, Any]]:
    return [stage for stage in manifest.stages if isinstance(stage, Mapping)] if manifest is not None else []


def _data_names(stage: Mapping[str, Any]) -> list[str]:
    """What a stage's data call themselves, in whichever form they were recorded."""
    data = stage.get("data")
    entries = data if isinstance(data, list) else [data]
    names = [one.get("name") or one.get("path") if isinstance(one, Mapping) else one for one in entries]
    return [name for name in names if isinstance(name, str)]


def _table(header: tuple[str, str], rows: Mapping[str, str]) -> str:
    lines = [f"| {header[0]} | {header[1]} |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in rows.items())])


def _distance(value: float) -> str:
    return f"cosine distance at most {value:.1e}"


def _linked(name: str) -> str:
    return f"[{name}](https://huggingface.co/{name})" if is_hub_name(name) else f"`{name}`"


def _cell(value: Any) -> str:
    """A value on one line of a table."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return _one_line(text)


def _one_line(text: str) -> str:
    return text.replace("\n", "\\n").replace("|", "\\|")
