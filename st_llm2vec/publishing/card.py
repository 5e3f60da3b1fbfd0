"""The model card: what the encoder is, how it was made, how to use it, and what was checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCardData

from st_llm2vec.checking import Finding
from st_llm2vec.encoding.text_reader import PROMPT_NAMES
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.folder.save import REQUIREMENTS
from st_llm2vec.modules.attention import configured_attention
from st_llm2vec.publishing.check import Check
from st_llm2vec.publishing.limitations import limitations
from st_llm2vec.publishing.names import is_hub_name
from st_llm2vec.publishing.servers import in_servers
from st_llm2vec.publishing.stages import (
    ROLES,
    data_names,
    dev_set,
    on_one_line,
    quoted,
    stage_settings,
    stages_of,
    untold,
)
from st_llm2vec.recipe.manifest import Manifest
from st_llm2vec.serving.verdicts import Verdict

TEMPLATE = Path(__file__).with_name("card.md.jinja")
ARXIV = "arXiv "
QUERY = "How is a violin made?"
DOCUMENTS = ["A violin is carved from spruce and maple.", "The compass needle points to the north."]


def model_card(
    encoder: TextEncoder,
    repo_id: str,
    check: Check,
    servers: Sequence[Verdict],
    *,
    manifest: Manifest | None,
    custom: bool,
    licence: Mapping[str, str],
    licence_given: bool = False,
    findings: Sequence[Finding] = (),
    results: Sequence[EvalResult] = (),
    train_datasets: Sequence[str] = (),
) -> str:
    """Write a model card, metadata included.

    Args:
        encoder: The encoder, as it is published.
        repo_id: Where it is published.
        check: What was checked before.
        servers: What each server makes of it.
        manifest: Its manifest, without local paths.
        custom: Whether it needs its own module file.
        licence: ``license`` and its like.
        licence_given: Whether the publisher gave it; else it is the base model's.
        findings: What the further checks found, if there were any.
        results: Evaluation results.
        train_datasets: Names of data sets on the Hub that it was trained on, beside those of the stages.

    Returns:
        The card, in Markdown.
    """
    config = manifest.config if manifest is not None else None
    base = manifest.base if manifest is not None else {}
    stages = stages_of(manifest)
    dev_sets = [found for stage in stages if (found := dev_set(stage)) is not None]
    attention = config.attention if config is not None else configured_attention(encoder.transformer.model)
    prompts = {name: text for name, text in encoder.prompts.items() if text}
    # The first of the names that are there decides for encode_document, also where its prompt is empty.
    document_prompt = next((name for name in PROMPT_NAMES["document"] if name in encoder.prompts), None)
    blank = " " if encoder.layout in ("prefix", "text") else ""  # in the other layouts the template has it
    trained_with = {
        role: [instruction + blank for instruction in texts]
        for role, texts in untold(stages, encoder.prompts, config.prompts if config is not None else {}).items()
    }
    saved = {"query": prompts.get("query"), "document": prompts.get(document_prompt or "")}

    tags = ["sentence-transformers", "sentence-similarity", "feature-extraction", "text-embeddings", "st-llm2vec"]
    tags.append(attention)
    if config is not None:
        tags.append(config.name)
        if ARXIV in config.paper:
            tags.append("arxiv:" + config.paper.rpartition(ARXIV)[2].split()[0])
    datasets = [*train_datasets, *(name for stage in stages for name in data_names(stage.get("data")))]
    base_name = base.get("name")
    metadata = ModelCardData(
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=tags + ["custom_code"] * custom,
        base_model=base_name if is_hub_name(base_name) and base_name != repo_id else None,
        datasets=sorted({name for name in datasets if is_hub_name(name)}) or None,
        model_name=repo_id.split("/")[-1] if results else None,
        eval_results=list(results) or None,
        license=licence.get("license"),
        license_name=licence.get("license_name"),
        license_link=licence.get("license_link"),
    )
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters |= {"quoted": quoted, "on_one_line": on_one_line}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        metadata=metadata.to_yaml(),
        encoder=encoder,
        repo_id=repo_id,
        check=check,
        findings=findings,
        custom=custom,
        licence=licence,
        licence_given=licence_given,
        results=results,
        config=config,
        base=base,
        stages=stages,
        stage_settings=stage_settings,
        linked=_linked,
        attention=attention,
        prompts=prompts,
        trained_with=trained_with,
        # What the examples tell in every call, since no saved prompt does.
        given={role: next(iter(trained_with[role]), None) if not saved[role] else None for role in ROLES},
        chosen_on={one.name for one in dev_sets if one.chose},
        limitations=limitations(
            encoder,
            check,
            servers,
            recorded=manifest is not None,
            stages=stages,
            dev_sets=dev_sets,
            scored=bool(results),
        ),
        servers=in_servers(servers, repo_id, prompted=bool(prompts), instructed=any(trained_with.values())),
        document_prompt=document_prompt if document_prompt in prompts else None,
        dimension=encoder.get_embedding_dimension(),
        parameters=sum(one.numel() for one in encoder.parameters()),
        modules=" → ".join(type(module).__name__ for module in encoder),
        requirements=" ".join(f"{name}{one['specifier']}".replace(".0", "") for name, one in REQUIREMENTS.items()),
        versions=", ".join(f"{name} {version}" for name, version in check.versions.items()),
        example_query=QUERY,
        example_documents=DOCUMENTS,
    )


def _linked(name: Any) -> str:
    return f"[{name}](https://huggingface.co/{name})" if is_hub_name(str(name)) else f"`{name}`"
