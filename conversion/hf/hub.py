"""Fetches repositories of the Hugging Face hub (hf://ORG/NAME) into the hub's own cache."""

import re
from dataclasses import dataclass
from pathlib import Path

from jclip.conversion.checkpoint_files import ENDINGS, SMALL, WEIGHTS, shard_pattern, shards, weights_at
from jclip.errors import JclipError, first_line
from jclip.extras import reported_extras

SCHEME = "hf://"
_PATIENCE = 20  # seconds
_BRIEF = 5  # seconds, if an answer is not needed
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(@(?P<revision>[\w.-]+(/[\w.-]+)*))?")


@dataclass(frozen=True)
class Snapshot:
    """Repository at one commit. `note` says why an earlier download was used; None if the hub answered."""

    folder: Path
    commit: str
    note: str | None = None


def fetch(name: str) -> Snapshot:
    """Fetches the files of a repository, hf://ORG/NAME or hf://ORG/NAME@REVISION, that a conversion may read.

    A revision is a branch, a tag or a commit. If the hub cannot be reached, the cached copy is used if it has all
    weights. It then has the small files too, because they are fetched first. Raises JclipError if the name is
    malformed, the repository cannot be fetched, or the package huggingface_hub is missing.
    """
    repository, revision = _parts(name)
    with reported_extras():
        from huggingface_hub import HfApi, snapshot_download
    try:
        # Not `list_repo_files`, which retries for half a minute without a network.
        files = HfApi().model_info(repository, revision=revision, timeout=_PATIENCE).siblings or ()
        present = {file.rfilename for file in files}
        weights = next((weights for weights in WEIGHTS if weights in present), None)
        wanted = [f"*{ending}" for ending in ENDINGS] if weights is None else [shard_pattern(weights)]
        snapshot_download(repository, revision=revision, allow_patterns=SMALL)
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=wanted))
    except Exception as error:  # from huggingface_hub, its HTTP library (which varies by version), or the system
        return _cached(repository, revision, name, first_line(error))
    return Snapshot(folder, folder.name)


def commit_of(name: str) -> str:
    """Returns the commit of a repository, hf://ORG/NAME or hf://ORG/NAME@REVISION, without fetching files.

    If the hub cannot be reached, returns the commit of the copy in the hub's own cache. Raises JclipError if there is
    none either, or the name is malformed, or the package huggingface_hub is missing.
    """
    repository, revision = _parts(name)
    if revision and _COMMIT.fullmatch(revision):
        return revision
    with reported_extras():
        from huggingface_hub import HfApi
    try:
        return str(HfApi().model_info(repository, revision=revision, timeout=_BRIEF).sha)
    except Exception as error:  # as in `fetch`
        return _cached(repository, revision, name, first_line(error)).commit


def _parts(name: str) -> tuple[str, str | None]:
    """Returns repository and revision. Raises JclipError if the name is malformed."""
    said = name.removeprefix(SCHEME).strip("/")
    found = _NAME.fullmatch(said)
    if found is None or ".." in said:
        raise JclipError(f"{name} is not a repository: write hf://ORG/NAME or hf://ORG/NAME@REVISION")
    return said.partition("@")[0], found["revision"]


def _cached(repository: str, revision: str | None, name: str, reason: str) -> Snapshot:
    """Returns the snapshot of an earlier download. Raises JclipError, with `reason`, if it is missing or incomplete."""
    from huggingface_hub import snapshot_download

    unreachable = f"{name} cannot be fetched ({reason})"
    try:
        folder = Path(snapshot_download(repository, revision=revision, local_files_only=True, allow_patterns=SMALL))
        shards(weights_at(folder))
    except JclipError as error:
        raise JclipError(f"{unreachable}, and its copy in the cache is incomplete: {error}") from None
    except (OSError, ValueError) as error:
        if hasattr(error, "snapshot_path"):  # later versions know which files should exist
            raise JclipError(f"{unreachable}, and its copy in the cache is incomplete: {first_line(error)}") from None
        raise JclipError(f"{unreachable}: check the name and the network, or give a folder with a copy") from None
    note = f"{name} was read from the cache, commit {folder.name}: it could not be fetched ({reason})"
    return Snapshot(folder, folder.name, note)
