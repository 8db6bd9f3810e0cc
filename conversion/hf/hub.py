"""hf:// sources: a repository of the Hugging Face hub, fetched into the hub's own cache."""

import re
from dataclasses import dataclass
from pathlib import Path

from jclip.conversion.files import ENDINGS, WEIGHTS, shard_pattern, shards, weights_at
from jclip.errors import JclipError
from jclip.io.tensors import shown

SCHEME = "hf://"
_PATIENCE = 20  # seconds
_SMALL = ["*.json", "*.txt", "*.model", "*.gz"]
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(@(?P<revision>[\w.-]+(/[\w.-]+)*))?")


@dataclass(frozen=True)
class Snapshot:
    """A repository as it was at one commit.

    Attributes:
      folder: in the cache.
      commit: which.
      note: that the copy of an earlier download had to do, and why; None when the hub was asked.
    """

    folder: Path
    commit: str
    note: str | None = None


def fetch(name: str) -> Snapshot:
    """A repository, with the files that a conversion may read.

    Where the hub cannot be reached, the copy in the cache will do if it is whole: its weights are all there, and what
    is small with them, for that is fetched first.

    Args:
      name: hf://ORG/NAME, or hf://ORG/NAME@REVISION: a branch, a tag or a commit.

    Raises:
      JclipError: that is no repository, it cannot be fetched, or the package huggingface_hub is missing.
    """
    said = name.removeprefix(SCHEME).strip("/")
    found = _NAME.fullmatch(said)
    if found is None or ".." in said:
        raise JclipError(f"{name} is no repository: write hf://ORG/NAME or hf://ORG/NAME@REVISION")
    repository, revision = said.partition("@")[0], found["revision"]
    try:
        from huggingface_hub import HfApi, snapshot_download
    except ImportError:
        raise JclipError(f"{name} needs the package huggingface_hub: pip install 'jclip[convert]'") from None
    try:
        # Not `list_repo_files`, which knocks for half a minute where nobody answers.
        files = HfApi().model_info(repository, revision=revision, timeout=_PATIENCE).siblings or ()
        there = {file.rfilename for file in files}
        weights = next((weights for weights in WEIGHTS if weights in there), None)
        wanted = [f"*{ending}" for ending in ENDINGS] if weights is None else [shard_pattern(weights)]
        snapshot_download(repository, revision=revision, allow_patterns=_SMALL)
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=wanted))
    except Exception as error:  # its own, its HTTP library's, which is another in each version, or the system's
        return _cached(repository, revision, name, _first_line(error))
    return Snapshot(folder, folder.name)


def _cached(repository: str, revision: str | None, name: str, reason: str) -> Snapshot:
    """What an earlier download left."""
    from huggingface_hub import snapshot_download

    unreachable = f"{name} cannot be fetched ({reason})"
    try:
        folder = Path(snapshot_download(repository, revision=revision, local_files_only=True, allow_patterns=_SMALL))
        shards(weights_at(folder))
    except JclipError as error:
        raise JclipError(f"{unreachable}, and its copy in the cache is not whole: {error}") from None
    except (OSError, ValueError) as error:
        if hasattr(error, "snapshot_path"):  # later versions remember which files there should be
            raise JclipError(f"{unreachable}, and its copy in the cache is not whole: {_first_line(error)}") from None
        raise JclipError(
            f"{unreachable}: check the name and the network, or download it elsewhere and give the folder"
        ) from None
    note = f"{name} is what the cache holds of it, commit {folder.name}: it could not be fetched ({reason})"
    return Snapshot(folder, folder.name, note)


def _first_line(error: Exception) -> str:
    return shown((str(error).strip().splitlines() or [type(error).__name__])[0], 400)  # it ends with the files
