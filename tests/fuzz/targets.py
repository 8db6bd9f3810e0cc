"""All targets: readers of bytes from outside, as functions that a fuzzer calls."""

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np

from tests.fuzz import readers
from tests.fuzz.service import service
from tests.fuzz.target import Ready
from tests.search.indexes import small_entry, write_small_index


def part_of_index(name: str) -> Callable[[Path], Ready]:
    """Returns a target: one of the files of an index."""

    def ready(scratch: Path) -> Ready:
        from jclip.search.filters import Filter, parse_comparison
        from jclip.search.index import Index

        entries = [
            small_entry(1, 0, "/a/b.jpg", meta={"year": 2020, "tag": ["a", "b"]}),
            small_entry(2, 1, b"/a/\xff.jpg", text="猫"),
            small_entry(7, 1, "/t.tar::c.jpg", origin="tar", container=Path("/t.tar"), position=512),
        ]
        file = write_small_index(scratch / "index", np.eye(4)[:3], entries) / name
        valid = file.read_bytes()
        chosen = Filter(folder="/a", meta=(parse_comparison("year>=2020"), parse_comparison("tag!=a")))

        def read(data: bytes) -> None:
            file.unlink()  # arrays of the last call may still map it
            file.write_bytes(data)
            with Index.open(scratch / "index") as index:
                for entry in index.all_entries():
                    index.vector(entry.vector)
                index.entries_of(index.select(chosen))
                index.skipped()
                sum(block_nd.sum(dtype=np.float64) for _, block_nd in index.blocks())

        return Ready([valid], read)

    return ready


def query(scratch: Path) -> Ready:
    """Returns a target: a query."""
    from jclip.search.queries import parse_query

    seeds = ["狗 + 雪 - 人", "2:红色 + 1.5:car", '"a - b" + 2:"3:2"', "- C++ 3:2", "@beach.jpg ＋ ２：a"]
    return Ready(_encoded(seeds), lambda data: parse_query(_text(data)))


def condition(scratch: Path) -> Ready:
    """Returns a target: a condition on metadata, or a time, as a filter of a search."""
    from jclip.search.filters import Filter, parse_comparison, parse_time
    from jclip.search.index import Index

    folder = write_small_index(scratch / "index", np.eye(4)[:1], [small_entry(1, 0, "/a", meta={"n": [1, "b"]})])
    index = Index.open(folder)

    def read(data: bytes) -> None:
        kind, text = data[:1], _text(data[1:])
        if kind == b"t":
            index.select(Filter(since=parse_time(text), before=parse_time(text, end=True)))
        elif kind == b"f":
            index.select(Filter(folder=text))
        else:
            index.select(Filter(meta=(parse_comparison(text),)))

    seeds = ["mn>=2020", "mtag!=海滩", "mn=1", "t2024-05-01", "t2024-05-01T12:30+01:00", "f/a/b"]
    return Ready(_encoded(seeds), read)


def address(scratch: Path) -> Ready:
    """Returns a target: the address of a vector database, and the facts of a table in it."""
    from jclip.search.stores.addresses import parse_address
    from jclip.search.stores.rows import facts_as_text, facts_of_text
    from tests.search.indexes import FACTS

    place = parse_address("pgvector")

    def read(data: bytes) -> None:
        if data[:1] == b"{":
            facts_of_text(_text(data), place)
        else:
            str(parse_address(_text(data)))

    seeds = ["pgvector://me:secret@h:5432/d?sslmode=require&table=a%20b&source=c", "milvus:a.db", facts_as_text(FACTS)]
    return Ready(_encoded(seeds), read)


TARGETS: dict[str, Callable[[Path], Ready]] = {
    "index.json": part_of_index("index.json"),
    "entries.sqlite": part_of_index("entries.sqlite"),
    "segment.npy": part_of_index("segments/000000.npy"),
    "query": query,
    "condition": condition,
    "address": address,
    "image": readers.image,
    "tar": readers.container("images.tar", partial(readers.tars, "")),
    "tar.gz": readers.container("images.tar.gz", partial(readers.tars, "gz")),
    "text": readers.container("texts.txt", readers.texts),
    "service": service,
}


def _encoded(texts: Iterable[str]) -> list[bytes]:
    return [text.encode() for text in texts]


def _text(data: bytes) -> str:
    """Returns bytes as an argument of a command is given to Python: with surrogates for what is not UTF-8."""
    return os.fsdecode(data)
