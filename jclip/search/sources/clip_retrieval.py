"""Vectors that clip-retrieval wrote, or `jclip embed --format clip-retrieval`, as a container.

    FOLDER/img_emb/img_emb_0.npy         vectors of images, float16 or float32 (n, d)
    FOLDER/text_emb/text_emb_0.npy       vectors of texts
    FOLDER/metadata/metadata_0.parquet   a row for each: image_path, caption, and other columns

A number may have leading zeros. The files do not tell which model made the vectors. If the file of an image exists, its
hash is stored, so that the image can be shown.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from jclip.data.importing.parquet import check_packing, parquet_file
from jclip.errors import JclipError, first_line
from jclip.extras import reported_extras
from jclip.images.opening import PictureError, read_picture
from jclip.images.preprocess import Orientation
from jclip.io.json_files import decode
from jclip.io.reading import Refused, open_regular
from jclip.search.decoding import content_hash
from jclip.search.entries import IMAGE, TEXT
from jclip.search.sources.items import Container, Item, folder_stamp, is_fact

METADATA = "metadata"
VECTORS = {IMAGE: "img_emb", TEXT: "text_emb"}
"""Folder of the vectors of each kind, and the beginning of the names of its files."""

PATH, CAPTION = "image_path", "caption"
META = "meta"
"""Column of facts as a JSON object, which jclip writes."""

_ROWS = 1024
_SIZE = "width", "height"


class _Piece(NamedTuple):
    """File of vectors, its metadata, and the position of its first item."""

    kind: str
    vectors_nd: np.ndarray
    metadata: Path
    first: int


class ClipRetrieval(Container):
    """Folder of vectors with metadata in Parquet."""

    kind: ClassVar[str] = "clip-retrieval"
    nested: ClassVar[bool] = False

    @staticmethod
    def recognises(place: Path) -> bool:
        """Returns True for a folder with folders of vectors and of metadata."""
        return (place / METADATA).is_dir() and any((place / name).is_dir() for name in VECTORS.values())

    def check_model(self, identity: str, dim: int, orientation: Orientation) -> None:
        """Raises JclipError if its vectors have another size than those of the model, which made them hopefully."""
        for piece in self._pieces:
            if piece.vectors_nd.shape[1] != dim:
                raise JclipError(
                    f"{self.place} has vectors of size {piece.vectors_nd.shape[1]}, but the model's have {dim}: name "
                    "the model that made them"
                )

    def stamp(self) -> bytes:
        """Returns a digest of the sizes and times of its files."""
        return folder_stamp(self.place, (file for file in self.place.glob("*/*") if file.is_file()))

    def items(self) -> Iterator[Item]:
        """Yields its images and texts. Raises JclipError if a file is missing or damaged."""
        stamp = self.stamp()
        for piece in self._pieces:
            rows = 0
            for row in _rows(piece.metadata):
                if rows < len(piece.vectors_nd):
                    yield self._item(piece, rows, row, stamp)
                rows += 1
            if rows != len(piece.vectors_nd):
                raise JclipError(
                    f"{piece.metadata} has {rows} rows, but {len(piece.vectors_nd)} vectors belong to it: copy both "
                    "files again"
                )

    def _item(self, piece: _Piece, number: int, row: dict[str, Any], stamp: bytes) -> Item:
        position = piece.first + number
        path, caption, size = row.pop(PATH, None), row.pop(CAPTION, None), [row.pop(name, None) for name in _SIZE]
        facts: dict[str, Any] = {
            "text": caption if isinstance(caption, str) and caption.strip() else None,
            "meta": _meta(row),
            "position": position,
            "vector": position,
            "container": (self.kind, os.fsencode(self.place)),
        }
        if piece.kind == TEXT:
            return Item(self.member(f"text/{number}"), stamp, TEXT, **facts)
        if all(isinstance(side, int) and 0 < side < 2**31 for side in size):
            facts |= dict(zip(_SIZE, size, strict=True))
        name = path.replace("\0", "\\0").encode("utf-8", "replace") if isinstance(path, str) else b""
        if not os.path.isabs(name):
            return Item(self.member(name or str(number)), stamp, **facts)
        try:
            data = read_picture(os.fsdecode(name))
        except PictureError:  # it was on another machine, perhaps
            return Item(name, stamp, **facts)
        return Item(name, stamp, size=len(data), hash=content_hash(data), **{**facts, "position": None})

    def vectors(self, positions: Sequence[int]) -> np.ndarray:
        """Returns vectors by position, float32 (n, dim)."""
        found = []
        for position in positions:
            piece = next(each for each in reversed(self._pieces) if each.first <= position)
            found.append(np.asarray(piece.vectors_nd[position - piece.first], np.float32))
        return np.stack(found)

    @cached_property
    def _pieces(self) -> list[_Piece]:
        with reported_extras():
            import pyarrow.parquet  # noqa: F401
        pieces, first = [], 0
        for kind, name in VECTORS.items():
            for number, file in _numbered(self.place / name, name, "npy"):
                metadata = dict(_numbered(self.place / METADATA, METADATA, "parquet")).get(number)
                if metadata is None:
                    raise JclipError(f"{file} has no metadata in {self.place / METADATA}: copy the folder again")
                vectors_nd = _mapped(file)
                pieces.append(_Piece(kind, vectors_nd, metadata, first))
                first += len(vectors_nd)
        if not pieces:
            raise JclipError(f"{self.place} has no files of vectors: name a folder that clip-retrieval wrote")
        return pieces


def _numbered(folder: Path, name: str, ending: str) -> list[tuple[int, Path]]:
    """Returns the files NAME_NUMBER.ENDING of a folder, by number."""
    pattern = re.compile(rf"{name}_([0-9]{{1,12}})\.{ending}")
    found = [(match, file) for file in folder.glob("*") if (match := pattern.fullmatch(file.name))]
    return sorted((int(match[1]), file) for match, file in found)


def _mapped(file: Path) -> np.ndarray:
    try:
        open_regular(file).close()
        found = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, Refused) as error:
        raise JclipError(f"{file} cannot be read ({first_line(error)}): copy it again") from None
    except Exception as error:  # numpy parses the header with `ast`, which raises all kinds of errors
        raise JclipError(f"{file} is not a complete .npy file ({first_line(error)}): copy it again") from None
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.dtype.kind != "f" or not found.shape[1]:
        raise JclipError(f"{file} does not hold vectors, floats of (n, d): name a folder that clip-retrieval wrote")
    return found


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    import pyarrow

    stored = parquet_file(file)
    try:
        for group in range(stored.num_row_groups):
            check_packing(file, stored, group, stored.schema_arrow.names)
            for batch in stored.iter_batches(_ROWS, row_groups=[group], use_threads=False):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise JclipError(f"{file} is damaged ({first_line(error)}): copy it again") from None


def _meta(row: dict[str, Any]) -> dict[str, Any]:
    """Returns the facts in the other columns of a row."""
    more: Any = {}
    if isinstance(text := row.get(META), str):
        with suppress(ValueError):
            more = decode(text)
    facts = row if not isinstance(more, dict) else {**row, META: None, **more}
    return {name: value for name, value in facts.items() if is_fact(name, value)}
