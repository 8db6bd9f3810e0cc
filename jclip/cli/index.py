"""`jclip index INDEX`."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from jclip.cli.index_model import index_model
from jclip.cli.options import read
from jclip.cli.stores import measurement_words, push_with_progress, store_of
from jclip.console import Console, facts, text
from jclip.errors import JclipError
from jclip.io.files import check_folder
from jclip.io.json_files import read_bytes
from jclip.plain import print_json
from jclip.search.ann import AnnFacts, build_ann, read_ann_facts, state_of
from jclip.search.entries import KINDS
from jclip.search.index import Index
from jclip.units import format_size

_LARGEST_QUERIES = 16 << 20  # bytes
_FEW_TEXTS = 2


@dataclass(frozen=True)
class IndexOptions:
    """Prints facts of INDEX, which `jclip embed` wrote: entries, vectors, model, size, and images that were skipped.

    --ann also builds an approximate index, for more than about a million entries. It prints the building time and the
    recall@10: the share of the ten best entries of an exact search that are found. It is measured on entries of the
    index, and on the texts of --queries, which differ more from images than other images do. The first half of them
    is for tuning, the second for measuring. `jclip search --ann` uses the approximate index. Build it again after
    `jclip embed --update`.

    faiss reads its own files with little checking: use --ann only on an index whose origin you trust.

    --to copies the index to a table of PostgreSQL with pgvector, or of Milvus, for search by other machines:

      jclip index photos.index --to pgvector://me@db.example/photos
      jclip search pgvector://me@db.example/photos 狗

    It can be repeated: it writes what is new or has changed, deletes what has gone, and goes on after an interruption.
    Several indexes of one model can be in one table. --ann then builds the approximate index there, and measures it.
    docs/stores.md describes addresses and tables.

    Attributes:
      index: folder that `jclip embed` wrote.
      ann: build the approximate index. It needs the extra "search".
      to: address of a database: pgvector://USER@HOST/DATABASE, milvus://HOST:PORT or milvus:FILE.db, and ?table=NAME.
      queries: file of texts that people search for, one on each line, at least two.
      model: model for --queries instead of the one that the index names. It must have the same contents.
      json: print JSON.
    """

    index: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="INDEX")]]
    ann: bool = False
    to: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")] = None
    queries: Path | None = None
    model: str | None = None
    json: bool = False


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = read(IndexOptions, arguments, "jclip index")
    if options.queries is not None and not options.ann:
        raise JclipError("--queries measures an approximate index: give --ann with it")
    texts = None if options.queries is None else _texts(options.queries)
    if options.to is not None:
        return _push(options, options.to, texts)
    with Index.open(options.index) as index:
        if options.ann:
            check_folder(options.index)
            with Console(stderr=True).working("reading") as say:
                build_ann(index, None if texts is None else _encoded(index, options.model, texts, say), say)
        found = _facts(index)
        ann = read_ann_facts(index)
        is_current = ann is not None and ann.state == state_of(index)
    if options.json:
        print_json(found | {"ann": None if ann is None else asdict(ann) | {"current": is_current}}, indent=1)
        return 0
    table = facts(options.index)
    for name, value in _words(found):
        table.add_row(text(name), text(value, longest=None))
    for name, value in _ann_words(ann, is_current) if ann else ():
        table.add_row(text(name), text(value, "" if is_current else "yellow", longest=None))
    Console().print(table)
    return 0


def _push(options: IndexOptions, to: str, texts: Sequence[str] | None) -> int:
    with Index.open(options.index) as index, store_of(index, to) as store:
        console = Console(stderr=True)
        texts_nd = None
        if texts is not None:
            with console.working("reading") as say:
                texts_nd = _encoded(index, options.model, texts, say)
        report = push_with_progress(index, store, console, options.ann, texts_nd)
    if options.json:
        print_json(report.record(), indent=1)
    else:
        Console().print(report.table(options.index))
    return 0


def _texts(file: Path) -> list[str]:
    try:
        lines = read_bytes(file, largest=_LARGEST_QUERIES).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise JclipError(f"{file} is not UTF-8 text: save it as UTF-8") from None
    texts = [line.strip() for line in lines if line.strip()]
    if len(texts) < _FEW_TEXTS:
        raise JclipError(f"{file} has {len(texts)} texts, but must have at least {_FEW_TEXTS}: add some")
    return texts


def _encoded(index: Index, source: str | None, texts: Sequence[str], say: Callable[[str], None]) -> np.ndarray:
    say("encoding the queries")
    return index_model(index, source, "text").encode_text(texts)


def _facts(index: Index) -> dict[str, Any]:
    """Returns the facts of an index, JSON-ready."""
    used = len(index.select())
    counts = dict(index.query("SELECT kind, count(*) FROM entries GROUP BY kind"))
    return {
        "entries": {kind: counts.get(kind, 0) for kind in KINDS},
        "vectors": {"used": used, "unused": index.vectors - used},
        "bytes": sum(file.stat().st_size for file in index.folder.rglob("*") if file.is_file()),
        "skipped": dict(Counter(reason for _, reason, _ in index.skipped()).most_common()),
        **asdict(index.facts),
    }


def _words(found: dict[str, Any]) -> list[tuple[str, str]]:
    skipped = [(f"skipped: {reason}", f"{count:,}") for reason, count in found["skipped"].items()]
    return [
        *((f"{kind}s", f"{count:,}") for kind, count in found["entries"].items() if count),
        ("vectors", f"{found['vectors']['used']:,} of dimension {found['dim']}, {found['dtype']}"),
        ("unused vectors", f"{found['vectors']['unused']:,}"),
        ("size", format_size(found["bytes"])),
        ("model", f"{found['model_name']}, from {found['model_source']}"),
        ("model's identity", found["model_identity"][:16]),
        ("EXIF orientation", {"apply": "applied", "ignore": "ignored"}[found["orientation"]]),
        ("made by", found["created_by"]),
        *skipped,
    ]


def _ann_words(ann: AnnFacts, is_current: bool) -> list[tuple[str, str]]:
    stale = [] if is_current else [("", "out of date: run jclip index --ann again")]
    return [
        ("approximate index", f"{ann.kind}, effort {ann.effort}, {format_size(ann.size)}"),
        *measurement_words(ann),
        *stale,
    ]
