"""Publish an encoder: merge, write, verify in a fresh process, then one commit."""

from __future__ import annotations

import copy
import functools
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from st_llm2vec.checking import DTYPES, Finding, check, failures
from st_llm2vec.folder.check_finite import require_finite
from st_llm2vec.folder.check_loaded import prove_meant_attention
from st_llm2vec.folder.checksums import verify_checksums
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.folder.load import load
from st_llm2vec.folder.manifest_file import read_manifest
from st_llm2vec.folder.merge import merge
from st_llm2vec.folder.module_file import MODULE_NAME
from st_llm2vec.folder.staging import staged
from st_llm2vec.modules.adapter import has_adapter
from st_llm2vec.modules.attention import configured_attention
from st_llm2vec.publishing.card import model_card
from st_llm2vec.publishing.check import Check, check_folder
from st_llm2vec.publishing.hub import CARD, Remote, Target, commit_folder, folder_files, open_hub
from st_llm2vec.publishing.licence import licence_of
from st_llm2vec.publishing.names import is_hub_name, is_local, public_manifest
from st_llm2vec.publishing.results import Results, read_results, results_of, to_results
from st_llm2vec.publishing.servers import warn_of_servers
from st_llm2vec.publishing.stages import stages_of, untold
from st_llm2vec.recipe.manifest import Manifest
from st_llm2vec.serving.verdicts import verdicts

logger = logging.getLogger(__name__)
SHARD = "5GB"


@dataclass(frozen=True)
class Publication:
    """What was published, or would be.

    Args:
        repo_id: Where.
        url: The address of the commit or pull request; ``None`` after a dry run.
        commit: The commit; ``None`` after a dry run.
        files: What it holds, with sizes in bytes.
        removed: Files of an earlier model that it removes.
        card: ``"new"``, ``"replaced"`` or ``"kept"``.
        check: What was verified.
        findings: What the further checks found, if they were asked for.
    """

    repo_id: str
    url: str | None
    commit: str | None
    files: dict[str, int]
    removed: list[str]
    card: str
    check: Check
    findings: list[Finding]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "check": self.check.to_dict(), "findings": [one.to_dict() for one in self.findings]}


def publish(
    model_or_folder: TextEncoder | str | Path,
    repo_id: str,
    *,
    token: str | bool | None = None,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    exist_ok: bool = False,
    replace_model_card: bool = False,
    model_card_file: str | Path | None = None,
    results: Results | str | Path | None = None,
    train_datasets: Sequence[str] = (),
    base_model: str | None = None,
    license: str | None = None,
    commit_message: str | None = None,
    max_shard_size: str = SHARD,
    check_all: bool = False,
    dry_run: bool = False,
    output: str | Path | None = None,
    progress: Callable[[str], None] = logger.info,
) -> Publication:
    """Publish an encoder on the Hugging Face Hub, complete and verified, or not at all.

    Adapters are merged. The folder is loaded in a fresh process where this package cannot be imported; its attention is
    probed there and its vectors are compared, and only what agrees is uploaded, in one commit.

    Args:
        model_or_folder: The encoder, or a folder or name that ``load`` takes. An encoder with adapters attached is copied
            in memory before they are merged; one in a folder is not.
        repo_id: ``org/name``.
        token: Access token; the one that is logged in if not given.
        private: Whether a new repository is private.
        revision: Branch; it is made if it is not there.
        create_pr: Whether to open a pull request.
        exist_ok: Whether the repository may hold something already. Files of an earlier model that would change how the
            new one is read are removed in the same commit; others stay.
        replace_model_card: Whether a model card that is there is replaced; it is kept otherwise.
        model_card_file: A model card of your own, taken as it is.
        results: Evaluation results for the card: data or a JSON file, see :func:`to_results`. Those of evaluators that
            ran in this process are there without.
        train_datasets: Names of data sets on the Hub, for the card.
        base_model: The decoder's name on the Hub, ``org/name``, where the encoder was made from a local copy. It is believed:
            whether the Hub has it is not asked.
        license: The licence; that of the base model if not given.
        commit_message: The commit's first line.
        max_shard_size: Largest file of weights.
        check_all: Whether to run :func:`st_llm2vec.checking.check` too, on what is published; the card tells what it found,
            and what fails is not published, but for types of weights: not all decoders bear float16.
        dry_run: Whether to do all but the upload; no token is needed then, and the repository is not looked at.
        output: Where to keep the published folder too; it must not be there yet.
        progress: Is told what is being done.

    Returns:
        What was published.

    Raises:
        ValueError: If anything is not as it must be; then nothing is published.
        CausalAttentionError: If the encoder is causal where it is meant to be bidirectional.
    """
    target = Target(repo_id, token, private, revision, create_pr, exist_ok, replace_model_card)
    _require_name_of_base(base_model)
    found = read_results(results) if isinstance(results, str | Path) else to_results(results or [])
    own_card = _read_card(model_card_file)
    if output is not None and Path(output).exists():
        raise ValueError(f"{output} exists already; give a folder that does not.")
    api, remote = (None, Remote()) if dry_run else open_hub(target)
    if own_card is not None and CARD in remote.files and not replace_model_card:
        raise ValueError(
            f"{repo_id} has a model card, which is kept, and {model_card_file} would not be used. Put it in its place, "
            "replace_model_card=True (--replace-card), or leave it out."
        )
    with _staging(output) as folder:
        encoder, merged = _whole_encoder(model_or_folder, progress)
        manifest = public_manifest(encoder.manifest, base_model) if encoder.manifest is not None else None
        progress("Writing the folder …")
        _write(encoder, folder, manifest, max_shard_size)
        progress("Verifying it in a fresh process without st-llm2vec …")
        verified = check_folder(encoder, folder, merged)
        findings = _check_all(folder, progress) if check_all else []
        custom = (folder / f"{MODULE_NAME}.py").is_file()
        in_servers = verdicts(encoder, repo_id)
        warn_of_servers(in_servers, repo_id)
        if manifest is not None:
            _warn_of_instructions(encoder, manifest)
        if license:
            licence = {"license": license}
        else:  # What is recorded, what the base's copy here says, or what its card on the Hub says.
            base = encoder.manifest.base if encoder.manifest is not None else {}
            licence = licence_of(base, token) or licence_of({"name": base_model}, token)
        if own_card is None:
            _warn_of_gaps(manifest, licence)
        card = own_card or model_card(
            encoder,
            repo_id,
            verified,
            in_servers,
            findings=findings,
            manifest=manifest,
            custom=custom,
            licence=licence,
            licence_given=bool(license),
            results=[*found, *results_of(encoder)],
            train_datasets=train_datasets,
        )
        kept = CARD in remote.files and not replace_model_card
        if not kept:
            (folder / CARD).write_text(card, encoding="utf-8")
        written = read_manifest(folder)
        if written is not None:
            verify_checksums(folder, written.checksums, "The folder to be published")
        sizes = {name: path.stat().st_size for name, path in folder_files(folder).items()}
        url = commit = None
        if api is not None:
            message = commit_message or f"Add {manifest.config.name if manifest else 'text'} encoder"
            description = (
                f"Verified before the upload by loading it with Sentence Transformers alone: cosine distance at most "
                f"{verified.distance:.1e} over {verified.texts} texts; attention {verified.probe.describe()}."
            )
            url, commit = commit_folder(api, target, remote, folder, message, description, progress)
    state = "kept" if kept else "replaced" if CARD in remote.files else "new"
    return Publication(repo_id, url, commit, sizes, remote.stale(set(sizes)), state, verified, findings)


def _require_name_of_base(base_model: str | None) -> None:
    if base_model is not None and not is_hub_name(base_model):
        where = "a folder here" if is_local(base_model) else "no repository's name"
        raise ValueError(
            f"The base model {base_model!r} is {where}; base_model (--base-model) is the decoder's name on the Hub, org/name, "
            "which the model card links to."
        )


def _warn_of_instructions(encoder: TextEncoder, manifest: Manifest) -> None:
    """Say which instruction the encoder was trained with and does not keep."""
    for role, texts in untold(stages_of(manifest), encoder.prompts, manifest.config.prompts).items():
        if texts:
            logger.warning(
                "The encoder was trained with the instruction %r%s before %s, which is not among its prompts, so encode_%s reads "
                "texts %s. The model card says how to give it in every call. To keep it: encoder = "
                "st_llm2vec.load(folder); encoder.prompts[%r] = ...; encoder.save(another folder), and publish that.",
                texts[0],
                f" and {len(texts) - 1} more" if len(texts) > 1 else "",
                "queries" if role == "query" else "documents",
                role,
                f"with {other!r}" if (other := (encoder.prompts.get(role) or "").strip()) else "without",
                role,
            )


def _warn_of_gaps(manifest: Manifest | None, licence: Mapping[str, str]) -> None:
    """Say what a stranger could not learn from the model card."""
    base = manifest.base.get("name") if manifest is not None else None
    gaps = []
    if base is not None and not is_hub_name(base):
        gaps.append(f"the base model {base!r} is a local folder's name (base_model, --base-model)")
    if not licence.get("license"):
        gaps.append("there is no licence (license, --license)")
    if gaps:
        logger.warning(
            "The model card lacks what others look for: %s. Name what is missing, and publish then.", " and ".join(gaps)
        )


def _check_all(folder: Path, progress: Callable[[str], None]) -> list[Finding]:
    """Check the folder as it is published, and raise if a check fails; what other types of weights give is told only."""
    findings = check(folder, progress=progress)
    for one in failures(findings):
        if one.check not in DTYPES:
            raise ValueError(f"The encoder is not published, since a check of it fails ({one.check}): {one.found}")
    return findings


def _read_card(path: str | Path | None) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8") if path is not None else None
    except OSError as error:
        raise ValueError(f"The model card {path} cannot be read: {error}.") from error


@contextmanager
def _staging(output: str | Path | None) -> Iterator[Path]:
    """A folder for what is published: temporary, or beside ``output`` and moved there when all went well."""
    with (
        staged(Path(output).absolute())
        if output is not None
        else tempfile.TemporaryDirectory(prefix=".publishing-") as place
    ):
        folder = Path(place) / "encoder"
        yield folder
        if output is not None:
            folder.rename(output)


def _whole_encoder(
    model_or_folder: TextEncoder | str | Path, progress: Callable[[str], None]
) -> tuple[TextEncoder, float | None]:
    """The encoder with its adapters merged, and how far its vectors moved by that, if it had any."""
    if isinstance(model_or_folder, TextEncoder):
        encoder = model_or_folder
    elif isinstance(model_or_folder, str | Path):
        progress(f"Loading {model_or_folder} …")
        encoder = load(model_or_folder, verify=None)
    else:
        raise ValueError(
            f"publish takes an encoder of this package or its folder, not a {type(model_or_folder).__name__}. Load the folder "
            "with st_llm2vec.load, or make an encoder with st_llm2vec.convert."
        )
    require_finite(encoder, "The encoder")
    if encoder.manifest is None and configured_attention(encoder.transformer.model) == "causal":
        raise ValueError(
            "The encoder is causal, and without its st_llm2vec.json nothing says that it is meant to be: it may have lost "
            "its bidirectional attention. Publish the folder that convert or training wrote."
        )
    prove_meant_attention(encoder, "The encoder")
    if not has_adapter(encoder.transformer.model):
        return encoder, None
    progress("Merging the adapters …")
    whole = copy.deepcopy(encoder) if encoder is model_or_folder else encoder
    return whole, merge(whole).distance


def _write(encoder: TextEncoder, folder: Path, manifest: Manifest | None, max_shard_size: str) -> None:
    """Save the encoder with the manifest that may be published, its weights in shards."""
    model: Any = encoder.transformer.model
    kept = encoder.manifest
    encoder.manifest = manifest
    model.save_pretrained = functools.partial(model.save_pretrained, max_shard_size=max_shard_size)
    try:
        encoder.save(str(folder), create_model_card=False)
    finally:
        encoder.manifest = kept
        del model.save_pretrained
