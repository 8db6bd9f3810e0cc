"""Loads a model from any source: a bundle, another library's checkpoint, or a repository of the Hugging Face hub.

A checkpoint is converted once into a bundle in the cache, see `jclip.cache.models`. An entry of a repository is found
by its commit, an entry of files by their contents, so a changed source is converted again. A converted source loads
without torch, and without a network if it was converted before.
"""

import hashlib
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from jclip.bundle import Origin, is_bundle, open_bundle
from jclip.cache.digests import recall, remember, remembered, stamp
from jclip.cache.folder import VARIABLE
from jclip.cache.models import Entry, made_once, place_of, read_entry
from jclip.conversion.checkpoint import open_checkpoint
from jclip.conversion.checkpoint_files import ENDINGS, WEIGHTS, files_at, fingerprints
from jclip.conversion.converting import FORMAT, convert
from jclip.conversion.hf.hub import SCHEME, commit_of
from jclip.errors import JclipError
from jclip.export.onnx_model import load_onnx
from jclip.export.record import is_export
from jclip.inference import Model, load_model
from jclip.names import ModelDtype, TowerName
from jclip.plain import complain

Say = Callable[[str], None]

_FILES, _COMMIT = "files 1", "commit"


def load(
    source: str | Path, *, tower: TowerName | None = None, dtype: ModelDtype = "float32", batch_size: int = 256
) -> Model:
    """Loads a model.

        model = jclip.load("hf://OFA-Sys/chinese-clip-vit-base-patch16")
        model.similarity(["cat.jpg"], ["一只猫", "一只狗"])

    A checkpoint is converted once, and the bundle is kept in the cache: $JCLIP_CACHE, or ~/.cache/jclip. One line on
    standard error says so. `jclip cache` lists and clears the cache.

    A process that has loaded a model must not fork: jax runs threads, and the child may hang. `multiprocessing` forks
    by default on Linux before Python 3.14: use `multiprocessing.get_context("spawn")`. A model can be pickled.

    Args:
      source: a bundle's folder, or that of an ONNX export; a file or folder that `jclip convert` reads; or
        hf://ORG/NAME with an optional @REVISION.
      tower: "image" or "text" to load one tower, in the memory of one: the parameters of the other are not read.
      dtype: "bfloat16" halves the memory of the parameters, and is faster on hardware that supports it. Features stay
        float32. Measured with the demo's two models on 584 images and their names: each feature has a cosine of 0.9997
        or more with that of float32, 99 % of the best hits are the same, and R@1 changes by at most 0.2 points.
      batch_size: number of images or texts encoded at once.

    Raises:
      JclipError: the source is missing or damaged, cannot be fetched or converted, or has no such tower; or the cache
        cannot be written.
    """
    place = Path(source)
    if is_export(place):
        if dtype != "float32":
            raise JclipError(f"{place} is an export, which computes as it was written: omit dtype, or load its bundle")
        model: Model = load_onnx(place, tower=tower, batch_size=batch_size)
    else:
        model = load_model(local_bundle(source), tower=tower, dtype=dtype, batch_size=batch_size)
    model.source = absolute(source)
    return model


def absolute(source: str | Path) -> str:
    """Returns a source's name for another working directory: hf://… unchanged, or an absolute path."""
    name = _named(source)
    return name if name.startswith(SCHEME) else str(Path(name).resolve())


def pinned(source: str | Path, say: Say = complain) -> str:
    """Returns a source's `absolute` name, with the present commit of a repository as its revision.

    Raises JclipError if `local_bundle` could not find the repository.
    """
    name = absolute(source)
    return f"{name.partition('@')[0]}@{_commit(name, say)}" if name.startswith(SCHEME) else name


def local_bundle(source: str | Path, say: Say = complain) -> Path:
    """Returns the folder of a source's bundle, which is converted into the cache if it is not a bundle already.

    A folder without weights is returned unchanged: whoever opens it reports what is missing.

    Args:
      source: see `load`.
      say: receives a line before a conversion, or if the hub cannot be reached.

    Raises:
      JclipError: the source is missing or damaged, or cannot be fetched or converted; or the cache cannot be written.
    """
    name = _named(source)
    if name.startswith(SCHEME):
        commit = _commit(name, say)
        return _converted(_of_commit(name, commit), name, commit, say)
    place = Path(name)
    if not _is_checkpoint(place):
        return place
    folder, files = files_at(place)
    digest = remembered(_FILES, place, stamp(folder, files), lambda: _digest(folder, files))
    return _converted(f"files.{digest}.{FORMAT}", name, None, say)


def _named(source: str | Path) -> str:
    return re.sub("^hf:/+", SCHEME, str(source))  # a Path has lost a slash


def _is_checkpoint(place: Path) -> bool:
    if place.is_file():
        return True
    if is_bundle(place) or not place.is_dir():
        return False
    return any(file.name in WEIGHTS or file.suffix in ENDINGS for file in place.iterdir())


def _commit(name: str, say: Say) -> str:
    """Returns the commit of a repository: the hub's, or the last one that was converted if the hub is unreachable."""
    try:
        commit = commit_of(name)
    except JclipError as error:
        known = recall(_COMMIT, name, "")
        if known is None or read_entry(_of_commit(name, known)) is None:
            raise
        say(f"{error}. The conversion of commit {known} is used")
        return known
    remember(_COMMIT, name, "", commit)
    return commit


def _of_commit(name: str, commit: str) -> str:
    """Returns the name of a repository's entry."""
    repository = name.removeprefix(SCHEME).partition("@")[0].strip("/").replace("/", "--")
    return f"{repository[:80]}.{commit[:16]}.{FORMAT}"


def _digest(folder: Path, files: list[Path]) -> str:
    found = fingerprints({file.relative_to(folder).as_posix(): file for file in files})
    return hashlib.blake2b(json.dumps(found).encode(), digest_size=16).hexdigest()


def _converted(entry_name: str, source: str, commit: str | None, say: Say) -> Path:
    """Returns the bundle of an entry of the cache, which is converted from `source` if it is missing or damaged."""
    made: dict[str, Any] = {}

    def make(place: Path) -> dict[str, Any]:
        kept = place_of(entry_name)
        again = ", because its copy in the cache is damaged" if kept.exists() else ", once"
        begin = partial(say, f"converting {source}{again}; the bundle is kept in {kept}")
        (facts,) = _convert(source, place, begin)["sources"]
        if facts["commit"] != commit:
            raise _NotConverted(f"{source} changed while it was fetched: try again")
        made.update(
            source=absolute(source),
            commit=commit,
            stamp=Origin.of(place).stamp,
            identity=open_bundle(place).digest(),
            made=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        return made

    try:
        folder = made_once(entry_name, _is_whole, make, lambda: say(f"{source}: waiting for another process"))
    except _NotConverted as error:
        raise JclipError(str(error)) from None
    except JclipError as error:
        raise JclipError(
            f"{source} cannot be converted into the cache ({error}): set {VARIABLE} to a folder that can be written"
        ) from None
    if made:
        Origin.of(folder).note(made["identity"])
    return folder


class _NotConverted(JclipError):
    """Error of a conversion, in contrast to one of the cache."""


def _convert(source: str, place: Path, begin: Callable[[], None]) -> dict[str, Any]:
    """Converts a source with a spinner on a terminal, and calls `begin` first. Returns the passport."""
    from jclip.console import Console

    try:
        if not source.startswith(SCHEME):
            open_checkpoint(source)  # a file of another kind is an error before a line says that it is converted
        begin()
        with Console(stderr=True).working("reading") as progress:
            return convert(source, place, report=progress)
    except JclipError as error:
        options = f" (an option of `jclip convert {source} DST`; then use DST)" if " --" in str(error) else ""
        raise _NotConverted(f"{error}{options}") from None


def _is_whole(entry: Entry) -> bool:
    """Returns whether an entry's bundle is untouched, or, such as after a copy of the cache, has the same contents."""
    origin, record = Origin.of(entry.content), entry.record
    try:
        if origin.stamp == record["stamp"]:
            return True
        return bool(origin.identity(lambda: open_bundle(entry.content).digest()) == record["identity"])
    except (JclipError, KeyError):
        return False
