"""cn_clip's LMDB directories: SPLIT/imgs (id -> base64) and SPLIT/pairs (number -> a pickled tuple).

The pickles are read by an interpreter that builds plain values and calls nothing, because a pickle may run any code.
"""

import io
import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from jclip.data.importing.cn_clip import decode_base64
from jclip.data.importing.index import Index
from jclip.data.importing.lines import LONGEST_PICTURE, LONGEST_TEXT, integer
from jclip.data.importing.parts import (
    BROKEN_BASE64,
    UNCAPTIONED,
    USUAL_PICTURE,
    Found,
    Lost,
    Part,
    Reader,
    Reading,
    cut,
)
from jclip.data.importing.splits import choose_labelled
from jclip.data.sources.kinds import PAIRS, StoredPair
from jclip.errors import JclipError
from jclip.extras import reported_extras
from jclip.io.inert_pickle import load_inert
from jclip.io.reading import TOO_LARGE
from jclip.units import format_size


@dataclass(frozen=True)
class LmdbReader(Reader):
    """Reader of a folder with cn_clip's LMDB directories."""

    folder: Path = Path()
    splits: tuple[str, ...] = ()
    language: str = "zh"

    def parts(self, workspace: Path, shard_bytes: int) -> Sequence[Part]:
        """Returns the parts, see `Reader`."""
        parts: list[Part] = []
        for split in self.splits:
            stem = workspace / split
            index = Index.made(stem, partial(_index, self.folder / split))
            parts += [
                _Part(split, self.folder / split, stem, start, stop, self.language)
                for start, stop in cut(np.full(len(index["picture"]), USUAL_PICTURE), shard_bytes)
            ]
            pairs, pictures = index["uncounted"].tolist()
            lost = (
                Lost(f"{split}/pairs", "pair that num_samples does not count", pairs),
                Lost(f"{split}/imgs", "another spelling of an id that another key has", pictures),
            )
            if any(each.units for each in lost):
                parts.append(_Uncounted(split, tuple(each for each in lost if each.units)))
        return parts


def open_lmdb(source: Path, reading: Reading) -> LmdbReader:
    """Opens a folder of cn_clip's LMDB directories.

    Raises JclipError if there are none, one of a split is missing, or lmdb is not installed.
    """
    with reported_extras():
        import lmdb  # noqa: F401
    present = sorted(folder.parent.name for folder in source.glob("*/pairs"))
    if not present:
        raise JclipError(f"{source} has no SPLIT/pairs: name the folder that has train/pairs and train/imgs")
    splits, files, left_out = choose_labelled(
        source,
        present,
        reading,
        lambda split: [source / split / part / "data.mdb" for part in ("pairs", "imgs")],
        lambda split: not _samples(source / split / "pairs"),
    )
    return LmdbReader(PAIRS, files, False, (), source, splits, reading.language or "zh", left_out=left_out)


def _index(folder: Path) -> dict[str, np.ndarray]:
    """Returns the pairs by image, and the images."""
    ids, numbers = array("q"), array("q")
    pairs = _open(folder / "pairs")
    for number in range(_samples(folder / "pairs")):
        ids.append(_pair(pairs, folder / "pairs", number)[0])
        numbers.append(number)
    pictures, widths = array("q"), array("q")
    with _view(_open(folder / "imgs"), folder / "imgs") as view:
        for key in view.cursor().iternext(values=False):
            name = bytes(key)
            if name != b"num_images":
                where = f"{folder / 'imgs'}, key {name[:40]!r}"
                number = integer(name.decode("utf-8", "replace"), "the image's id", where)
                if _key(number, len(name)) != name:
                    raise JclipError(f"{where}: write the id with digits only, and build the directory again")
                pictures.append(number)
                widths.append(len(name))
    found = np.array(ids, np.int64)
    order = np.lexsort((np.array(widths, np.int64), np.array(pictures, np.int64)))
    have, first = np.unique(np.array(pictures, np.int64)[order], return_index=True)
    missing = np.flatnonzero(~np.isin(found, have))
    if len(missing):
        raise JclipError(
            f"{folder / 'pairs'}, pair {missing[0]}: image {found[missing[0]]} is not in {folder / 'imgs'}: build "
            "the LMDB directories again, from files that belong together"
        )
    width = np.array(widths, np.int64)[order][first]
    order = np.argsort(found, kind="stable")
    more = pairs.stat()["entries"] - 1 - len(ids)  # one is num_samples itself
    return {
        "id": found[order],
        "pair": np.array(numbers, np.int64)[order],
        "picture": have,
        "width": width,
        "uncounted": np.array([max(0, more), len(pictures) - len(have)]),
    }


def _key(number: int, width: int) -> bytes:
    """Returns the key of an image; `width` restores leading zeros."""
    return str(number).zfill(width).encode()


@dataclass(frozen=True)
class _Part:
    split: str
    folder: Path
    stem: Path
    start: int
    stop: int
    language: str

    def records(self) -> Iterator[Found | Lost]:
        table, pairs = Index(self.stem), _open(self.folder / "pairs")
        with _view(_open(self.folder / "imgs"), self.folder / "imgs") as pictures:
            span = slice(self.start, self.stop)
            for picture, width in zip(table["picture"][span].tolist(), table["width"][span].tolist(), strict=True):
                place = f"{self.split}/imgs, id {picture}"
                rows = table.rows("id", picture)
                if not rows:
                    yield Lost(place, UNCAPTIONED)
                    continue
                data = pictures.get(_key(picture, width)) or b"-"
                if len(data) > LONGEST_PICTURE:
                    yield Lost(place, TOO_LARGE, len(rows))
                    continue
                image = decode_base64(bytes(data))
                if image is None:
                    yield Lost(place, BROKEN_BASE64, len(rows))
                    continue
                found = [_pair(pairs, self.folder / "pairs", int(table["pair"][row])) for row in rows]
                texts, ids = tuple(text for _, _, text in found), tuple(number for _, number, _ in found)
                yield Found(place, StoredPair(image, texts, (self.language,) * len(ids), picture, ids))


@dataclass(frozen=True)
class _Uncounted:
    """Entries of a split that cn_clip never reads: they give no record, but are counted."""

    split: str
    lost: tuple[Lost, ...]

    def records(self) -> Iterator[Lost]:
        yield from self.lost


@lru_cache(maxsize=8)
def _open(folder: Path) -> Any:
    """Opens an LMDB environment; a process must not open one twice."""
    import lmdb

    try:
        found = lmdb.open(os.fsencode(folder), readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        raise _damaged(folder, error) from None
    # The file is mapped into memory: reading past its end would kill the process.
    wanted, have = (found.info()["last_pgno"] + 1) * found.stat()["psize"], (folder / "data.mdb").stat().st_size
    if have < wanted:
        raise _damaged(folder, f"data.mdb has {have:,} of {wanted:,} bytes")
    return found


@contextmanager
def _view(environment: Any, folder: Path) -> Iterator[Any]:
    """Yields a transaction on a folder's environment. Raises JclipError if it is damaged."""
    import lmdb

    try:
        with environment.begin(buffers=True) as view:
            yield view
    except lmdb.Error as error:
        raise _damaged(folder, error) from None


def _damaged(folder: Path, reason: object) -> JclipError:
    return JclipError(f"{folder} is not a complete LMDB directory ({reason}): copy it again")


def _samples(folder: Path) -> int:
    """Returns the number of pairs, which cn_clip writes last."""
    with _view(_open(folder), folder) as view:
        stored = view.get(b"num_samples")
        if stored is None:
            raise JclipError(f"{folder} has no num_samples, which is written last: build it again")
        count = bytes(stored[:40])
    return integer(count.decode("utf-8", "replace"), "num_samples", str(folder))


def _pair(pairs: Any, folder: Path, number: int) -> tuple[int, int, str]:
    """Returns (image id, text id, text) of a pair. Raises JclipError if it is missing, or not such a pickled tuple."""
    where = f"{folder}, pair {number}"
    with _view(pairs, folder) as view:
        stored = view.get(str(number).encode())
        if stored is None:
            raise JclipError(f"{where}: it is missing, though num_samples counts it: build the directory again")
        if len(stored) > LONGEST_TEXT:
            raise JclipError(f"{where}: it has more than {format_size(LONGEST_TEXT)}, too long for a text: correct it")
        value = bytes(stored)  # a copy, because the buffer is valid only inside the transaction
    try:
        image_id, text_id, text = load_inert(io.BytesIO(value), _refuse, _refuse)
        if not isinstance(text, str):
            raise TypeError(text)
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        raise JclipError(f"{where}: it is not a pickled (image id, text id, text): build the directory again") from None
    return integer(image_id, "image id", where), integer(text_id, "text id", where), text


def _refuse(name: Any) -> NoReturn:
    raise ValueError(f"it names {name}")
