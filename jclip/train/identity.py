"""Compares runs: a checkpoint is resumed only by the run that wrote it.

The configurations must be equal, except for fields that are marked as `Free` or as a `Folder`, see `jclip.marks`. The
contents of folders are compared by the small file that describes them.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jclip.config import difference, leaves, to_json
from jclip.errors import JclipError
from jclip.marks import Mark, marked
from jclip.tokenizers.text import Tokenizer
from jclip.train.configuration import Run

VERSION = 2
"""Version of the configurations in checkpoints. Runs of other versions are not resumed; their bundles still load."""

_DESCRIPTIONS = ("config.json", "dataset_info.json", "*/*/dataset_info.json")
"""Files that describe a bundle, a data set, and a data set in tensorflow-datasets' own layout."""


def identity(run: Run, tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns a run's fields and the fingerprints of its folders as JSON, for a checkpoint's record."""
    config, folders = to_json(run), marked(run, Mark.FOLDER)
    contents = {name: fingerprint(Path(place)) for name, place in leaves(config) if place and name in folders}
    marks = {"free": marked(run, Mark.FREE), "folders": folders}
    contents["tokenizer"] = tokenizer.fingerprint()
    return {"version": VERSION, "config": config, "contents": contents, **marks}


class OtherConfiguration(JclipError):
    """Error for a folder that holds a run of another configuration."""


def check_same(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Compares a checkpoint's identity with the run's. Raises OtherConfiguration, with the fields, if they differ."""
    if before.get("version") != VERSION:
        raise OtherConfiguration(
            f"{folder} holds a run of another version of jclip, which this one cannot resume: choose another --workdir"
        )
    changed = list(_changes(before, now))
    if changed:
        shown = "; ".join(changed[:3]) + (f"; and {len(changed) - 3} more" if len(changed) > 3 else "")
        raise OtherConfiguration(
            f"{folder} holds a run with another configuration ({shown}): "
            "choose another --workdir, or restore the old values"
        )


def disagreement(one: dict[str, Any], other: dict[str, Any]) -> str | None:
    """Returns a difference between the identities of a run on two processes, or None."""
    return next(_changes(one, {**other, "free": []}), None)


def fingerprint(folder: Path) -> str | None:
    """Returns a short hash of the file that describes a folder's contents; None if the folder has no such file."""
    for name in _DESCRIPTIONS:
        for file in sorted(folder.glob(name)):
            return _hash(file.read_bytes())
    return None


def _changes(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    was, places = (dict(leaves(one["config"])) for one in (before, now))
    for line in difference(before["config"], now["config"]):
        name = line.partition(": ")[0]
        if name not in now["folders"] and not any(name == free or name.startswith(f"{free}.") for free in now["free"]):
            yield line
    for name in now["folders"]:
        old, new = (one["contents"].get(name) for one in (before, now))
        # A missing folder counts as unchanged: a run under way no longer needs the bundles that it started from.
        if bool(was.get(name)) != bool(places[name]) or (old and new and old != new):
            yield f"{name}: {was.get(name)!r}, now {places[name]!r}, which holds something else"


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()
