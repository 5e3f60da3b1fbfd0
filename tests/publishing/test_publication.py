"""What is published is whole, says what the encoder says, and is never silently causal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from st_llm2vec import CausalAttentionError, TextEncoder, convert, load, publish
from st_llm2vec.checking import Finding
from st_llm2vec.modules import set_attention
from st_llm2vec.publishing import Publication

from ..conftest import INSTRUCTION, TEXTS, but_first, cosine_distance
from ..hub_server import Hub
from .conftest import STRANGER


def make(decoder: str, recipe: str = "llm2vec") -> TextEncoder:
    return convert(decoder, recipe, max_length=128, prompts={"query": INSTRUCTION})


def dry(encoder: TextEncoder | str | Path, output: Path, **options: object) -> Publication:
    return publish(encoder, "org/encoder", dry_run=True, output=output, **options)


def plain(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize("attach", but_first(["add_adapter", "get_peft_model"]))
def test_adapters_are_published_merged_and_the_encoder_stays(
    decoder: str, tmp_path: Path, attach: str, request: pytest.FixtureRequest
) -> None:
    if attach == "get_peft_model":  # One of both in a fresh process is enough.
        request.getfixturevalue("same_process")
    encoder = make(decoder)
    before = encoder.encode(TEXTS)
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    if attach == "add_adapter":
        encoder.add_adapter(lora)
    else:
        encoder[0].model = get_peft_model(encoder[0].model, lora)
    expected = encoder.encode(TEXTS)
    assert cosine_distance(before, expected) > 1e-4
    published = dry(encoder, tmp_path / "out")
    assert published.check.merged is not None and published.check.merged < 1e-6
    assert "adapter_config.json" not in published.files and "st_llm2vec_modules.py" not in published.files
    assert cosine_distance(plain(tmp_path / "out").encode(TEXTS), expected) < 1e-6
    assert encoder[0].model.peft_config
    assert cosine_distance(encoder.encode(TEXTS), expected) < 1e-9


@pytest.mark.usefixtures("same_process")
def test_an_adapter_only_folder_is_published_merged(decoder: str, tmp_path: Path) -> None:
    encoder = make(decoder)
    encoder.add_adapter(LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    encoder.save_pretrained(str(tmp_path / "adapter"))
    assert not (tmp_path / "adapter/model.safetensors").exists()
    published = dry(tmp_path / "adapter", tmp_path / "out")
    assert "model.safetensors" in published.files and "st_llm2vec_modules.py" not in published.files
    assert cosine_distance(plain(tmp_path / "out").encode(TEXTS), encoder.encode(TEXTS)) < 1e-6
    modules = json.loads((tmp_path / "out/modules.json").read_text())
    assert all(module["type"].startswith("sentence_transformers.") for module in modules)


def test_an_adapter_alone_is_not_published(decoder: str, tmp_path: Path) -> None:
    encoder = make(decoder)
    lora = LoraConfig(r=4, target_modules=["q_proj"])
    get_peft_model(encoder[0].model, lora).save_pretrained(tmp_path / "bare")
    with pytest.raises(ValueError, match="holds an adapter alone.*st-llm2vec import"):
        dry(tmp_path / "bare", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_causal_model_cannot_be_published_as_bidirectional(decoder: str, tmp_path: Path, hub: Hub) -> None:
    flagless, unknown = tmp_path / "flagless", tmp_path / "unknown"
    for folder in (flagless, unknown):
        make(decoder).save_pretrained(str(folder))
        config = json.loads((folder / "config.json").read_text())
        del config["is_causal"]
        (folder / "config.json").write_text(json.dumps(config))
    manifest = json.loads((flagless / "st_llm2vec.json").read_text())
    del manifest["checksums"]  # as an earlier version saved it, or the change would be told first
    (flagless / "st_llm2vec.json").write_text(json.dumps(manifest))
    (unknown / "st_llm2vec.json").unlink()
    encoder = make(decoder)
    set_attention(encoder[0].model, "causal")
    broken = make(decoder)
    for layer in broken[0].model.layers:
        layer.self_attn.forward = causal_again(layer.self_attn)
    for candidate, message in (
        (flagless, "meant to attend in both directions"),
        (unknown, "without its st_llm2vec.json nothing says that it is meant to be"),
        (encoder, "meant to attend in both directions"),
        (broken, "meant to attend in both directions"),
    ):
        with pytest.raises(ValueError, match=message):
            publish(candidate, "org/encoder")
    assert not hub.repositories
    assert not [path for method, path in hub.requests if method == "POST"]


def causal_again(module: torch.nn.Module):
    """An attention that ignores the configuration, as an architecture may in some version of Transformers."""
    forward = type(module).forward

    def hidden(*args: object, attention_mask: torch.Tensor | None = None, **kwargs: object) -> object:
        length = kwargs["hidden_states"].shape[1]
        mask = torch.full((length, length), float("-inf")).triu(1)[None, None]
        return forward(module, *args, attention_mask=mask, **kwargs)

    return hidden


@pytest.mark.usefixtures("same_process")
def test_a_folder_that_reads_otherwise_elsewhere_is_refused(
    decoder: str, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written is damaged behind the encoder's back: its weights, then its flag."""
    from st_llm2vec.publishing import publication

    write = publication._write

    def other_weights(encoder: TextEncoder, folder: Path, *rest: object) -> None:
        write(encoder, folder, *rest)
        weights = load_file(folder / "model.safetensors")
        save_file(
            {name: one * 1.01 for name, one in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"}
        )

    def no_flag(encoder: TextEncoder, folder: Path, *rest: object) -> None:
        write(encoder, folder, *rest)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "is_causal": True}))

    for damage, error, message in (
        (other_weights, ValueError, "plain Sentence Transformers, without this package, gives other vectors"),
        (no_flag, CausalAttentionError, "plain Sentence Transformers loads it so that the probe finds: causal"),
    ):
        monkeypatch.setattr(publication, "_write", damage)
        with pytest.raises(error, match=message):
            publish(make(decoder), "org/encoder")
    assert not hub.repositories


@pytest.mark.usefixtures("same_process")
def test_no_local_path_is_published(decoder: str, tmp_path: Path) -> None:
    copy = tmp_path / "secret place" / "my-decoder"
    copy.parent.mkdir()
    copy.symlink_to(decoder)
    encoder = make(str(copy))
    encoder.manifest.stages = [
        {"name": "mntp", "data": [str(tmp_path / "train.jsonl"), "org/data"], "settings": {"x": "~/y"}}
    ]
    published = dry(encoder, tmp_path / "out")
    for name in published.files:
        content = (tmp_path / "out" / name).read_bytes()
        assert str(tmp_path).encode() not in content and b"secret place" not in content, name
    manifest = json.loads((tmp_path / "out/st_llm2vec.json").read_text())
    assert manifest["base"]["name"] == "my-decoder"
    assert manifest["stages"][0] == {"name": "mntp", "data": ["train.jsonl", "org/data"], "settings": {"x": "y"}}
    assert encoder.manifest.base["name"] == str(copy)
    dry(encoder, tmp_path / "named", base_model="org/my-decoder")
    assert ModelCard.load(tmp_path / "named/README.md").data.base_model == "org/my-decoder"


@pytest.mark.usefixtures("same_process")
@pytest.mark.parametrize("kept", [False, True])
def test_an_instruction_that_was_trained_and_is_not_kept_is_said(
    tiny: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture, kept: bool
) -> None:
    prompts = {"query": INSTRUCTION} if kept else {}
    encoder = convert(tiny("llama", max_position_embeddings=128), "llm2vec", prompts=prompts)
    encoder.manifest.stages = [{"name": "supervised", "instructions": {"query": [INSTRUCTION, "Find:"]}}]
    dry(encoder, tmp_path / "out")
    said = [one.getMessage() for one in caplog.records if "was trained with the instruction" in one.getMessage()]
    assert len(said) == (not kept)
    assert kept or (
        INSTRUCTION in said[0] and "and 1 more before queries" in said[0] and "encoder.prompts['query']" in said[0]
    )


@pytest.mark.usefixtures("same_process")
@pytest.mark.slow
def test_large_weights_go_in_shards_and_a_dry_run_asks_nobody(decoder: str, tmp_path: Path, hub: Hub) -> None:
    steps: list[str] = []
    published = dry(make(decoder), tmp_path / "out", max_shard_size="3.2MB", progress=steps.append)
    assert not hub.asked_for("org/encoder") and published.url is None
    shards = [name for name in published.files if name.startswith("model-0000")]
    assert len(shards) == 2 and max(published.files[name] for name in shards) < 3.3e6
    assert {name: (tmp_path / "out" / name).stat().st_size for name in published.files} == published.files
    assert any("fresh process" in step for step in steps)
    assert cosine_distance(load(tmp_path / "out").encode(TEXTS), make(decoder).encode(TEXTS)) < 1e-6
    with pytest.raises(ValueError, match="exists already"):
        dry(make(decoder), tmp_path / "out")


@pytest.mark.usefixtures("same_process")
def test_push_to_hub_goes_the_same_way_and_cards_are_kept_or_replaced(decoder: str, tmp_path: Path, hub: Hub) -> None:
    encoder = make(decoder)
    url = encoder.push_to_hub("org/encoder", private=True, commit_message="First")
    repository = hub.repositories["org/encoder"]
    assert repository.private and url.endswith(repository.branches["main"][-1].oid)
    assert repository.branches["main"][-1].message == "First"
    assert (
        "st_llm2vec.json" in repository.files
        and b"requirements" in repository.files["config_sentence_transformers.json"]
    )
    repository.branches["main"][-1].files["README.md"] = type(repository.branches["main"][-1].files["config.json"])(
        b"mine", False
    )
    kept = publish(encoder, "org/encoder", exist_ok=True)
    assert kept.card == "kept" and repository.files["README.md"] == b"mine"
    replaced = publish(encoder, "org/encoder", exist_ok=True, replace_model_card=True)
    assert replaced.card == "replaced" and b"st-llm2vec" in repository.files["README.md"]
    with pytest.raises(ValueError, match="safetensors only"):
        encoder.push_to_hub("org/other", safe_serialization=False)
    repository.private = False
    own = tmp_path / "own.md"
    own.write_text("---\nlicense: mit\n---\nMine")
    commits = len(repository.branches["main"])
    with pytest.raises(ValueError, match=r"own.md would not be used. .*--replace-card"):
        publish(encoder, "org/encoder", exist_ok=True, model_card_file=own)
    assert len(repository.branches["main"]) == commits
    pull = publish(encoder, "org/encoder", token=STRANGER, create_pr=True, replace_model_card=True, model_card_file=own)
    assert pull.url.endswith("/discussions/1")
    assert repository.at("refs/pr/1").files["README.md"].content == own.read_bytes()


@pytest.mark.usefixtures("same_process")
@pytest.mark.parametrize("recipe", ["echo", "nv-embed"])
def test_custom_folders_are_verified_with_their_module_file(decoder: str, tmp_path: Path, recipe: str) -> None:
    latent = (
        {"latent_attention": {"num_latents": 8, "num_heads": 2, "head_dimension": 16}} if recipe == "nv-embed" else {}
    )
    encoder = convert(decoder, recipe, max_length=128, prompts={"query": INSTRUCTION}, **latent)
    published = dry(encoder, tmp_path / "out")
    assert "st_llm2vec_modules.py" in published.files
    assert published.check.probe.kind == encoder.manifest.config.attention
    card = ModelCard.load(tmp_path / "out/README.md")
    assert (
        "custom_code" in card.data.tags
        and "trust_remote_code=True" in card.content
        and "st_llm2vec.load" in card.content
    )


@pytest.mark.usefixtures("same_process")
@pytest.mark.slow
def test_half_precision_is_published_in_half_precision(decoder: str, tmp_path: Path) -> None:
    encoder = convert(decoder, "llm2vec", dtype=torch.bfloat16, max_length=128)
    published = dry(encoder, tmp_path / "out")
    assert published.check.dtype == "bfloat16" and published.check.tolerance == 1e-3
    assert plain(tmp_path / "out")[0].model.dtype == torch.bfloat16


def test_bad_input_is_told_before_anything_slow(
    decoder: str, tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = make(decoder)
    monkeypatch.setattr(encoder, "save", lambda *_, **__: pytest.fail("it was written"))
    (tmp_path / "bad.json").write_text("[1")
    (tmp_path / "odd.json").write_text('[{"score": "high"}]')
    for options, message in (
        ({"repo_id": "encoder"}, "must be org/name"),
        ({"token": "hf_wrong"}, "The token is not valid here"),
        ({"results": tmp_path / "bad.json"}, "are not valid JSON"),
        ({"results": tmp_path / "odd.json"}, "is none of: task, dataset"),
        ({"results": [{"dataset": "STS", "metric": "spearman", "value": float("nan")}]}, "not a number"),
        ({"model_card_file": tmp_path / "none.md"}, "cannot be read"),
        ({"base_model": "my decoder"}, "'my decoder' is no repository's name"),
        ({"base_model": str(tmp_path)}, "is a folder here; base_model .--base-model. is the decoder's name"),
        ({"revision": "v2", "create_pr": True}, "exclude each other"),
    ):
        with pytest.raises(ValueError, match=message):
            publish(encoder, **{"repo_id": "org/encoder", **options})
    with pytest.raises(ValueError, match="no modules.json"):
        publish(decoder, "org/encoder", dry_run=True)
    with pytest.raises(ValueError, match="not a Linear. Load the folder with st_llm2vec.load"):
        publish(torch.nn.Linear(1, 1), "org/encoder", dry_run=True)


@pytest.mark.usefixtures("same_process")
def test_what_checks_found_is_in_the_card(
    tiny: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = make(tiny("llama", max_position_embeddings=128))
    findings = [Finding.measured("truncation", "4 long | texts", 0, 0), Finding("float16", False, "not finite.")]
    asked = []
    monkeypatch.setattr(
        "st_llm2vec.publishing.publication.check", lambda folder, progress: asked.append(folder) or findings
    )
    published = dry(encoder, tmp_path / "out", check_all=True)
    assert len(asked) == 1 and published.to_dict()["findings"][0]["result"] == "pass"
    card = (tmp_path / "out/README.md").read_text()
    assert "`st-llm2vec check`" in card
    assert "| truncation | pass | 0.0e+00 | 0e+00 | 4 long \\| texts |\n" in card
    assert "| float16 | fail |  |  | not finite. |\n" in card
    findings.append(Finding("16 threads", False, "they get the vectors of others."))
    with pytest.raises(
        ValueError, match="not published, since a check of it fails .16 threads.: they get the vectors of"
    ):
        dry(encoder, tmp_path / "failed", check_all=True)
    assert not (tmp_path / "failed").exists()
    dry(encoder, tmp_path / "unchecked")
    assert "st-llm2vec check" not in (tmp_path / "unchecked/README.md").read_text()
