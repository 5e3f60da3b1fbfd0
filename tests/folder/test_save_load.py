"""Folders that load anywhere, survive being saved again, and are never half-written."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize
from transformers import AutoModel

from st_llm2vec import RECIPES, CausalAttentionError, convert, load
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.folder.module_file import MODULE_NAME
from st_llm2vec.modules import set_attention

from ..conftest import INSTRUCTION, TEXTS, SameVectors, but_first, cosine_distance, crossed
from ..elsewhere import Elsewhere, start_elsewhere
from ..promises import Promise

LATENT = {"num_latents": 8, "num_heads": 2, "head_dimension": 16}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    if not hasattr(os, "fork"):
        pytest.skip("a process without this package is forked for each folder, which Windows cannot")
    with start_elsewhere(tmp_path_factory.mktemp("elsewhere")) as process:
        yield process


def our_vectors(encoder: TextEncoder) -> np.ndarray:
    ways = [encoder.encode(TEXTS), encoder.encode_document(TEXTS)]
    if encoder.prompts["query"]:
        ways += [encoder.encode_query(TEXTS), encoder.encode(TEXTS, prompt_name="query")]
        ways += [encoder.encode(TEXTS, prompt=INSTRUCTION)] * 2
    return np.stack(ways)


def make(decoder: str, recipe: str) -> TextEncoder:
    overrides: dict = {"latent_attention": LATENT} if recipe == "nv-embed" else {}
    if RECIPES[recipe].instruction_template is not None:
        overrides["prompts"] = {"query": INSTRUCTION}
    return convert(decoder, recipe, max_length=256, **overrides)


@pytest.mark.promise(Promise.ONE_FOLDER)
@pytest.mark.parametrize(
    "recipe",
    [one if one == "llm2vec" else pytest.param(one, marks=pytest.mark.slow) for one in RECIPES],
)
def test_the_folder_loads_where_the_package_is_missing(
    decoder: str, tmp_path: Path, recipe: str, elsewhere: Elsewhere, same_vectors: SameVectors
) -> None:
    encoder, folder = make(decoder, recipe), tmp_path / recipe
    custom = encoder.manifest.layout == "custom"
    assert custom == (recipe in ("nv-embed", "reverse-eol", "echo", "echo-last", "gritlm"))
    encoder.save_pretrained(str(folder))
    assert (folder / f"{MODULE_NAME}.py").exists() == custom
    # Sentence Transformers alone puts a prompt before the text as it is, with no template around it.
    saved = json.loads((folder / "config_sentence_transformers.json").read_text())["prompts"]
    said = saved["query"] if encoder.layout == "prefix" else INSTRUCTION
    for vectors in elsewhere.vectors(folder, TEXTS, said, trust=custom):
        same_vectors(vectors, our_vectors(encoder))
    again = load(tmp_path / f"{recipe}-again")
    same_vectors(our_vectors(again), our_vectors(encoder))


@pytest.mark.promise(Promise.ONE_FOLDER)
@pytest.mark.parametrize("recipe", ["llm2vec", *but_first(["echo", "prompteol", "nv-embed"])])
def test_load_save_load_save(decoder: str, tmp_path: Path, recipe: str, same_vectors: SameVectors) -> None:
    encoder = make(decoder, recipe)
    expected = our_vectors(encoder)
    for step in range(3):
        encoder.save_pretrained(str(tmp_path / str(step)))
        encoder = load(tmp_path / str(step))
        same_vectors(our_vectors(encoder), expected)
        assert encoder.manifest.config == make(decoder, recipe).manifest.config
    names = [sorted(p.name for p in (tmp_path / str(step)).iterdir()) for step in range(3)]
    assert names[0] == names[1] == names[2]


def test_a_custom_folder_needs_the_trust_flag_only_elsewhere(decoder: str, tmp_path: Path) -> None:
    make(decoder, "echo").save_pretrained(str(tmp_path / "echo"))
    with pytest.raises(ValueError, match="trust_remote_code"):
        SentenceTransformer(str(tmp_path / "echo"))
    load(tmp_path / "echo")


@pytest.mark.promise(Promise.NO_CODE_RUNS)
def test_code_in_the_folder_is_never_run(decoder: str, tmp_path: Path) -> None:
    make(decoder, "echo").save_pretrained(str(tmp_path / "echo"))
    (tmp_path / "echo" / f"{MODULE_NAME}.py").write_text("raise SystemExit('this was run')")
    load(tmp_path / "echo")
    modules = json.loads((tmp_path / "echo/modules.json").read_text())
    modules[0]["type"] = "evil.Module"
    (tmp_path / "echo/modules.json").write_text(json.dumps(modules))
    with pytest.raises(ValueError, match="'evil.Module'.*never run"):
        load(tmp_path / "echo")


def test_older_transformers_are_turned_away(decoder: str, tmp_path: Path) -> None:
    for recipe, bidirectional in (("llm2vec", True), ("prompteol", False)):
        make(decoder, recipe).save_pretrained(str(tmp_path / recipe))
        settings = json.loads((tmp_path / recipe / "config_sentence_transformers.json").read_text())
        assert ("requirements" in settings) == bidirectional
        config = json.loads((tmp_path / recipe / "config.json").read_text())
        assert (config.get("is_causal") is False) == bidirectional
    settings = json.loads((tmp_path / "llm2vec/config_sentence_transformers.json").read_text())
    settings["requirements"]["transformers"]["specifier"] = ">=99"
    (tmp_path / "llm2vec/config_sentence_transformers.json").write_text(json.dumps(settings))
    for loader in (load, SentenceTransformer):
        with pytest.raises(Exception, match="transformers"):
            loader(str(tmp_path / "llm2vec"))


@pytest.mark.promise(Promise.NEVER_CAUSAL)
def test_a_folder_that_lost_its_flag_is_refused(decoder: str, tmp_path: Path) -> None:
    make(decoder, "llm2vec").save_pretrained(str(tmp_path / "saved"))
    config = json.loads((tmp_path / "saved/config.json").read_text())
    del config["is_causal"]
    (tmp_path / "saved/config.json").write_text(json.dumps(config))
    with pytest.raises(CausalAttentionError, match="meant to attend in both directions"):
        load(tmp_path / "saved")


@pytest.mark.promise(Promise.NEVER_CAUSAL)
@pytest.mark.parametrize(("recipe", "attach"), crossed(["llm2vec", "echo"], ["get_peft_model", "add_adapter"], ()))
def test_an_adapter_beside_the_base_is_never_silently_causal(
    decoder: str, tmp_path: Path, recipe: str, attach: str
) -> None:
    encoder = make(decoder, recipe)
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    if attach == "add_adapter":
        encoder.add_adapter(lora)
    else:
        encoder[0].model = get_peft_model(encoder[0].model, lora)
    expected = our_vectors(encoder)
    encoder.save_pretrained(str(tmp_path / "adapter"))
    assert not (tmp_path / "adapter/model.safetensors").exists()
    again = load(tmp_path / "adapter")
    assert cosine_distance(our_vectors(again), expected) < 1e-6
    again.save_pretrained(str(tmp_path / "again"))
    assert cosine_distance(our_vectors(load(tmp_path / "again")), expected) < 1e-6
    with pytest.raises(ValueError, match="trust_remote_code"):
        SentenceTransformer(str(tmp_path / "adapter"))
    plain = SentenceTransformer(str(tmp_path / "adapter"), trust_remote_code=True)
    assert cosine_distance(plain.encode(TEXTS), expected[0]) < 1e-6


def test_an_adapter_is_not_saved_over_its_own_base(decoder: str, tmp_path: Path) -> None:
    make(decoder, "llm2vec").save_pretrained(str(tmp_path / "base"))
    encoder = load(tmp_path / "base")
    encoder.add_adapter(LoraConfig(r=4, target_modules=["q_proj"]))
    with pytest.raises(ValueError, match="would be overwritten and lost"):
        encoder.save_pretrained(str(tmp_path / "base"))
    load(tmp_path / "base")
    encoder.save_pretrained(str(tmp_path / "adapter"))
    assert cosine_distance(our_vectors(load(tmp_path / "adapter")), our_vectors(encoder)) < 1e-6
    encoder.bfloat16().save_pretrained(str(tmp_path / "half"))


@pytest.mark.parametrize("how", ["in memory", "changed since"])
def test_an_adapter_over_weights_that_are_not_stored_is_refused(decoder: str, tmp_path: Path, how: str) -> None:
    """A reload would put the adapter on the stored weights, which are others."""
    if how == "in memory":
        encoder = convert(AutoModel.from_pretrained(decoder), "llm2vec")
    else:
        encoder = make(decoder, "llm2vec")
        with torch.no_grad():
            for parameter in encoder.parameters():
                parameter.add_(0.01)
    encoder.add_adapter(LoraConfig(r=4, target_modules=["q_proj"]))
    with pytest.raises(ValueError, match="Save the encoder before the adapter"):
        encoder.save_pretrained(str(tmp_path / "adapter"))
    assert not (tmp_path / "adapter").exists()


def test_the_hosts_card_says_where_the_recipe_stands(decoder: str, tmp_path: Path) -> None:
    make(decoder, "llm2vec").save_pretrained(str(tmp_path / "first"))
    load(tmp_path / "first").save_pretrained(str(tmp_path / "second"))
    for folder in ("first", "second"):
        card = (tmp_path / folder / "README.md").read_text(encoding="utf-8")
        assert card.count("`st-llm2vec publish` writes a whole card") == 1 and card.startswith("---\n")


def test_saving_over_another_encoder_leaves_nothing_of_it_and_all_else(decoder: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    make(decoder, "echo").save_pretrained(str(target))
    mine = [target / "notes.txt", target / "2024_results" / "precious.csv", target / "model_notes.safetensors"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    encoder = make(decoder, "llm2vec")
    encoder.save_pretrained(str(target))
    assert not (target / f"{MODULE_NAME}.py").exists()
    assert not (target / "1_SpanPooling").exists()
    assert all(path.read_text() == "mine" for path in mine)
    assert not [path for path in target.iterdir() if path.name.startswith(".")]
    assert cosine_distance(our_vectors(load(target)), our_vectors(encoder)) < 1e-6


@pytest.mark.promise(Promise.NEVER_CAUSAL)
def test_a_wrong_attention_is_not_saved(decoder: str, tmp_path: Path) -> None:
    encoder = make(decoder, "llm2vec")
    set_attention(encoder[0].model, "causal")
    with pytest.raises(ValueError, match="meant to be bidirectional"):
        encoder.save_pretrained(str(tmp_path / "wrong"))
    assert not (tmp_path / "wrong").exists()


def test_missing_weights_are_refused_at_load(decoder: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for recipe in ("llm2vec", "echo"):
        folder = tmp_path / recipe
        make(decoder, recipe).save_pretrained(str(folder))
        weights = {k: v for k, v in load_file(folder / "model.safetensors").items() if "layers.1." not in k}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match="would be random"):
            load(folder)
        (folder / "model.safetensors").write_bytes(b"garbage")
        with pytest.raises(ValueError, match="truncated or damaged"):
            load(folder)


def test_a_damaged_manifest_is_refused(decoder: str, tmp_path: Path) -> None:
    make(decoder, "llm2vec").save_pretrained(str(tmp_path / "saved"))
    manifest = tmp_path / "saved" / "st_llm2vec.json"
    data = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**data, "added_later": 1}))
    load(tmp_path / "saved")
    for text in ("{}", "[]", "garbage", json.dumps({**data, "format": 99})):
        manifest.write_text(text)
        with pytest.raises(ValueError, match="cannot be read"):
            load(tmp_path / "saved")


def test_only_modules_are_loaded_from_the_host(decoder: str, tmp_path: Path) -> None:
    make(decoder, "llm2vec").save_pretrained(str(tmp_path / "saved"))
    modules = json.loads((tmp_path / "saved/modules.json").read_text())
    modules[1]["type"] = "sentence_transformers.base.modules.module.torch"
    (tmp_path / "saved/modules.json").write_text(json.dumps(modules))
    with pytest.raises(ValueError, match="neither a Sentence Transformers module"):
        load(tmp_path / "saved")
    (tmp_path / "saved/modules.json").write_text('["a"]')
    with pytest.raises(ValueError, match="does not list modules"):
        load(tmp_path / "saved")


def test_an_encoders_folder_is_not_converted_again(decoder: str, tmp_path: Path) -> None:
    make(decoder, "llm2vec").save_pretrained(str(tmp_path / "saved"))
    with pytest.raises(ValueError, match="is an encoder that this package made"):
        convert(tmp_path / "saved", "prompteol")


def test_the_class_itself_proves_what_it_loads(decoder: str, tmp_path: Path) -> None:
    make(decoder, "llm2vec").save_pretrained(str(tmp_path / "saved"))
    config = json.loads((tmp_path / "saved/config.json").read_text())
    del config["is_causal"]
    (tmp_path / "saved/config.json").write_text(json.dumps(config))
    with pytest.raises(CausalAttentionError):
        TextEncoder(str(tmp_path / "saved"))


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_other_backends_are_refused(decoder: str, tmp_path: Path, backend: str) -> None:
    make(decoder, "llm2vec").save_pretrained(str(tmp_path / "saved"))
    with pytest.raises(ValueError, match=f"The backend '{backend}' does not keep an encoder's attention"):
        TextEncoder(str(tmp_path / "saved"), backend=backend)
    TextEncoder(str(tmp_path / "saved"), backend="torch")


@pytest.mark.promise(Promise.SAVED_WHOLE)
def test_a_save_that_fails_leaves_the_folder_as_it_was(
    decoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = make(decoder, "llm2vec")
    target = tmp_path / "target"
    encoder.save_pretrained(str(target))
    before = {path.name: path.stat().st_mtime_ns for path in target.iterdir()}
    monkeypatch.setattr(type(encoder[1]), "save", lambda *args, **kwargs: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        encoder.save_pretrained(str(target))
    with pytest.raises(OSError, match="disk full"):
        encoder.save_pretrained(str(tmp_path / "new"))
    assert {path.name: path.stat().st_mtime_ns for path in target.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_repaired_families_are_saved_with_the_repair(tiny, tmp_path: Path, elsewhere: Elsewhere) -> None:
    encoder = convert(tiny("stablelm"), "llm2vec", attn_implementation="sdpa")
    assert encoder.manifest.layout == "custom"
    encoder.save_pretrained(str(tmp_path / "saved"))
    for vectors in elsewhere.vectors(tmp_path / "saved", TEXTS, INSTRUCTION, trust=True):
        assert cosine_distance(vectors, our_vectors(encoder)) < 1e-6


def test_a_decoder_is_not_an_encoder_yet(decoder: str) -> None:
    with pytest.raises(ValueError, match="no modules.json.*convert"):
        load(decoder)
    for missing in ("/no/such/folder", "no such name"):
        with pytest.raises(ValueError, match="There is no folder"):
            load(missing)


def test_broken_folders_are_refused_in_a_sentence(decoder: str, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    make(decoder, "llm2vec").save_pretrained(str(folder))
    modules = (folder / "modules.json").read_text()
    (folder / "modules.json").write_text(modules.replace(".Pooling", ".NoSuchPooling"))
    with pytest.raises(ValueError, match="NoSuchPooling.*does not have"):
        load(folder)
    (folder / "modules.json").write_text(modules[:-10])
    with pytest.raises(ValueError, match="not valid JSON"):
        load(folder)
    (folder / "modules.json").write_text(modules)
    (folder / "config_sentence_transformers.json").unlink()
    with pytest.raises(ValueError, match="has no config_sentence_transformers.json"):
        load(folder)


def test_pickles_are_not_written(decoder: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="safetensors only"):
        make(decoder, "llm2vec").save_pretrained(str(tmp_path / "x"), safe_serialization=False)
    assert not (tmp_path / "x").exists()


def test_set_attention_goes_both_ways(decoder: str) -> None:
    encoder = make(decoder, "llm2vec")
    set_attention(encoder[0].model, "causal")
    assert encoder[0].model.config.is_causal is True


@pytest.mark.parametrize(("where", "warned"), [("__main__", True), ("a_package", False)])
def test_a_class_that_only_this_program_knows_is_said(
    where: str, warned: bool, decoder: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = type("Kept", (Normalize,), {"__module__": where})
    encoder = convert(decoder, "sgpt", measure=False)
    encoder.append(kept())
    encoder.save_pretrained(str(tmp_path / "mine"))
    assert ("Kept is a class of the running program" in caplog.text) == warned


@pytest.mark.parametrize("recipe", ["llm2vec", "mean", "e5-mistral"])
def test_a_default_prompt_that_was_taken_back_or_came_later(decoder: str, tmp_path: Path, recipe: str) -> None:
    encoder = convert(decoder, recipe, prompts={"query": INSTRUCTION}, default_prompt_name="query")
    told = encoder.encode(TEXTS)
    encoder.default_prompt_name = None
    encoder.save(str(tmp_path / "bare"))
    assert cosine_distance(load(tmp_path / "bare").encode(TEXTS), encoder.encode(TEXTS, prompt="")) < 1e-6
    encoder.default_prompt_name = "query"
    encoder.save(str(tmp_path / "told"))
    read = load(tmp_path / "told")
    assert read.manifest.config.default_prompt_name == "query" and cosine_distance(read.encode(TEXTS), told) < 1e-6
    encoder.prompts, encoder.default_prompt_name = {}, None
    encoder.save(str(tmp_path / "none"))
    assert load(tmp_path / "none").manifest.config.prompts == {}


def test_saving_leaves_another_threads_texts_as_long_as_they_may_be(decoder: str, tmp_path: Path) -> None:
    encoder = convert(decoder, "llm2vec", max_length=16)
    texts, widths, saved = ["the ship sailed past the old tower " * 9] * 16, set(), threading.Event()

    def read() -> None:
        while not saved.is_set():
            widths.add(encoder.preprocess(texts)["input_ids"].shape[1])

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(3):
            encoder.save(str(tmp_path / "saved"))
    finally:
        saved.set()
        reader.join()
    kept = json.loads((tmp_path / "saved" / "tokenizer.json").read_text(encoding="utf-8"))
    assert widths == {16} and kept["truncation"] is kept["padding"] is None
