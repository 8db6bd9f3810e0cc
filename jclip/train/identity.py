"""What makes two runs the same run: a checkpoint is resumed only by the run that wrote it.

The configuration must be equal, but for fields that do not touch the numbers and for places: what lies in a folder
matters, not what the folder is called. So that a folder may move but not change, its contents are known by the small
file that describes them.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jclip.config import difference, leaves, to_json
from jclip.errors import JclipError
from jclip.tokenizers.text import Tokenizer
from jclip.train.run import Run

FREE_TO_CHANGE = (
    r"mesh\..*",
    r"sharding\..*",
    r"max_replicated",
    r"remat",
    r"attention",
    r"(log|checkpoint|evaluate)_every",
    r"keep_checkpoints",
    r"best",
    r"patience",
    r"evaluations\..*",
    r"monitor\..*",
    r"stages\.\d+\.(max_unreadable|micro_batches|workers|cache)",
    r"stages\.\d+\.loss\.(impl|chunk)",
)
"""Fields, as regexes over dotted names, in which a resumed run may differ: they change its numbers by rounding, or not
at all."""

LATER = {"preprocessing.orientation": "ignore"}
"""Fields that older runs lack, each with the value that does what was done before it existed."""

PLACES = (r"tokenizer", r"teacher\.bundle", r"starts_from\.\d+\.1", r"stages\.\d+\.data\.\d+\.folder")
"""Fields that name a folder: it may move."""

_DESCRIPTIONS = ("config.json", "dataset_info.json", "*/*/dataset_info.json")
"""The file that describes a bundle, a data set, and a data set in tensorflow-datasets' own layout."""


def identity(run: Run, tokenizer: Tokenizer) -> dict[str, Any]:
    """The JSON form of a run, for a checkpoint's record: its fields, and fingerprints of what its places hold."""
    config = to_json(run)
    contents = {name: fingerprint(Path(place)) for name, place in leaves(config) if place and _is(name, PLACES)}
    return {"config": config, "contents": {**contents, "tokenizer": of_tokenizer(tokenizer)}}


class OtherConfiguration(JclipError):
    """A folder holds a run of another configuration."""


def check_same(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Holds the identity in a checkpoint's record against that of the run that would resume it.

    Raises:
      OtherConfiguration: they differ; the fields are named.
    """
    changed = list(_changes(before, now))
    if changed:
        shown = "; ".join(changed[:3]) + (f"; and {len(changed) - 3} more" if len(changed) > 3 else "")
        raise OtherConfiguration(
            f"{folder} holds a run with another configuration ({shown}): "
            "choose another --workdir, or give the old values back"
        )


def disagreement(one: dict[str, Any], other: dict[str, Any]) -> str | None:
    """What differs between the identities of a run on two processes; None when nothing does."""
    return next(_changes(one, other, free=()), None)


def fingerprint(folder: Path) -> str | None:
    """A short hash of the file that describes a folder's contents; None when there is none (any more)."""
    for name in _DESCRIPTIONS:
        for file in sorted(folder.glob(name)):
            return _hash(file.read_bytes())
    return None


def _changes(before: dict[str, Any], now: dict[str, Any], free: tuple[str, ...] = FREE_TO_CHANGE) -> Iterator[str]:
    was, places = (dict(leaves(one["config"])) for one in (before, now))
    for line in difference(before["config"], now["config"]):
        name = line.partition(": ")[0]
        later = name in LATER and name not in was and places[name] == LATER[name]
        if not later and not _is(name, (*free, *PLACES)):
            yield line
    for name, place in places.items():
        old, new = (one["contents"].get(name) for one in (before, now))
        # A folder that is gone, as a starting point may be once the run has started, is not known to be another.
        if _is(name, PLACES) and (bool(was.get(name)) != bool(place) or (old and new and old != new)):
            yield f"{name}: {was.get(name)!r}, now {place!r}, which holds something else"


def _is(name: str, patterns: tuple[str, ...]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def of_tokenizer(tokenizer: Tokenizer) -> str:
    """A short hash of what a tokenizer makes of texts."""
    probe = tokenizer.encode(["A naïve PROBE, 一只猫"], 64)  # of what the tokens do not tell, such as letter case
    return _hash(repr((tokenizer.kind, tokenizer.tokens, probe)).encode())


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()
