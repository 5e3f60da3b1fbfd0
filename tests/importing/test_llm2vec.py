"""LLM2Vec's repositories: each adapter merged once, in the right order, and the words and the span of their code."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from st_llm2vec import RECIPES, EncoderConfig, convert, from_llm2vec, load
from st_llm2vec.folder.files import POINTER
from st_llm2vec.importing import from_published
from st_llm2vec.importing.llm2vec import CHAT, DEFAULTS, encoder_fields
from st_llm2vec.modules import InstructionFormatter
from st_llm2vec.proof.fresh_process import PlainReading, read_without_package

from ..conftest import INSTRUCTION, TEXTS, SameVectors, cosine_distance
from ..elsewhere import read_here
from ..promises import Promise
from .conftest import BASE, write_adapter


def by_hand(decoder: str, *adapters: Path) -> torch.nn.Module:
    """Every weight in float32 plus its adapters' products, one after the other."""
    model = AutoModel.from_pretrained(decoder, dtype=torch.float32)
    parameters = dict(model.named_parameters())
    for folder in adapters:
        settings = json.loads((folder / "adapter_config.json").read_text())
        tensors = load_file(folder / "adapter_model.safetensors")
        for name in {name.partition(".lora_")[0] for name in tensors}:
            delta = tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]
            with torch.no_grad():
                parameters[name.removeprefix("base_model.model.") + ".weight"] += (
                    delta * settings["lora_alpha"] / settings["r"]
                )
    return model


@pytest.mark.promise(Promise.IMPORTED)
@pytest.mark.parametrize("read", [read_here, pytest.param(read_without_package, marks=pytest.mark.slow)])
def test_reference_vectors(
    shared_data: Path, tmp_path: Path, same_vectors: SameVectors, read: Callable[..., PlainReading]
) -> None:
    """Made by LLM2Vec's own code; before and after saving, and by plain Sentence Transformers, here or in a fresh process."""
    folder = shared_data / "reference/llm2vec-stack"
    expected = json.loads((folder / "expected.json").read_text())
    base = shared_data / "models/stories260k"
    encoder = from_llm2vec(folder / "mntp-supervised", base=base, prompts={"query": expected["instruction"]})
    encoder.save_pretrained(str(tmp_path / "saved"))
    for one in (encoder, load(tmp_path / "saved")):
        same_vectors(one.encode(expected["texts"]), expected["documents"])
        same_vectors(one.encode_query(expected["texts"]), expected["queries"])
        same_vectors(one.encode(expected["texts"], prompt=expected["instruction"]), expected["queries"])
    plain = read(tmp_path / "saved", expected["texts"], [None, "query"], trust_remote_code=False)
    same_vectors(plain.vectors[0], expected["documents"])
    same_vectors(plain.vectors[1], expected["queries"])
    assert plain.probe.kind == "bidirectional"


def test_an_adapter_that_is_not_finite_is_named(decoder: str, stack: Path) -> None:
    file = stack / "tiny-mntp-supervised" / "adapter_model.safetensors"
    weights = load_file(file)
    name = sorted(weights)[3]
    weights[name][0, 1] = float("nan")
    save_file(weights, file)
    with pytest.raises(
        ValueError, match=f"The adapter .*tiny-mntp-supervised has weights .* not finite .{re.escape(name)}"
    ):
        from_llm2vec(stack / "tiny-mntp-supervised", base=decoder)


def test_adapters_are_merged_once_and_in_order(decoder: str, stack: Path, tmp_path: Path) -> None:
    imported = from_llm2vec(stack / "tiny-mntp-supervised", base=decoder)
    merged = by_hand(decoder, stack / "tiny-mntp", stack / "tiny-mntp-supervised")
    expected = convert(merged, "llm2vec", tokenizer=AutoTokenizer.from_pretrained(decoder))
    assert cosine_distance(imported.encode(TEXTS), expected.encode(TEXTS)) < 1e-6
    assert (
        cosine_distance(imported.encode(TEXTS, prompt=INSTRUCTION), expected.encode(TEXTS, prompt=INSTRUCTION)) < 1e-6
    )
    assert imported.max_seq_length == 256
    assert imported.manifest.base["name"] == BASE
    assert [stage["name"] for stage in imported.manifest.stages] == ["mntp", "supervised"]
    imported.save_pretrained(str(tmp_path / "saved"))
    assert not (tmp_path / "saved/adapter_config.json").exists()
    assert cosine_distance(load(tmp_path / "saved").encode(TEXTS), expected.encode(TEXTS)) < 1e-6


def test_a_small_adapter_over_bfloat16_is_kept(decoder: str, stack: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Merged in bfloat16, as the decoder is stored, the sum would be rounded back to the weights that were."""
    base, adapter = stack / "base", stack / "tiny-mntp"
    AutoModel.from_pretrained(decoder, dtype=torch.bfloat16).save_pretrained(base)
    AutoTokenizer.from_pretrained(decoder).save_pretrained(base)
    file = adapter / "adapter_model.safetensors"
    save_file({name: weight * (0.02 if "lora_B" in name else 1) for name, weight in load_file(file).items()}, file)
    imported = from_llm2vec(adapter, base=base)
    assert imported.transformer.model.dtype == torch.float32 and "merged weights are in float32" in caplog.text
    expected = by_hand(str(base), adapter)
    found = dict(imported.transformer.model.named_parameters())
    assert all(torch.allclose(found[name], weight, atol=1e-6) for name, weight in expected.named_parameters())
    forced = from_llm2vec(adapter, base=base, dtype=torch.bfloat16)
    assert forced.transformer.model.dtype == torch.bfloat16 and "as you asked" in caplog.text


def test_the_mntp_stage_alone_and_an_adapter_without_it(decoder: str, stack: Path) -> None:
    for source, options in (("tiny-mntp", {}), ("tiny-mntp-supervised", {"mntp": False})):
        imported = from_llm2vec(stack / source, base=decoder, **options)
        expected = convert(
            by_hand(decoder, stack / source), "llm2vec", tokenizer=AutoTokenizer.from_pretrained(decoder)
        )
        assert cosine_distance(imported.encode(TEXTS), expected.encode(TEXTS)) < 1e-6
        assert len(imported.manifest.stages) == 1


def test_mntp_and_base_can_lie_elsewhere(decoder: str, stack: Path, tmp_path: Path) -> None:
    expected = from_llm2vec(stack / "tiny-mntp-supervised", base=decoder).encode(TEXTS)
    shutil.copytree(stack / "tiny-mntp", tmp_path / "first-stage")
    shutil.copytree(stack / "tiny-mntp-supervised", tmp_path / "second-stage")
    with pytest.raises(ValueError, match="does not say which MNTP adapter"):
        from_llm2vec(tmp_path / "second-stage", base=decoder)
    found = from_llm2vec(tmp_path / "second-stage", mntp=tmp_path / "first-stage", base=decoder)
    assert cosine_distance(found.encode(TEXTS), expected) < 1e-6


def test_adapters_of_a_model_with_its_head(decoder: str, stack: Path) -> None:
    """Trained on ``LlamaForCausalLM``, their names have one ``model.`` more."""
    expected = from_llm2vec(stack / "tiny-mntp-supervised", base=decoder).encode(TEXTS)
    file = stack / "tiny-mntp-supervised/adapter_model.safetensors"
    renamed = {
        name.replace("base_model.model.", "base_model.model.model."): one for name, one in load_file(file).items()
    }
    save_file(renamed, file)
    assert cosine_distance(from_llm2vec(stack / "tiny-mntp-supervised", base=decoder).encode(TEXTS), expected) < 1e-6


def test_a_merged_checkpoint_is_taken_as_it_is(decoder: str, stack: Path, tmp_path: Path) -> None:
    merged = by_hand(decoder, stack / "tiny-mntp")
    merged.save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(decoder).save_pretrained(tmp_path / "merged")
    (tmp_path / "merged/llm2vec_config.json").write_text(json.dumps({"pooling_mode": "weighted_mean"}))
    imported = from_llm2vec(tmp_path / "merged")
    expected = convert(merged, "llm2vec", tokenizer=AutoTokenizer.from_pretrained(decoder), pooling="weighted_mean")
    assert cosine_distance(imported.encode(TEXTS), expected.encode(TEXTS)) < 1e-6
    with pytest.raises(ValueError, match="is merged already; leave mntp out"):
        from_llm2vec(tmp_path / "merged", mntp=stack / "tiny-mntp")


def test_an_mntp_adapter_is_named_and_not_switched_on(stack: Path) -> None:
    with pytest.raises(TypeError, match="mntp=True names no adapter. Give the folder or the name"):
        from_llm2vec(stack, mntp=True)


def test_nothing_is_applied_twice(decoder: str, stack: Path, tmp_path: Path) -> None:
    supervised = stack / "tiny-mntp-supervised"
    with pytest.raises(ValueError, match="same adapter, and it would be applied twice"):
        from_llm2vec(supervised, mntp=supervised, base=decoder)
    with pytest.raises(ValueError, match="is itself an adapter. Give it as mntp"):
        from_llm2vec(supervised, base=stack / "tiny-mntp")
    from_llm2vec(supervised, base=decoder).save_pretrained(str(tmp_path / "encoder"))
    with pytest.raises(ValueError, match="would apply one twice"):
        from_llm2vec(supervised, base=tmp_path / "encoder")


def test_a_wrong_pairing_is_named(decoder: str, stack: Path, tiny, tmp_path: Path) -> None:
    write_adapter(decoder, stack / "tiny-mntp-supervised", seed=3, base="example/other")
    with pytest.raises(
        ValueError, match="is for 'example/other', but the MNTP adapter .* is for 'example/base-decoder'"
    ):
        from_llm2vec(stack / "tiny-mntp-supervised", base=decoder)
    with pytest.raises(ValueError, match=r"tiny-mntp does not fit .*phi.*example/base-decoder"):
        from_llm2vec(stack / "tiny-mntp", base=tiny("phi"))
    with pytest.raises(ValueError, match="does not fit .*: .*of its tensors have no place there|has the shape"):
        from_llm2vec(stack / "tiny-mntp", base=tiny("llama"))
    deeper = tiny("llama", tokenizer="byte-level", num_hidden_layers=1)
    with pytest.raises(ValueError, match="does not fit"):
        from_llm2vec(stack / "tiny-mntp", base=deeper)


def test_a_base_that_is_not_at_hand_is_named(stack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"The base 'example/base-decoder' that .*tiny-mntp names .*--base"):
        from_llm2vec(stack / "tiny-mntp-supervised", local_files_only=True)
    shutil.rmtree(stack / "tiny-mntp")
    with pytest.raises(ValueError, match="The MNTP adapter that .*tiny-mntp-supervised stands on is not at hand"):
        from_llm2vec(stack / "tiny-mntp-supervised", local_files_only=True)


def test_damaged_adapters(decoder: str, stack: Path) -> None:
    folder = stack / "tiny-mntp"
    file = folder / "adapter_model.safetensors"
    whole, settings = file.read_bytes(), (folder / "adapter_config.json").read_text()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="adapter_model.safetensors of .*tiny-mntp is truncated or damaged"):
        from_llm2vec(folder, base=decoder)
    tensors = load_file_bytes(whole)
    save_file({**tensors, "base_model.model.layers.0.extra.weight": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match="1 of its tensors have no place there, e.g. .*extra"):
        from_llm2vec(folder, base=decoder)
    save_file({name: one for name, one in tensors.items() if "layers.1." not in name}, file)
    with pytest.raises(ValueError, match="it lacks .* tensors for it"):
        from_llm2vec(folder, base=decoder)
    file.unlink()
    with pytest.raises(ValueError, match="has no adapter_model.safetensors"):
        from_llm2vec(folder, base=decoder)
    file.write_bytes(whole)
    (folder / "adapter_config.json").write_text(settings.replace('"LORA"', '"PREFIX_TUNING"'))
    with pytest.raises(ValueError, match="is a PREFIX_TUNING adapter; only plain LoRA"):
        from_llm2vec(folder, base=decoder)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(ValueError, match="adapter_config.json of .* is not valid JSON"):
        from_llm2vec(folder, base=decoder)


def test_a_tokenizer_that_is_a_git_lfs_pointer_is_called_so(decoder: str, stack: Path) -> None:
    pointer = POINTER + b"v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
    (stack / "tiny-mntp/tokenizer.json").write_bytes(pointer)
    for recipe in ("llm2vec", None):
        with pytest.raises(ValueError, match="tokenizer.json of .*tiny-mntp is a git-lfs pointer"):
            from_published(stack / "tiny-mntp", recipe, base=decoder)


def test_a_base_that_declares_a_million_layers_is_not_built(decoder: str, stack: Path, tmp_path: Path) -> None:
    shutil.copytree(decoder, tmp_path / "base")
    config = json.loads((tmp_path / "base/config.json").read_text())
    (tmp_path / "base/config.json").write_text(json.dumps({**config, "num_hidden_layers": 1_000_000}))
    with pytest.raises(ValueError, match="declares 1,000,000 layers, and its files hold .* tensors"):
        from_llm2vec(stack / "tiny-mntp", base=tmp_path / "base")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in folders here")
@pytest.mark.parametrize("file", ["config.json", "adapter_config.json", "tokenizer.json", "llm2vec_config.json"])
def test_a_checkpoint_with_a_pipe_is_not_waited_for(decoder: str, stack: Path, file: str) -> None:
    (stack / "tiny-mntp" / file).unlink(missing_ok=True)
    os.mkfifo(stack / "tiny-mntp" / file)
    with pytest.raises(ValueError, match=f"{file} of .*tiny-mntp is no file but a pipe"):
        from_published(stack / "tiny-mntp", base=decoder)


def load_file_bytes(content: bytes) -> dict[str, torch.Tensor]:
    from safetensors.torch import load as load_bytes

    return load_bytes(content)


def test_pickles_are_read_only_if_asked_for(decoder: str, stack: Path) -> None:
    folder = stack / "tiny-mntp"
    expected = from_llm2vec(folder, base=decoder).encode(TEXTS)
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ValueError, match="only as a pickle .adapter_model.bin.*allow_pickles=True"):
        from_llm2vec(folder, base=decoder)
    assert cosine_distance(from_llm2vec(folder, base=decoder, allow_pickles=True).encode(TEXTS), expected) < 1e-6


def test_unknown_settings_and_folders_that_are_no_checkpoints(decoder: str, stack: Path) -> None:
    path = stack / "tiny-mntp-supervised/llm2vec_config.json"
    for settings, message in (
        ({"pooling": "mean"}, "unknown key 'pooling'"),
        ({"pooling_mode": "max"}, "pooling_mode='max'"),
    ):
        path.write_text(json.dumps(settings))
        with pytest.raises(ValueError, match=message):
            from_llm2vec(stack / "tiny-mntp-supervised", base=decoder)
    with pytest.raises(ValueError, match="is no LLM2Vec checkpoint.*st_llm2vec.convert"):
        from_llm2vec(decoder)
    with pytest.raises(ValueError, match="does not say which base it is for"):
        from_llm2vec(write_adapter(decoder, stack / "x-mntp", seed=4, base=None))


MODELS = {"llama": SimpleNamespace(config=SimpleNamespace(model_type="llama", max_position_embeddings=8192))}


@pytest.mark.parametrize("base", [None, *CHAT])
def test_what_their_code_writes_around_a_text(base: str | None, tokenizers) -> None:
    """Their string is built here by their rules, with their separator; what follows the separator is pooled."""
    before, after = CHAT.get(base, ("", ""))
    config = EncoderConfig(**encoder_fields(DEFAULTS, base, MODELS["llama"]))
    formatter = InstructionFormatter(**config.formatter_config())
    tokenizer = tokenizers["byte-level+bos"]
    for instruction, text in (("", "A cat sat."), (INSTRUCTION, "A cat sat.")):
        theirs = before + (f"{instruction.strip()} " if instruction else "") + "!@#$%^&*()" + text + after
        whole, pooled = theirs.replace("!@#$%^&*()", ""), theirs.split("!@#$%^&*()")[1]
        found = formatter([text], instruction, tokenizer, 1000)
        assert found["input_ids"][0].tolist() == tokenizer(whole)["input_ids"]
        count = int(found["pooling_mask"].sum())
        assert tokenizer.decode(found["input_ids"][0][-count:]).strip() == pooled.strip()
        assert found["pooling_mask"][0, -count:].all()


@pytest.mark.parametrize(
    ("mode", "pooling"), [("eos_token", "last_token"), ("last_token", "last_token"), ("bos_token", "last_token")]
)
def test_other_poolings(mode: str, pooling: str, tokenizers) -> None:
    fields = encoder_fields({**DEFAULTS, "pooling_mode": mode}, None, MODELS["llama"])
    assert fields["pooling"] == pooling
    formatter = InstructionFormatter(fields["template"], fields["instruction_template"])
    tokenizer = tokenizers["byte-level+bos"]
    found = formatter(["A cat."], INSTRUCTION, tokenizer, 1000)
    written = {"eos_token": "A cat. </s>"}.get(mode, "A cat.")
    assert found["input_ids"][0].tolist() == tokenizer(f"{INSTRUCTION} {written}")["input_ids"]
    pooled = found["pooling_mask"][0].nonzero().flatten().tolist()
    assert pooled == [0] if mode == "bos_token" else pooled[-1] == found["input_ids"].shape[1] - 1
    plain = encoder_fields({**DEFAULTS, "skip_instruction": False}, None, MODELS["llama"])
    assert plain["template"] == "{bos}{text}" and plain["instruction_template"] == "{bos}{instruction} {text}"
    assert RECIPES["llm2vec"].template == encoder_fields(DEFAULTS, None, MODELS["llama"])["template"]


def test_an_instruct_model_pools_its_closing_words(decoder: str, stack: Path) -> None:
    for folder in ("tiny-mntp", "tiny-mntp-supervised"):
        path = stack / folder / "adapter_config.json"
        path.write_text(path.read_text().replace(BASE, "mistralai/Mistral-7B-Instruct-v0.2"))
    encoder = from_llm2vec(stack / "tiny-mntp-supervised", base=decoder)
    assert encoder.manifest.config.template == "{bos}[INST]{pool} {text} [/INST]{/pool}"
    assert encoder.manifest.base["name"] == "mistralai/Mistral-7B-Instruct-v0.2"
    features = encoder.preprocess(["A cat."], prompt=INSTRUCTION)
    ids = encoder.tokenizer(f"[INST] {INSTRUCTION} A cat. [/INST]")["input_ids"]
    assert features["input_ids"][0].tolist() == ids
