from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
from datasets import Dataset
from safetensors.numpy import load_file
from sentence_transformers import SentenceTransformer
from transformers.utils import logging as transformers_logging
from typer.testing import CliRunner, Result

from st_llm2vec import load
from st_llm2vec.cli import app
from st_llm2vec.recipe.config import RECIPES

PROMPT = "Find the passage that answers:"
TEXTS = [f"The {thing} stood in the garden." for thing in ("oak", "table", "dog", "", "old well", "lamp")] * 7


def run(*arguments: object, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


def succeed(*arguments: object, stdin: str | bytes | None = None) -> Result:
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.stderr
    return result


@pytest.fixture(autouse=True)
def loud_again() -> Iterator[None]:
    """The command line silences libraries for good; other tests want to hear them."""
    logger, verbosity = logging.getLogger("sentence_transformers"), transformers_logging.get_verbosity()
    level = logger.level
    yield
    logger.setLevel(level)
    transformers_logging.set_verbosity(verbosity)
    transformers_logging.enable_progress_bar()


@pytest.fixture(scope="module")
def folder(decoder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("cli") / "encoder"
    succeed("convert", decoder, "--output", folder, "--prompt", f"query={PROMPT}")
    return str(folder)


@pytest.fixture(scope="module")
def expected(folder: str) -> np.ndarray:
    return SentenceTransformer(folder).encode(TEXTS)


def close(first: np.ndarray, second: np.ndarray) -> bool:
    return first.shape == second.shape and bool(np.allclose(first, second, atol=1e-5))


def test_convert_prints_json_only(decoder: str, tmp_path: Path) -> None:
    result = succeed(
        "convert",
        decoder,
        "-o",
        tmp_path / "e",
        "-r",
        "sgpt",
        "--max-length",
        64,
        "--set",
        "normalize=false",
        "--prompt",
        "query=Find it:",
        "--json",
    )
    data = json.loads(result.stdout)
    assert (data["layout"], data["dimension"]) == ("text", 192)
    assert data["attention"]["kind"] == "causal"
    assert (data["config"]["max_length"], data["config"]["normalize"]) == (64, False)
    encoder = SentenceTransformer(data["output"])
    assert encoder.max_seq_length == 64
    assert encoder.prompts["query"].strip() == "Find it:"


def test_convert_tells_how_to_load(folder: str, decoder: str, tmp_path: Path) -> None:
    shown = succeed("convert", decoder, "-o", tmp_path / "portable").stdout.replace("\n", "")
    assert "portable" in shown and "SentenceTransformer(" in shown
    shown = succeed("convert", decoder, "-o", tmp_path / "custom", "-r", "echo").stdout.replace("\n", "")
    assert "custom" in shown and "st_llm2vec.load(" in shown


def test_convert_takes_a_recipe_file(decoder: str, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("base: sgpt\nmax_length: 32\n")
    data = json.loads(succeed("convert", decoder, "-o", tmp_path / "e", "-r", recipe, "--json").stdout)
    assert (data["config"]["name"], data["config"]["max_length"]) == ("mine", 32)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["-r", "llm2ve"], "did you mean 'llm2vec'?"),
        (["--set", "poling=mean"], "did you mean 'pooling'?"),
        (["--set", "pooling"], "is not of the form NAME=VALUE"),
        (["--set", "prompts=[1"], "the value is not YAML"),
        (["--set", "max_length=long"], "max_length='long' must be of type int | None, not str"),
        (["--set", "prompts=one", "--prompt", "query=two"], "do not fit the recipe 'llm2vec'"),
        (["-r", "prompteol", "--prompt", "query=Find it:"], "takes no instruction"),
        (["--dtype", "int8"], "--dtype int8 is not one of auto, float32, float16, bfloat16."),
        (["--max-length", "1000"], "longer than the context"),
    ],
)
def test_convert_refuses_in_a_sentence(decoder: str, tmp_path: Path, options: list[str], sentence: str) -> None:
    result = run("convert", decoder, "-o", tmp_path / "e", *options)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "e").exists()


def test_convert_does_not_overwrite_its_decoder(decoder: str, tmp_path: Path) -> None:
    copy = tmp_path / "decoder"
    shutil.copytree(decoder, copy)
    result = run("convert", copy, "-o", copy)
    assert result.exit_code == 1
    assert "is the decoder's own folder" in result.stderr
    assert not (copy / "modules.json").exists()


def test_convert_replaces_an_encoder_only_when_asked(decoder: str, tmp_path: Path) -> None:
    folder = tmp_path / "e"
    succeed("convert", decoder, "-o", folder, "-r", "sgpt")
    result = run("convert", decoder, "-o", folder, "-r", "mean")
    assert result.exit_code == 1
    assert "holds a model already" in result.stderr
    assert load(str(folder)).manifest.config.name == "sgpt"
    succeed("convert", decoder, "-o", folder, "-r", "mean", "--overwrite")
    assert load(str(folder)).manifest.config.name == "mean"


def test_debug_shows_the_error_itself(decoder: str, tmp_path: Path) -> None:
    result = run("--debug", "convert", decoder, "-o", tmp_path / "e", "-r", "nothing")
    assert isinstance(result.exception, ValueError)


def test_inspect(decoder: str) -> None:
    quietly = succeed("inspect", decoder, "--no-measure", "--json")
    data = json.loads(quietly.stdout)
    assert (data["model_type"], data["recommended"]) == ("llama", "llm2vec") and not quietly.stderr
    told = succeed("inspect", decoder, "--no-measure")
    assert f"Loading {decoder}" in told.stderr and f"Trying {len(RECIPES)} recipes" in told.stderr
    shown = told.stdout
    assert "1,463,232 parameters" in shown
    assert "Begin with llm2vec." in shown and "Train mntp, then simcse." in shown
    assert all(recipe in shown for recipe in RECIPES)


def test_inspect_shows_an_encoder(folder: str, decoder: str) -> None:
    shown = succeed("inspect", folder).stdout
    assert all(part in shown for part in ("llm2vec", "bidirectional", "192 dimensions", PROMPT.split()[0]))
    assert f"st-llm2vecserve{folder}" in "".join(shown.split())  # a long path is folded
    data = json.loads(succeed("inspect", folder, "--json").stdout)
    assert (data["recipe"], data["layout"], data["base"]["name"]) == ("llm2vec", "text", decoder)


def test_convert_says_in_a_sentence_that_vectors_are_poor(
    decoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("st_llm2vec.evaluation.untrained.sentence_score", lambda encoder: 5.0)
    result = succeed("convert", decoder, "-o", tmp_path / "poor", "--json")
    assert result.stderr.count("near-useless vectors before it is trained") == 1
    json.loads(result.stdout)


def test_the_shell_can_complete_commands() -> None:
    environment = {"_ST_LLM2VEC_COMPLETE": "complete_bash", "COMP_WORDS": "st-llm2vec in", "COMP_CWORD": "1"}
    result = CliRunner().invoke(app, [], prog_name="st-llm2vec", env=environment)
    assert result.stdout.split() == ["inspect"]
    assert "--install-completion" in CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).stdout


def test_import_names_the_mntp_adapter_beside_the_base() -> None:
    shown = " ".join(CliRunner().invoke(app, ["import", "--help"], env={"COLUMNS": "300"}).stdout.split())
    assert "which stands between --base and SOURCE" in shown and "give --mntp too" in shown


def test_a_gguf_file_is_not_called_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.gguf").write_bytes(b"no")
    for command in (["convert", "model.gguf", "-o", "e"], ["inspect", "model.gguf"]):
        assert "model.gguf does not begin as a GGUF file does" in run(*command).stderr
    assert "model.gguf is a GGUF file" in run("encode", "model.gguf", "a text").stderr
    assert "model.gguf is a GGUF file" in run("import", "model.gguf", "-o", "e").stderr
    train = run("train", "--model", "model.gguf", "-o", "run", "--texts", "texts.txt")
    assert "model.gguf does not begin as a GGUF file does" in train.stderr


def test_inspect_refuses_in_a_sentence(tmp_path: Path) -> None:
    result = run("inspect", tmp_path)
    assert result.exit_code == 1
    assert "has no config.json" in result.stderr


def test_recipes() -> None:
    data = json.loads(succeed("recipes", "--json").stdout)
    assert data["echo"] == RECIPES["echo"].to_dict()
    shown = succeed("recipes").stdout
    assert all(name in shown for name in RECIPES)
    assert "{bos}{text}{eos}" in shown


def test_encode_arguments(folder: str, expected: np.ndarray) -> None:
    data = json.loads(succeed("encode", folder, *TEXTS[:3], "--json").stdout)
    assert data["dimension"] == 192
    assert close(np.array(data["vectors"]), expected[:3])
    shown = succeed("encode", folder, *TEXTS[:3]).stdout
    assert "1.000" in shown and "--output" not in shown


def test_encode_lines_to_npy_in_several_chunks(folder: str, expected: np.ndarray, tmp_path: Path) -> None:
    lines = tmp_path / "texts.txt"
    lines.write_text("\n".join(TEXTS))
    shown = succeed("encode", folder, "-i", lines, "-o", tmp_path / "v.npy", "--batch-size", 1).stdout
    assert shown.startswith("42 vectors of 192 dimensions")
    vectors = np.load(tmp_path / "v.npy", mmap_mode="r")
    assert vectors.dtype == np.float32
    assert close(vectors, expected)


def test_a_text_that_cannot_be_read_is_named_by_its_row_in_the_file(folder: str, tmp_path: Path) -> None:
    lines = tmp_path / "texts.jsonl"
    lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*TEXTS, "half \ud800"]))
    done = run("encode", folder, "-i", lines, "-o", tmp_path / "v.npy", "--batch-size", 1)
    assert done.exit_code != 0
    assert f"Row {len(TEXTS)} of " in done.output and "not valid Unicode" in done.output


def test_empty_lines_are_rows(folder: str, tmp_path: Path) -> None:
    lines = tmp_path / "texts.txt"
    lines.write_bytes(b"one\r\n\r\nthree\r\n")
    succeed("encode", folder, "-i", lines, "-o", tmp_path / "v.npy")
    expected = SentenceTransformer(folder).encode(["one", "", "three"])
    assert close(np.load(tmp_path / "v.npy"), expected)


def test_encode_standard_input_to_safetensors(folder: str, expected: np.ndarray, tmp_path: Path) -> None:
    target = tmp_path / "new" / "v.safetensors"
    result = succeed("encode", folder, "-i", "-", "-o", target, "--json", stdin="\n".join(TEXTS) + "\n")
    assert json.loads(result.stdout) == {"output": str(target), "rows": len(TEXTS), "dimension": 192}
    assert close(load_file(target)["embeddings"], expected)


def test_encode_jsonl_to_parquet_and_again(folder: str, expected: np.ndarray, tmp_path: Path) -> None:
    rows = [{"body": text, "id": number} for number, text in enumerate(TEXTS)]
    rows[5] = {"body": TEXTS[5], "note": ["seen"], "id": None}
    source, target = tmp_path / "rows.jsonl", tmp_path / "rows.parquet"
    source.write_text("\n\n".join(json.dumps(row) for row in rows) + "\n\n")
    succeed("encode", folder, "-i", source, "--column", "body", "-o", target, "--batch-size", 1)
    table = parquet.read_table(target)
    assert table.column_names == ["body", "id", "note", "embedding"]
    assert len(table) == len(TEXTS)
    assert table["id"].to_pylist()[4:7] == [4, None, 6]
    assert table["note"].to_pylist()[5] == ["seen"]
    assert close(np.array(table["embedding"].to_pylist(), dtype=np.float32), expected)

    refused = run("encode", folder, "-i", target, "--column", "body", "-o", tmp_path / "again.parquet")
    assert "already has a column 'embedding'" in refused.stderr
    parquet.write_table(table.drop_columns(["embedding"]), target)
    succeed("encode", folder, "-i", target, "--column", "body", "-o", tmp_path / "again.parquet", "--batch-size", 1)
    assert parquet.read_table(tmp_path / "again.parquet").equals(table)


def test_what_is_said_on_the_way_holds_no_redrawn_bars(folder: str, tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n\n" for text in TEXTS))
    assert succeed("encode", folder, "-i", source, "-o", tmp_path / "v.parquet").stderr == ""


def test_columns_that_are_not_the_texts_rows_are_not_put_beside_their_vectors(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    monkeypatch.setattr("st_llm2vec.data.read.read_dataset", lambda inputs: Dataset.from_dict({"text": TEXTS[1:]}))
    result = run("encode", folder, "-i", source, "-o", tmp_path / "v.parquet")
    assert f"{len(TEXTS)} rows when it is read by lines and {len(TEXTS) - 1} otherwise" in " ".join(
        result.stderr.split()
    )
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl"}


def test_encode_with_a_prompt(folder: str) -> None:
    expected = SentenceTransformer(folder).encode(TEXTS[:2], prompt_name="query")
    for options in (["--prompt", PROMPT], ["--prompt-name", "query"]):
        data = json.loads(succeed("encode", folder, *TEXTS[:2], *options, "--json").stdout)
        assert close(np.array(data["vectors"]), expected)


def test_a_long_input_is_previewed(folder: str, tmp_path: Path) -> None:
    lines = tmp_path / "texts.txt"
    lines.write_text("\n".join(TEXTS))
    assert "The first 20 rows of 42; --output FILE writes them all." in succeed("encode", folder, "-i", lines).stdout


FILES = {
    "table.csv": "a,b\n1,2\n",
    "table.docx": "a",
    "empty.txt": "",
    "latin.txt": "caf\xe9".encode("latin-1"),
    "rows.jsonl": '{"id": 1, "text": "one"}\n{"id": 2, "text": 3}\n',
    "broken.jsonl": '{"text": "one"}\n{"text": \n',
    "list.jsonl": '["one"]\n',
    "missing.jsonl": '{"text": "one"}\n{"id": 1}\n',
    "no.parquet": "not Parquet",
}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "neither texts nor --input was given"),
        (["a text", "-i", "rows.jsonl"], "both texts and --input were given"),
        (["-i", "nowhere.txt"], "There is no file nowhere.txt."),
        (["-i", "."], "are of several formats"),
        (["-i", "table.csv"], "table.csv has no column 'text'; it has a, b. Choose one with --column."),
        (["-i", "table.docx"], "table.docx is not read here. Give files that end in .jsonl"),
        (["-i", "empty.txt", "-o", "v.npy"], "empty.txt is empty: it holds no rows"),
        (["-i", "empty.txt"], "empty.txt is empty: it holds no rows"),
        (
            ["-i", "latin.txt", "-o", "v.npy"],
            "latin.txt (the first is 0) cannot be encoded: not text: it is not valid Unicode",
        ),
        (["-i", "latin.txt", "--column", "text"], "latin.txt has no columns"),
        (["a text", "--column", "text"], "the arguments has none"),
        (["-i", "rows.jsonl", "--column", "body"], "has no column 'body'; it has id, text. Choose one with --column."),
        (["-i", "rows.jsonl", "-o", "v.npy"], "rows.jsonl (the first is 0) cannot be encoded: not text: int."),
        (["-i", "broken.jsonl", "-o", "v.npy"], "broken.jsonl (the first is 0) cannot be encoded: not JSON"),
        (["-i", "list.jsonl", "-o", "v.npy"], "list.jsonl has no column 'text'"),
        (["-i", "missing.jsonl", "-o", "v.npy"], "missing.jsonl (the first is 0) cannot be encoded: null"),
        (["-i", "no.parquet"], "no.parquet could not be read as parquet"),
        (["a text", "-o", "v.pt"], "v.pt ends in .pt; vectors are written to .npy, .safetensors, .parquet."),
        (["a text", "-o", "v"], "v has no extension"),
        (["a text", "--prompt", "a", "--prompt-name", "query"], "Give --prompt or --prompt-name, not both."),
        (["a text", "--prompt-name", "answer"], "'answer' not found"),
    ],
)
def test_encode_refuses_in_a_sentence(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    result = run("encode", folder, *options)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)


def test_a_failure_leaves_the_earlier_file(folder: str, tmp_path: Path) -> None:
    source, target = tmp_path / "rows.jsonl", tmp_path / "v.npy"
    rows = [json.dumps({"text": text}) for text in TEXTS]
    source.write_text("\n".join([*rows, '{"text": 1}']))
    target.write_bytes(b"earlier")
    result = run("encode", folder, "-i", source, "-o", target, "--batch-size", 1)
    assert "Row 42 of" in result.stderr and "not text: int" in result.stderr
    assert target.read_bytes() == b"earlier"
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", "v.npy"}


def test_a_decoder_is_no_encoder_yet(decoder: str) -> None:
    result = run("encode", decoder, "a text")
    assert result.exit_code == 1
    assert "is not an encoder yet" in result.stderr


def test_the_version_needs_no_command() -> None:
    from st_llm2vec import __version__

    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout.strip()) == (0, __version__)
