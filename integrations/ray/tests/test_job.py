from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import ray._private.state
import torch

from st_llm2vec import convert, decoder_path
from st_llm2vec.corpus import EmbeddingSettings, embed_corpus, open_corpus, read_embeddings
from st_llm2vec_ray import embed_corpus_on_ray
from st_llm2vec_ray.script import main

ROWS, SHARD = 420, 32


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """A local Ray with room for two actors, and no network."""
    os.environ.setdefault("RAY_worker_niceness", "0")  # on a busy machine, Ray's polite workers would wait for minutes
    package = str(Path(__file__).parents[3])
    paths = [package, str(Path(__file__).parents[1] / "src"), os.environ.get("PYTHONPATH", "")]
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        logging_level="error",
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}},
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("encoder") / "encoder"
    convert(decoder_path(), "llm2vec", prompts={"document": "A passage:"}, max_length=64).save(str(folder))
    return str(folder)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    with path.open("w") as file:
        for number in range(ROWS):
            text = None if number % 41 == 3 else f"Ship {number} left the harbour. " * (1 + number % 5)
            file.write(json.dumps({"text": text, "name": f"n{number}"}) + "\n")
    return path


@pytest.fixture(scope="module")
def alone(encoder: str, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one machine writes."""
    output = tmp_path_factory.mktemp("alone") / "output"
    embed_corpus(open_corpus([corpus], id_column="name"), output, settings(encoder))
    return output


def settings(encoder: str, **options: Any) -> EmbeddingSettings:
    return EmbeddingSettings(encoder, **{"shard_rows": SHARD, "batch_size": 8, **options})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def gathered(folder: Path) -> tuple[list[Any], torch.Tensor]:
    shards = list(read_embeddings(folder))
    return [one for ids, _ in shards for one in ids], torch.cat([vectors for _, vectors in shards])


def actor_processes() -> list[int]:
    """The processes of this Ray's actors that hold an encoder."""
    actors = ray._private.state.actors().values()
    return [one["Pid"] for one in actors if "EmbedShards" in one["ActorClassName"] and one["State"] == "ALIVE"]


def test_vectors_and_folder_are_those_of_one_machine(encoder: str, corpus: Path, alone: Path, tmp_path: Path) -> None:
    source = open_corpus([corpus], id_column="name")
    summary = embed_corpus_on_ray(source, tmp_path / "o", settings(encoder), actors=2)
    ids, vectors = gathered(tmp_path / "o")
    expected_ids, expected = gathered(alone)
    assert ids == expected_ids == [f"n{number}" for number in range(ROWS) if number % 41 != 3]
    assert torch.allclose(vectors, expected, atol=1e-6)
    assert contents(tmp_path / "o").keys() == contents(alone).keys()
    assert summary == json.loads((alone / "embeddings.json").read_text())["summary"]


def test_an_actor_killed_in_the_middle_loses_nothing(encoder: str, corpus: Path, alone: Path, tmp_path: Path) -> None:
    """One of two actors is killed as soon as there is a shard."""
    output, killed = tmp_path / "o", []

    def kill() -> None:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and not killed:
            if next(output.glob("shards/*.parquet"), None) and (actors := actor_processes()):
                os.kill(actors[0], signal.SIGKILL)
                killed.append(actors[0])
            time.sleep(0.001)

    killer = threading.Thread(target=kill)
    killer.start()
    source = open_corpus([corpus], id_column="name")
    summary = embed_corpus_on_ray(source, output, settings(encoder, shard_rows=7, batch_size=1), actors=2)
    made = len(list(output.glob("shards/*.parquet")))
    killer.join()
    assert killed, "no actor was found, so none was killed"
    assert made == summary["shards"] == 60
    assert gathered(output)[0] == gathered(alone)[0]
    assert torch.allclose(gathered(output)[1], gathered(alone)[1], atol=1e-6)
    assert summary["rows"] == ROWS and not list(output.rglob("*.part"))


def test_one_machine_goes_on_with_what_ray_began_and_the_other_way_round(
    encoder: str, corpus: Path, alone: Path, tmp_path: Path
) -> None:
    output = tmp_path / "o"
    source = open_corpus([corpus], id_column="name")
    embed_corpus_on_ray(source, output, settings(encoder, precision="int8", calibration_rows=50))
    for shard in (1, 5):
        (output / "shards" / f"{shard:05d}.parquet").unlink()
    embed_corpus(source, output, settings(encoder, precision="int8", calibration_rows=50))
    whole = gathered(output)
    (output / "shards" / "00002.parquet").unlink()
    embed_corpus_on_ray(source, output, settings(encoder, precision="int8", calibration_rows=50))
    again = gathered(output)
    assert again[0] == whole[0] and (again[1].int() - whole[1].int()).abs().max() <= 1


def test_the_script(encoder: str, corpus: Path, alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = [encoder, "--input", str(corpus), "--id-column", "name", "--output", str(tmp_path / "o")]
    arguments += ["--shard-rows", str(SHARD), "--batch-size", "8", "--actors", "1,2"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out.splitlines()[-1])["rows"] == ROWS
    assert "tokens/s" in printed.err
    assert torch.allclose(gathered(tmp_path / "o")[1], gathered(alone)[1], atol=1e-6)


def test_errors_are_sentences(
    encoder: str, corpus: Path, alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["no/such/encoder/here", "--input", str(corpus), "--output", str(tmp_path / "o")]) == 1
    assert "There is no folder no/such/encoder/here" in capsys.readouterr().err
    assert main([encoder, "--input", str(tmp_path / "no"), "--output", str(tmp_path / "o")]) == 1
    assert "There is no file" in capsys.readouterr().err
    with pytest.raises(ValueError, match="holds the embeddings of another job"):
        embed_corpus_on_ray(open_corpus([corpus], id_column="name"), alone, settings(encoder, truncate_dim=8))


def test_the_readmes_snippet(
    encoder: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (tmp_path / "my-encoder").symlink_to(encoder)
    (tmp_path / "corpus.jsonl").symlink_to(corpus)
    monkeypatch.chdir(tmp_path)
    exec(compile(re.search(r"```python\n(.*?)```", readme, re.DOTALL).group(1), "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("n0 (")
