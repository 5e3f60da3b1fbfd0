"""Folders that lie: no code of theirs runs, nothing hangs or eats the memory, and a sentence says why they are refused."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from st_llm2vec import convert, load

from ..conftest import TEXTS, but_first, cosine_distance
from ..promises import Promise

pytestmark = pytest.mark.promise(Promise.NO_CODE_RUNS)

CODE = "from pathlib import Path; Path({mark!r}).write_text('this was run')\n"
ESCAPE = (
    "{{% for c in ''.__class__.__mro__[1].__subclasses__() %}}{{% if c.__name__ == 'Popen' %}}"
    "{{{{ c(['touch', {mark!r}]) }}}}{{% endif %}}{{% endfor %}}"
)


class Runs:
    """A pickle that runs code when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def edit(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def pickled(name: str) -> Callable[[Path, Path], None]:
    def make(folder: Path, mark: Path) -> None:
        for file in folder.glob("*.safetensors"):
            file.unlink()
        (folder / name).write_bytes(pickle.dumps(Runs(mark)))

    return make


def pickled_by_torch(folder: Path, mark: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Runs(mark)}, folder / "pytorch_model.bin")


def pickle_beside(name: str) -> Callable[[Path, Path], None]:
    def make(folder: Path, mark: Path) -> None:
        (folder / name).write_bytes(pickle.dumps(Runs(mark)))

    return make


def pickled_index(folder: Path, mark: Path) -> None:
    names = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model-00001-of-00001.bin").write_bytes(pickle.dumps(Runs(mark)))
    index = {"weight_map": dict.fromkeys(names, "pytorch_model-00001-of-00001.bin")}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def pickle_as_safetensors(folder: Path, mark: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps(Runs(mark)))


def remote_code(file: str, key: str) -> Callable[[Path, Path], None]:
    def make(folder: Path, mark: Path) -> None:
        (folder / "evil.py").write_text(CODE.format(mark=str(mark)) + "class Evil: pass\n")
        if (folder / file).is_file():
            edit(folder / file, auto_map={key: "evil.Evil"})

    return make


def unknown_model_type(folder: Path, mark: Path) -> None:
    remote_code("config.json", "AutoConfig")(folder, mark)
    edit(folder / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"})


def foreign_module(name: str) -> Callable[[Path, Path], None]:
    def make(folder: Path, mark: Path) -> None:
        for file in ("evil.py", "st_llm2vec_modules.py"):
            (folder / file).write_text(CODE.format(mark=str(mark)) + "class Evil: pass\n")
        if (folder / "modules.json").is_file():
            modules = json.loads((folder / "modules.json").read_text())
            modules[0]["type"] = name
            (folder / "modules.json").write_text(json.dumps(modules))

    return make


def trusting_settings(folder: Path, mark: Path) -> None:
    unknown_model_type(folder, mark)
    file = folder / "sentence_bert_config.json"
    if file.is_file():
        trust = {"trust_remote_code": True}
        edit(file, model_kwargs=trust, processor_kwargs=trust, config_kwargs=trust)


def chat_template(folder: Path, mark: Path) -> None:
    (folder / "chat_template.jinja").write_text(ESCAPE.format(mark=str(mark)))
    edit(folder / "tokenizer_config.json", chat_template=ESCAPE.format(mark=str(mark)))


def code_beside(folder: Path, mark: Path) -> None:
    for name in ("__init__.py", "conftest.py", "sitecustomize.py", "modeling_llama.py", "custom_generate/generate.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(CODE.format(mark=str(mark)))


HOSTILE: dict[str, Callable[[Path, Path], None]] = {
    "pytorch_model.bin": pickled("pytorch_model.bin"),
    "pytorch_model.bin by PyTorch": pickled_by_torch,
    "model.pt": pickled("model.pt"),
    "adapter_model.bin": pickled("adapter_model.bin"),
    "shards of pickles": pickled_index,
    "a pickle named safetensors": pickle_as_safetensors,
    **{
        f"{name} beside": pickle_beside(name)
        for name in (
            "training_args.bin",
            "optimizer.pt",
            "scheduler.pt",
            "rng_state.pth",
            "pytorch_model.bin",
            "tokenizer.pkl",
        )
    },
    "remote configuration": remote_code("config.json", "AutoConfig"),
    "remote model": remote_code("config.json", "AutoModel"),
    "remote tokenizer": remote_code("tokenizer_config.json", "AutoTokenizer"),
    "an unknown kind of model": unknown_model_type,
    "a module file": foreign_module("evil.Evil"),
    "our module file": foreign_module("st_llm2vec_modules.Evil"),
    "a module of Python": foreign_module("subprocess.Popen"),
    "a function of the host": foreign_module("sentence_transformers.util.import_from_string"),
    "settings that trust": trusting_settings,
    "a template that climbs out": chat_template,
    "code beside": code_beside,
}


@pytest.fixture(scope="module")
def saved(decoder: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A decoder, and an encoder in each layout."""
    folder = tmp_path_factory.mktemp("saved")
    shutil.copytree(decoder, folder / "decoder")
    for recipe in ("llm2vec", "e5-mistral", "echo"):
        convert(decoder, recipe, max_length=64).save_pretrained(str(folder / recipe))
    return {one.name: one for one in folder.iterdir()}


def read(folder: Path) -> Any:
    return load(folder) if (folder / "modules.json").is_file() else convert(folder, "llm2vec")


@pytest.mark.parametrize("kind", but_first(["llm2vec", "echo", "decoder", "e5-mistral"], fast=2))
@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_code_of_a_folder_runs(saved: dict[str, Path], tmp_path: Path, kind: str, hostile: str) -> None:
    folder, mark = tmp_path / "folder", tmp_path / "mark"
    shutil.copytree(saved[kind], folder)
    HOSTILE[hostile](folder, mark)
    expected = read(saved[kind]).encode(TEXTS[:1]) if hostile.endswith("beside") else None
    try:
        encoder = read(folder)
    except ValueError as error:
        assert len(str(error)) < 1500
    else:
        vectors = encoder.encode(TEXTS[:1])
        assert expected is None or cosine_distance(vectors, expected) < 1e-6
    assert not mark.exists()


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        ("config.json", {"attn_implementation": "evil/kernel"}, "a kernel on the Hub"),
        ("config.json", {"text_config": {"_attn_implementation": "evil/kernel:run"}}, "a kernel on the Hub"),
        ("sentence_bert_config.json", {"model_kwargs": {"attn_implementation": "evil/kernel"}}, "a kernel on the Hub"),
        (
            "sentence_bert_config.json",
            {"model_kwargs": {"allow_all_kernels": True}},
            "'allow_all_kernels' among its model",
        ),
        (
            "sentence_bert_config.json",
            {"processing_kwargs": {"chat_template": {"chat_template": "{{ 1 }}"}}},
            "template",
        ),
    ],
)
def test_settings_that_fetch_code_are_refused(
    saved: dict[str, Path], tmp_path: Path, file: str, changes: dict[str, Any], said: str
) -> None:
    shutil.copytree(saved["llm2vec"], tmp_path / "folder")
    edit(tmp_path / "folder" / file, **changes)
    with pytest.raises(ValueError, match=said):
        read(tmp_path / "folder")


def test_they_are_refused_in_a_module_s_own_folder_too(saved: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(saved["llm2vec"], folder)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "0_Transformer").mkdir()
    for file in [one for one in folder.iterdir() if one.is_file() and one.name != "modules.json"]:
        shutil.copy(file, folder / "0_Transformer" / file.name)
    edit(folder / "0_Transformer" / "sentence_bert_config.json", model_kwargs={"allow_all_kernels": True})
    with pytest.raises(ValueError, match="0_Transformer/sentence_bert_config.json of .* 'allow_all_kernels' among"):
        read(folder)


@pytest.mark.parametrize("kind", ["decoder", "llm2vec"])
def test_pickled_weights_are_refused(saved: dict[str, Path], tmp_path: Path, kind: str) -> None:
    from transformers import AutoModel

    shutil.copytree(saved[kind], tmp_path / "folder")
    weights = AutoModel.from_pretrained(saved[kind]).state_dict()
    (tmp_path / "folder" / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "folder" / "pytorch_model.bin")
    with pytest.raises(ValueError, match="only as a pickle .pytorch_model.bin.*could run code.*safetensors"):
        read(tmp_path / "folder")


@pytest.mark.parametrize("kind", ["decoder", "llm2vec"])
@pytest.mark.parametrize("shard", ["../outside.safetensors", "/etc/passwd", "sub/../../outside.safetensors"])
def test_an_index_names_files_of_the_folder_only(saved: dict[str, Path], tmp_path: Path, kind: str, shard: str) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(saved[kind], folder)
    (folder / "sub").mkdir()
    os.replace(folder / "model.safetensors", tmp_path / "outside.safetensors")
    names = load_file(tmp_path / "outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(names, shard)}))
    with pytest.raises(ValueError, match="names .* which leads out of the folder|is no file of it"):
        read(folder)


@pytest.mark.parametrize("kind", but_first(["llm2vec", "decoder"]))
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
@pytest.mark.parametrize("what", ["pipe", "device", "link"])
def test_what_is_no_file_of_the_folder_is_not_read(
    saved: dict[str, Path], tmp_path: Path, kind: str, name: str, what: str
) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(saved[kind], folder)
    os.replace(folder / name, tmp_path / "outside")
    if what == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to("/dev/zero" if what == "device" else tmp_path / "outside")
    said = (
        "is a link that leads out of the folder"
        if what == "link"
        else "(is no file but a pipe, a socket or a device|has no config)"
    )
    with pytest.raises(ValueError, match=f"{said}"):
        read(folder)


def test_links_of_the_cache_and_within_the_folder_are_followed(saved: dict[str, Path], tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "123", tmp_path / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    shutil.copytree(saved["llm2vec"], snapshot)
    for number, file in enumerate(sorted(snapshot.glob("*.*"))):
        os.replace(file, blobs / str(number))
        file.symlink_to(Path("../../blobs") / str(number))
    assert cosine_distance(load(snapshot).encode(TEXTS), load(saved["llm2vec"]).encode(TEXTS)) < 1e-6


@pytest.mark.parametrize("kind", ["decoder", "llm2vec", "echo"])
def test_a_million_layers_are_not_built(saved: dict[str, Path], tmp_path: Path, kind: str) -> None:
    shutil.copytree(saved[kind], tmp_path / "folder")
    edit(tmp_path / "folder" / "config.json", num_hidden_layers=1_000_000)
    began, memory = time.monotonic(), psutil.Process().memory_info().rss
    with pytest.raises(ValueError, match="declares 1,000,000 layers, and its files hold .* tensors"):
        read(tmp_path / "folder")
    assert time.monotonic() - began < 5 and psutil.Process().memory_info().rss - memory < 2e8


@pytest.mark.parametrize(
    "bomb",
    [
        "{{ 'a' * 10**9 }}",
        "{% for a in range(100000) %}{% for b in range(100000) %}a{% endfor %}{% endfor %}",
        "{{- turn.text | replace('a', 'aaaaaaaaaa') | replace('a', 'aaaaaaaaaa') -}}",
        "{%- set turn.text = turn.text ~ turn.text -%}{{- turn.text -}}",
    ],
)
@pytest.mark.parametrize("ours", [True, False])
def test_a_template_that_prints_without_end_is_not_rendered(
    saved: dict[str, Path], tmp_path: Path, bomb: str, ours: bool
) -> None:
    from st_llm2vec.layouts.message import READS_MESSAGES

    folder = tmp_path / "folder"
    shutil.copytree(saved["e5-mistral"], folder)
    for file in folder.glob("*.jinja"):
        file.unlink()
    edit(folder / "tokenizer_config.json", chat_template=(READS_MESSAGES if ours else "") + bomb)
    for manifest in (True, False):
        if not manifest:
            (folder / "st_llm2vec.json").unlink()
        began = time.monotonic()
        with pytest.raises(ValueError, match="chat template .* is not one that this package writes"):
            load(folder)
        assert time.monotonic() - began < 5
