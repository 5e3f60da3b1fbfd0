"""Folders that lie, are damaged or hold what is no number are refused, and the sentence names the file or the weight."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoModel, AutoTokenizer

from st_llm2vec import convert, load, publish
from st_llm2vec.folder.checksums import sha256
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.folder.files import POINTER
from st_llm2vec.modules import BidirectionalTransformer
from st_llm2vec.recipe.config import get_recipe

from ..conftest import INSTRUCTION, TEXTS, cosine_distance
from ..promises import Promise
from ..stand_ins import stand_in

KINDS = {"llm2vec": "gemma", "prompteol": "smollm2", "echo": "llama"}


@pytest.fixture(scope="module")
def decoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("decoders")
    return {kind: stand_in(kind, root / kind) for kind in KINDS.values()}


@pytest.fixture(scope="module")
def saved(decoders: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An encoder's folder for each layout: with prompts or custom, with a chat template, and custom."""
    root = tmp_path_factory.mktemp("encoders")
    for recipe, kind in KINDS.items():
        convert(decoders[kind], recipe).save_pretrained(str(root / recipe))
    return {recipe: root / recipe for recipe in KINDS}


@pytest.fixture
def copied(saved: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    def copy(recipe: str) -> Path:
        return Path(shutil.copytree(saved[recipe], tmp_path / recipe))

    return copy


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    data = json.loads(path.read_text())
    path.write_text(json.dumps(change(data) or data))


def as_trainers_do(folder: Path) -> TextEncoder:
    return TextEncoder._load_with_module_classes(str(folder), {})


def module_folder(folder: Path, kind: str) -> Path:
    return next(folder.glob(f"*_{kind}"))


def fewer_layers(folder: Path) -> None:
    def change(config: dict) -> None:
        config["num_hidden_layers"] -= 1
        if "layer_types" in config:
            config["layer_types"].pop()

    edit(folder / "config.json", change)


def other_pooling(folder: Path) -> None:
    custom = bool(list(folder.glob("*_SpanPooling")))
    mode = "weighted_mean" if custom else "mean"
    pooling = module_folder(folder, "SpanPooling" if custom else "Pooling")
    edit(pooling / "config.json", lambda config: config.update(pooling_mode=mode))


def without_module(folder: Path, name: str) -> None:
    edit(folder / "modules.json", lambda entries: [one for one in entries if not one["type"].endswith(f".{name}")])


def other_layer(folder: Path) -> None:
    def change(settings: dict) -> None:
        for modality in settings["modality_config"].values():
            modality["method_output_name"] = ["hidden_states", -2]

    edit(folder / "sentence_bert_config.json", change)


def larger_tokenizer(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"word{number}" for number in range(200)])
    tokenizer.save_pretrained(folder)


def other_templates(folder: Path) -> None:
    edit(
        folder / "sentence_bert_config.json",
        lambda settings: settings["formatter"].update(template="{bos}{pool}{text}{/pool}"),
    )


def bidirectional(folder: Path) -> None:
    edit(folder / "config.json", lambda config: config.update(is_causal=False))


def manifest_says(folder: Path, **fields: Any) -> None:
    edit(folder / "st_llm2vec.json", lambda data: data["config"].update(fields))


LIES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "fewer layers": ("llm2vec", fewer_layers, "does not use.*fewer layers"),
    "fewer layers, custom": ("echo", fewer_layers, "does not use.*fewer layers"),
    "pooling": ("prompteol", other_pooling, "pooling should be 'lasttoken', and is 'mean'"),
    "pooling, custom": ("echo", other_pooling, "pooling should be 'mean', and is 'weighted_mean'"),
    "no pooling": ("prompteol", lambda folder: without_module(folder, "Pooling"), "0 poolings"),
    "normalisation": ("llm2vec", lambda folder: without_module(folder, "Normalize"), "normalisation should be on"),
    "attention": ("prompteol", bidirectional, "attention should be 'causal', and is 'bidirectional'"),
    "attention, custom": (
        "echo",
        lambda f: manifest_says(f, attention="bidirectional"),
        "should be 'bidirectional', and is 'causal'",
    ),
    "hidden states": ("prompteol", other_layer, "hidden states should be"),
    "templates": ("echo", other_templates, "templates should be"),
    "manifest's recipe": ("prompteol", lambda f: manifest_says(f, pooling="mean"), "pooling should be 'mean'"),
    "tokenizer": ("prompteol", larger_tokenizer, "tokens that the model has no embedding for.*'word"),
    "tokenizer, custom": ("echo", larger_tokenizer, "tokens that the model has no embedding for"),
}


@pytest.mark.promise(Promise.NO_CODE_RUNS)
@pytest.mark.parametrize("lie", LIES)
def test_a_folder_that_lies_is_refused(copied: Callable[[str], Path], lie: str) -> None:
    recipe, change, message = LIES[lie]
    folder = copied(recipe)
    change(folder)
    for opened in (load, as_trainers_do):
        with pytest.raises(ValueError, match=message):
            opened(folder)


def test_the_weight_of_bos_and_the_prompt_in_the_mean_are_held(decoder: str, tmp_path: Path) -> None:
    """With prompts and stock modules alone, as the decoder in the box is compiled."""
    folder = tmp_path / "text"
    encoder = convert(decoder, "llm2vec")
    assert encoder.layout == "text"
    encoder.save_pretrained(str(folder))
    pooling = module_folder(folder, "Pooling") / "config.json"
    edit(pooling, lambda config: config.update(include_prompt=True))
    with pytest.raises(ValueError, match="pooling of the prompt should be off, and is on"):
        load(folder)
    edit(pooling, lambda config: config.update(include_prompt=False))
    load(folder)
    without_module(folder, "WordWeights")
    with pytest.raises(ValueError, match="weight of BOS should be 0.0, and is 1.0"):
        load(folder)


def test_what_a_user_may_change_still_loads(copied: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copied("llm2vec")
    encoder = load(folder)
    encoder.max_seq_length = 64
    encoder.prompts["passage"] = INSTRUCTION
    encoder.save_pretrained(str(tmp_path / "mine"))
    assert load(tmp_path / "mine", verify=True).max_seq_length == 64
    edit(folder / "sentence_bert_config.json", lambda settings: settings.update(max_seq_length=32))
    assert load(folder).max_seq_length == 32
    plain = SentenceTransformer(str(copied("prompteol")))
    plain.save_pretrained(str(tmp_path / "plain"))
    again = load(tmp_path / "plain")
    assert again.manifest is None
    assert cosine_distance(again.encode(TEXTS), plain.encode(TEXTS)) < 1e-3  # bfloat16


@pytest.mark.parametrize("recipe", KINDS)
def test_weights_beside_the_models_own_are_no_lie(copied: Callable[[str], Path], recipe: str) -> None:
    folder = copied(recipe)
    weights = load_file(folder / "model.safetensors")
    extras = {"lm_head.weight": torch.zeros(2, 2), "layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(2)}
    save_file({**weights, **extras}, folder / "model.safetensors", metadata={"format": "pt"})
    load(folder)
    extras = {"layers.0.self_attn.q_proj.extra": torch.zeros(2)}
    save_file({**weights, **extras}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="does not use.*q_proj.extra"):
        load(folder)


def test_a_decoder_with_more_layers_than_it_says_is_not_converted(decoders: dict[str, str], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(decoders["smollm2"], tmp_path / "decoder"))
    fewer_layers(folder)
    with pytest.raises(ValueError, match="does not use.*fewer layers"):
        convert(str(folder), "prompteol")
    shutil.copytree(decoders["smollm2"], folder, dirs_exist_ok=True)
    larger_tokenizer(folder)
    with pytest.raises(ValueError, match="no embedding for"):
        convert(str(folder), "prompteol")
    model, tokenizer = AutoModel.from_pretrained(decoders["smollm2"]), AutoTokenizer.from_pretrained(folder)
    with pytest.raises(ValueError, match="no embedding for"):
        convert(model, "prompteol", tokenizer=tokenizer)


def test_families_that_store_other_names_load_again(tiny: Callable[..., str], tmp_path: Path) -> None:
    """Transformers splits the experts of a layer when it saves them."""
    encoder = convert(tiny("mixtral"), "prompteol")
    encoder.save_pretrained(str(tmp_path / "saved"))
    stored = load_file(tmp_path / "saved" / "model.safetensors")
    assert set(stored) != set(encoder[0].model.state_dict())
    assert cosine_distance(load(tmp_path / "saved", verify=True).encode(TEXTS), encoder.encode(TEXTS)) < 1e-6
    del stored[next(name for name in stored if "experts.1." in name)]
    save_file(stored, tmp_path / "saved" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError):
        load(tmp_path / "saved")


def flip(path: Path, byte: int) -> None:
    with path.open("r+b") as file:
        file.seek(byte)
        old = file.read(1)[0]
        file.seek(byte)
        file.write(bytes([old ^ 1]))


@pytest.mark.promise(Promise.NO_CODE_RUNS)
def test_one_flipped_bit_is_found_wherever_it_is(
    copied: Callable[[str], Path], record_property: Callable[[str, object], None]
) -> None:
    folder = copied("llm2vec")
    load(folder, verify=True)
    covered = set(json.loads((folder / "st_llm2vec.json").read_text())["checksums"])
    assert {file.relative_to(folder).as_posix() for file in folder.rglob("*.safetensors")} < covered
    files = sorted(name for name in covered if name.endswith(("safetensors", "tokenizer.json")))
    record_property("cases", 3 * len(files))
    for name in files:
        size = (folder / name).stat().st_size
        for byte in (0, size // 3, size - 1):
            flip(folder / name, byte)
            with pytest.raises(ValueError, match=f"{name} of .* is not the file that was saved: its sha256"):
                load(folder, verify=True)
            flip(folder / name, byte)
    load(folder, verify=True)
    flip(folder / "model.safetensors", 20_000)
    load(folder)
    with pytest.raises(ValueError, match="is not the file that was saved"):
        publish(folder, "org/name", dry_run=True)


EDITS: dict[str, dict[str, Any]] = {
    "config.json": {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    "tokenizer_config.json": {"model_max_length": 77},
    "sentence_bert_config.json": {"max_seq_length": 32},
    "config_sentence_transformers.json": {"default_prompt_name": "query"},
    "1_Pooling/config.json": {"include_prompt": False},
}


@pytest.mark.promise(Promise.NO_CODE_RUNS)
@pytest.mark.parametrize("file", EDITS)
def test_an_edited_setting_that_decides_a_vector_is_found(copied: Callable[[str], Path], file: str) -> None:
    folder = copied("prompteol")
    edit(folder / file, lambda settings: settings.update(EDITS[file]))
    with pytest.raises(ValueError, match=f"^{file} of .* is not the file that was saved.*load it without verify"):
        load(folder, verify=True)
    with pytest.raises(ValueError, match=f"^{file} of .* is not the file that was saved"):
        publish(folder, "org/name", dry_run=True)
    before = {one: sha256(folder / one) for one in ("model.safetensors", "tokenizer.json")}
    edit(folder / "st_llm2vec.json", lambda data: data.update(checksums=before))
    load(folder, verify=True)  # as the version before saved it


def test_shards_adapters_and_strangers_are_verified(decoders: dict[str, str], tmp_path: Path) -> None:
    from peft import LoraConfig

    encoder = convert(decoders["smollm2"], "prompteol")
    model: Any = encoder[0].model
    whole, model.save_pretrained = (
        model.save_pretrained,
        lambda *args, **kwargs: whole(*args, max_shard_size="100KB", **kwargs),
    )
    encoder.save_pretrained(str(tmp_path / "shards"))
    shards = sorted((tmp_path / "shards").glob("model-*.safetensors"))
    assert len(shards) > 2
    load(tmp_path / "shards", verify=True)
    flip(shards[1], shards[1].stat().st_size - 1)
    with pytest.raises(ValueError, match=f"{shards[1].name} of .* is not the file"):
        load(tmp_path / "shards", verify=True)
    shards[1].unlink()
    with pytest.raises(ValueError, match=f"lacks 1 of its {len(shards)} shards .*{shards[1].name}"):
        load(tmp_path / "shards")

    encoder = convert(decoders["smollm2"], "prompteol")
    encoder.add_adapter(LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    encoder.save_pretrained(str(tmp_path / "adapter"))
    load(tmp_path / "adapter", verify=True)
    flip(tmp_path / "adapter" / "adapter_model.safetensors", 2000)
    with pytest.raises(ValueError, match="adapter_model.safetensors of .* is not the file"):
        load(tmp_path / "adapter", verify=True)
    shutil.copy(shards[0], tmp_path / "adapter" / "model.safetensors")
    with pytest.raises(ValueError, match="holds model.safetensors, which was not saved with it"):
        load(tmp_path / "adapter", verify=True)


@pytest.mark.parametrize("cached", [False, True])
def test_an_adapters_base_is_held_as_a_whole_model_is(decoders: dict[str, str], tmp_path: Path, cached: bool) -> None:
    from peft import LoraConfig

    base, folder = tmp_path / "models--org--base" / "snapshots" / "1234", tmp_path / "adapter"
    shutil.copytree(decoders["smollm2"], base)
    (base.parents[1] / "refs").mkdir()
    (base.parents[1] / "refs" / "main").write_text("1234")
    encoder = convert(str(base), "prompteol")
    encoder.add_adapter(LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    encoder.save_pretrained(str(folder))
    name = "org/base" if cached else str(base)
    edit(folder / "adapter_config.json", lambda config: config.update(base_model_name_or_path=name))
    options: dict[str, Any] = {"cache_folder": str(tmp_path), "local_files_only": True}
    for dtype in (None, "float16", "float32"):
        assert cosine_distance(load(folder, dtype=dtype, **options).encode(TEXTS), encoder.encode(TEXTS)) < 1e-2
    whole = load_file(base / "model.safetensors")
    save_file(
        {key: one for key, one in whole.items() if "layers.1.mlp" not in key},
        base / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(ValueError, match=f"{name}, the base of the adapter in .*adapter, lacks 3 of .*would be random"):
        load(folder, **options)
    save_file({key: one + 0.01 for key, one in whole.items()}, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=f"saved on other weights than its base {name} holds now"):
        load(folder, **options)
    edit(folder / "st_llm2vec.json", lambda data: {key: one for key, one in data.items() if key != "adapter_base"})
    load(folder, **options)


def test_folders_of_the_version_before_load_and_have_no_checksum(copied: Callable[[str], Path]) -> None:
    folder = copied("llm2vec")
    edit(folder / "st_llm2vec.json", lambda data: {key: one for key, one in data.items() if key != "checksums"})
    load(folder)
    load(folder, verify=None)
    with pytest.raises(ValueError, match="has no checksums to verify it by"):
        load(folder, verify=True)


def test_an_encoder_that_is_not_what_its_manifest_says_is_not_saved(saved: dict[str, Path], tmp_path: Path) -> None:
    encoder = load(saved["prompteol"])
    encoder[1].pooling_mode = "mean"
    with pytest.raises(ValueError, match="pooling should be 'lasttoken'.*encoder.manifest = None"):
        encoder.save_pretrained(str(tmp_path / "mine"))
    assert not (tmp_path / "mine").exists()
    encoder.manifest = None
    encoder.save_pretrained(str(tmp_path / "mine"))
    assert load(tmp_path / "mine")[1].pooling_mode == "mean"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_named(decoders: dict[str, str], tmp_path: Path, value: float) -> None:
    """Not the attention, which a probe would blame."""
    encoder = convert(decoders["smollm2"], "prompteol")
    encoder.save_pretrained(str(tmp_path / "good"))
    with torch.no_grad():
        encoder[0].model.layers[1].mlp.up_proj.weight[3, 5] = value
    named = r"not finite \((0\.model\.)?layers\.1\.mlp\.up_proj\.weight\)"
    with pytest.raises(ValueError, match=named):
        encoder.save_pretrained(str(tmp_path / "bad"))
    assert not (tmp_path / "bad").exists()
    with pytest.raises(ValueError, match=named):
        publish(encoder, "org/name", dry_run=True)
    with pytest.raises(ValueError, match=named):
        convert(encoder[0].model, "llm2vec", tokenizer=encoder.tokenizer)
    for folder, opened in ((tmp_path / "good", load), (Path(decoders["smollm2"]), convert)):
        bad = Path(shutil.copytree(folder, tmp_path / f"{folder.name}-bad"))
        weights = load_file(bad / "model.safetensors")
        next(one for name, one in weights.items() if "layers.1.mlp.up_proj" in name)[3, 5] = value
        save_file(weights, bad / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match=named):
            opened(str(bad))
    with pytest.raises(ValueError, match=named):
        TextEncoder(str(tmp_path / "good-bad"))


ROOT_FILES = [
    "modules.json",
    "config_sentence_transformers.json",
    "config.json",
    "sentence_bert_config.json",
    "tokenizer_config.json",
    "st_llm2vec.json",
    "adapter_config.json",
    "model.safetensors.index.json",
    "1_Pooling/config.json",
]


@pytest.mark.promise(Promise.NO_CODE_RUNS)
@pytest.mark.parametrize("file", ROOT_FILES)
def test_json_of_the_wrong_shape_is_named(copied: Callable[[str], Path], file: str) -> None:
    folder = copied("prompteol")
    for text in ("[1]", '"text"', "5", "null", "{", '{"a": \xff}'):
        (folder / file).write_bytes(text.encode("latin-1"))
        with pytest.raises(ValueError, match=file):
            load(folder)


FIELDS: list[tuple[str, dict[str, Any]]] = [
    ("config.json", {"model_type": ["llama"]}),
    ("config.json", {"hidden_size": "wide"}),
    ("config.json", {"num_hidden_layers": None}),
    ("config.json", {"rope_parameters": [1]}),
    ("config_sentence_transformers.json", {"prompts": ["query"]}),
    ("config_sentence_transformers.json", {"prompts": {"query": 5}}),
    ("config_sentence_transformers.json", {"truncate_dim": "8"}),
    ("config_sentence_transformers.json", {"requirements": {"transformers": ">=5"}}),
    ("sentence_bert_config.json", {"max_seq_length": "long"}),
    ("sentence_bert_config.json", {"max_seq_length": True}),
    ("sentence_bert_config.json", {"modality_config": "text"}),
    ("sentence_bert_config.json", {"modality_config": {"text": 5}}),
    ("sentence_bert_config.json", {"modality_config": {}}),
    ("sentence_bert_config.json", {"processing_kwargs": 5}),
    ("tokenizer_config.json", {"tokenizer_class": 5}),
    ("tokenizer_config.json", {"added_tokens_decoder": [1]}),
    ("tokenizer_config.json", {"added_tokens_decoder": {"x": 5}}),
    ("tokenizer_config.json", {"model_max_length": "many"}),
    ("1_Pooling/config.json", {"pooling_mode": "median"}),
    ("1_Pooling/config.json", {"pooling_mode": 5}),
    ("1_Pooling/config.json", {"unknown": 5}),
    ("st_llm2vec.json", {"config": "llm2vec"}),
    ("st_llm2vec.json", {"stages": "mntp"}),
    ("st_llm2vec.json", {"base": "decoder"}),
    ("st_llm2vec.json", {"checksums": ["a"]}),
    ("st_llm2vec.json", {"checksums": {"a": 5}}),
    ("st_llm2vec.json", {"layout": 5}),
]


@pytest.mark.promise(Promise.NO_CODE_RUNS)
@pytest.mark.parametrize(("file", "fields"), FIELDS, ids=lambda one: str(one)[:60])
def test_fields_of_the_wrong_shape_are_named(copied: Callable[[str], Path], file: str, fields: dict[str, Any]) -> None:
    folder = copied("prompteol")
    edit(folder / file, lambda data: data.update(fields))
    with pytest.raises(ValueError, match=file):
        load(folder)


@pytest.mark.promise(Promise.NO_CODE_RUNS)
@pytest.mark.parametrize("entry", ["../elsewhere", "/elsewhere", 5, None])
def test_modules_stay_in_the_folder(copied: Callable[[str], Path], entry: Any) -> None:
    folder = copied("prompteol")

    def change(entries: list[dict]) -> None:
        entries[1]["path"] = entry

    edit(folder / "modules.json", change)
    with pytest.raises(ValueError, match="modules.json"):
        load(folder)


def test_an_encoder_begins_with_a_transformer(copied: Callable[[str], Path]) -> None:
    folder = copied("prompteol")
    edit(folder / "modules.json", lambda entries: entries[1:])
    with pytest.raises(ValueError, match="modules.json .* not with a Transformer"):
        load(folder)
    (folder / "modules.json").write_text("[]")
    with pytest.raises(ValueError, match="modules.json"):
        load(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "model.safetensors.index.json"])
def test_json_of_a_decoder_is_named_too(decoders: dict[str, str], tmp_path: Path, file: str) -> None:
    folder = Path(shutil.copytree(decoders["smollm2"], tmp_path / "decoder"))
    for text in ("[1]", '"text"', "5", "null", "{", '{"tokenizer_class": 5, "model_type": 5, "weight_map": 5}'):
        (folder / file).write_text(text)
        with pytest.raises(ValueError, match=file):
            convert(str(folder), "prompteol")


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_git_lfs_pointer_is_called_by_its_name(
    copied: Callable[[str], Path], decoders: dict[str, str], tmp_path: Path, file: str
) -> None:
    pointer = POINTER + b"v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
    encoder, plain = copied("prompteol"), Path(shutil.copytree(decoders["smollm2"], tmp_path / "decoder"))
    for folder, opened in ((encoder, load), (plain, convert)):
        (folder / file).write_bytes(pointer)
        with pytest.raises(ValueError, match=f"{file} of .* is a git-lfs pointer.*git lfs pull"):
            opened(str(folder))


def test_a_pointer_in_a_modules_folder_is_told_apart_from_its_settings(decoder: str, tmp_path: Path) -> None:
    latent = {"num_latents": 8, "num_heads": 2, "head_dimension": 16}
    convert(decoder, "nv-embed", latent_attention=latent).save_pretrained(str(tmp_path / "encoder"))
    for file in ("1_LatentAttentionPooling/model.safetensors", "1_LatentAttentionPooling/config.json"):
        folder = Path(shutil.copytree(tmp_path / "encoder", tmp_path / "copy", dirs_exist_ok=True))
        (folder / file).write_bytes(POINTER + b"v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n")
        with pytest.raises(ValueError, match=f"^{file} of .* is a git-lfs pointer"):
            load(folder)


def test_load_takes_what_sentence_transformers_takes(saved: dict[str, Path]) -> None:
    folder = saved["llm2vec"]
    whole = load(folder, dtype="float32")
    texts = TEXTS[:2]
    encoder = load(
        folder,
        model_kwargs={"torch_dtype": torch.float32, "attn_implementation": "eager"},
        tokenizer_kwargs={"padding_side": "right"},
        config_kwargs={"attention_dropout": 0.25},
        prompts={"query": INSTRUCTION},
        default_prompt_name="query",
        similarity_fn_name="dot",
        truncate_dim=8,
    )
    assert encoder.dtype == torch.float32
    assert encoder[0].model.config.attention_dropout == 0.25
    assert encoder.tokenizer.padding_side == "right"
    assert encoder.similarity_fn_name == "dot"
    assert encoder.encode(texts).shape == (2, 8)
    expected = whole.encode(texts, prompt=INSTRUCTION)[:, :8]
    np.testing.assert_allclose(encoder.encode(texts), expected, atol=1e-5)
    assert encoder.prompts["document"] == whole.prompts["document"]


def test_load_has_every_argument_of_sentence_transformers() -> None:
    """But for the place, which has another name, modules, which come from the folder, and the old name of token."""
    theirs = set(inspect.signature(SentenceTransformer.__init__).parameters)
    left_out = {"self", "model_name_or_path", "modules", "use_auth_token"}
    assert theirs - set(inspect.signature(load).parameters) == left_out


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"trust_remote_code": True}, "never run here"),
    ({"model_kwargs": {"trust_remote_code": True}}, "never run here"),
    ({"backend": "onnx"}, "The backend 'onnx' does not keep"),
    ({"truncate_dim": 5000}, "truncate_dim=5000 must be a number of dimensions from 1 to"),
    ({"truncate_dim": 0}, "truncate_dim=0 must be"),
    ({"model_kwargs": {"device_map": "auto"}}, "leave device_map out"),
    ({"default_prompt_name": "nowhere"}, "'nowhere' not found"),
    ({"model_kwargs": {"nonsense": 5}}, "could not be loaded.*nonsense"),
    ({"config_kwargs": {"num_hidden_layers": 1}}, "does not use"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=lambda one: str(one)[:40])
def test_load_refuses_what_it_cannot_do(saved: dict[str, Path], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(saved["prompteol"], **arguments)


def test_a_folder_is_whole_after_saving_what_was_loaded(saved: dict[str, Path], tmp_path: Path) -> None:
    for recipe, folder in saved.items():
        encoder: TextEncoder = load(folder, verify=True)
        encoder.save_pretrained(str(tmp_path / recipe))
        again = load(tmp_path / recipe, verify=True)
        assert again.manifest.checksums.keys() == encoder.manifest.checksums.keys()


def test_a_formatters_reader_loads_with_a_decoders_chat_template(tmp_path: Path) -> None:
    decoder = stand_in("smollm2", tmp_path, torch.float32, max_position_embeddings=256)
    recipe = get_recipe("llm2vec")
    reader = BidirectionalTransformer(decoder, attention=recipe.attention, formatter=recipe.formatter_config())
    assert reader.tokenizer.chat_template
    pooling = Pooling(reader.get_embedding_dimension(), pooling_mode="max")
    encoder = TextEncoder(modules=[reader, pooling], device="cpu")
    encoder.save_pretrained(str(tmp_path / "own"))
    again = TextEncoder(str(tmp_path / "own"), device="cpu", trust_remote_code=True)
    assert cosine_distance(again.encode(TEXTS), encoder.encode(TEXTS)) < 1e-6
