"""Writes an index in clip-retrieval's layout, which `jclip.search.sources.clip_retrieval` describes."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from jclip.errors import JclipError
from jclip.extras import reported_extras
from jclip.io.files import check_free, lasting_folder, whole_folder
from jclip.search.embedding import EmbedReport, ModelSource, Options, embed_with
from jclip.search.entries import IMAGE, Entry, stored_meta
from jclip.search.index import Index
from jclip.search.segments import write_array
from jclip.search.sources.clip_retrieval import CAPTION, META, METADATA, PATH, VECTORS
from jclip.search.sources.indexes import IndexFolder

ROWS = 1_000_000
"""Maximum number of vectors of a file, clip-retrieval's default."""

_AT_ONCE = 4096  # rows


def embed_clip_retrieval(
    model: ModelSource, words: Sequence[str | Path], folder: Path, options: Options
) -> EmbedReport:
    """Embeds as `embed_with` does, but writes clip-retrieval's layout. A single index as source needs no model.

    Raises JclipError if `options` ask for an update, or the sources have images and texts, which the layout would pair.
    """
    with reported_extras():
        import pyarrow.parquet  # noqa: F401
    if options.update:
        raise JclipError(
            "clip-retrieval's layout cannot be updated: update an index, and then write it to a new folder"
        )
    check_free(folder)
    if options.dry_run:
        return embed_with(model, words, folder, options)
    with lasting_folder(folder) as lasting, ExitStack() as stack:
        place = lasting / "index"
        if len(words) == 1 and IndexFolder.recognises(Path(words[0])):
            place = Path(words[0])
        if place.exists():  # it was interrupted while writing
            index = stack.enter_context(Index.open(place))
            counts = dict.fromkeys(("embedded", "new", "changed", "renamed", "copied", "gone", "others"), 0)
            report = EmbedReport(folder, False, len(index), unchanged=len(index), skipped=(), seconds=0.0, **counts)
        else:
            report = embed_with(model, words, place, options)
            index = stack.enter_context(Index.open(place))
        options.say("writing")
        write_clip_retrieval(index, folder)
        return replace(report, folder=folder)


def write_clip_retrieval(index: Index, folder: Path) -> None:
    """Writes an index to a new folder, images or texts in the order of their ids.

    Bytes of a path that are not UTF-8 are escaped. Raises JclipError if the index has images and texts.
    """
    import pyarrow
    import pyarrow.parquet

    kinds = [kind for (kind,) in index.query("SELECT DISTINCT kind FROM entries")]
    if len(kinds) > 1:
        raise JclipError(
            f"{index.folder} has images and texts, but clip-retrieval's layout pairs each image with a text: embed "
            "them into two folders"
        )
    kind = kinds[0] if kinds else IMAGE
    name = VECTORS[kind]
    files = max(1, -(-len(index) // ROWS))
    rows = index.all_entries()
    with whole_folder(folder, replace=False) as partial:
        for part in (name, METADATA):
            (partial / part).mkdir()
        for number in range(files):
            end = str(number).zfill(len(str(files - 1)))
            count = min(ROWS, len(index) - number * ROWS)
            schema = _schema(pyarrow, kind)
            with (
                (partial / name / f"{name}_{end}.npy").open("wb") as stream,
                pyarrow.parquet.ParquetWriter(partial / METADATA / f"{METADATA}_{end}.parquet", schema) as writer,
            ):

                def noted(some: list[Entry], writer: Any = writer, schema: Any = schema) -> np.ndarray:
                    writer.write_table(pyarrow.Table.from_pylist([_row(each, kind) for each in some], schema))
                    return index.vectors_at([each.vector for each in some])

                write_array(stream, (count, index.facts.dim), _blocks(islice(rows, count), noted))


def _blocks(entries: Iterator[Entry], noted: Callable[[list[Entry]], np.ndarray]) -> Iterator[np.ndarray]:
    while some := list(islice(entries, _AT_ONCE)):
        yield noted(some)


def _schema(pyarrow: Any, kind: str) -> Any:
    text = [(CAPTION, pyarrow.string()), (META, pyarrow.string())]
    sizes = [("width", pyarrow.int64()), ("height", pyarrow.int64())]
    return pyarrow.schema([(PATH, pyarrow.string()), *sizes, *text] if kind == IMAGE else text)


def _row(entry: Entry, kind: str) -> dict[str, Any]:
    row: dict[str, Any] = {CAPTION: entry.text, META: stored_meta(entry.meta)}
    if kind == IMAGE:
        row |= {PATH: os.fsencode(entry.path).decode("utf-8", "backslashreplace")}
        row |= {"width": entry.width, "height": entry.height}
    return row
