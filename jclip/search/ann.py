"""Approximate index: a faiss index of the vectors, in the folder `ann` of an index, with its measured recall.

It finds candidates; their scores are then computed exactly. So only its recall is below that of exact search.
INDEX/ann/vectors.faiss is memory-mapped, and INDEX/ann/ann.json has its `AnnFacts`.

faiss reads its files with C++ code that trusts them. jclip checks the size of the file, the kind and shape of what
faiss read, and the vector numbers that it returns. That finds accidents, not attacks: use only files of people whom you
trust.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from jclip.config import from_json
from jclip.errors import JclipError, first_line
from jclip.io.files import check_utf8, whole_folder
from jclip.io.json_files import read_object
from jclip.plain import as_json
from jclip.search.index import Index
from jclip.search.recall import AnnMeasurements, measured, queries_of

FOLDER = "ann"
_VECTORS, _FACTS = "vectors.faiss", "ann.json"
_LARGEST_FACTS = 1 << 16  # bytes
_LARGE = 2_000_000
"""Number of vectors from which lists are used: a graph finds more in the same time, but takes longer to build."""
_QUERIES = 1000
_TARGET = 0.99
_EFFORTS = (16, 32, 64, 128, 256, 512, 1024)
_SAMPLE = 1024


@dataclass(frozen=True)
class AnnFacts(AnnMeasurements):
    """Facts of an approximate index: its measurements, and what is needed to open it.

    Attributes:
      kind: faiss's name of it.
      effort: visited candidates (HNSW) or lists (IVF) of a search: the least that reached the target in tuning.
      state: digest of the vectors that it was built from.
      vectors: their number.
      size: number of bytes of the file.
    """

    kind: str
    effort: int
    state: str
    vectors: int
    size: int


@dataclass(frozen=True)
class _Kind:
    """Kind of a faiss index.

    Attributes:
      make: returns an empty index for vectors (dimension, number).
      training: returns the number of vectors to train it with, given the number of all.
      parameters: returns the parameters of a search of an effort.
    """

    make: Callable[[int, int], Any]
    training: Callable[[int], int]
    parameters: Callable[[int], Any]


def _hnsw(dim: int, count: int) -> Any:
    import faiss

    made = faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_fp16, 32, faiss.METRIC_INNER_PRODUCT)
    made.hnsw.efConstruction = 100
    return made


def _ivf(dim: int, count: int) -> Any:
    import faiss

    return faiss.index_factory(dim, f"IVF{_lists(count)},SQfp16", faiss.METRIC_INNER_PRODUCT)


def _lists(count: int) -> int:
    return max(1, round(4 * count**0.5))


def _hnsw_parameters(effort: int) -> Any:
    import faiss

    return faiss.SearchParametersHNSW(efSearch=effort)


def _ivf_parameters(effort: int) -> Any:
    import faiss

    return faiss.SearchParametersIVF(nprobe=effort)


_KINDS = {
    "HNSW32,SQfp16": _Kind(_hnsw, lambda count: 1, _hnsw_parameters),
    "IVF,SQfp16": _Kind(_ivf, lambda count: 40 * _lists(count), _ivf_parameters),
}


class Ann:
    """Opened approximate index. It may be used from several threads.

    Args:
      facts: its facts.
      index: faiss's index.
    """

    def __init__(self, facts: AnnFacts, index: Any):
        self.facts, self._index = facts, index

    def nearest(self, query_d: np.ndarray, count: int) -> np.ndarray:
        """Returns the numbers of at most `count` vectors that are nearest to a query, (n,) int64, in any order."""
        return _found(self._index, _KINDS[self.facts.kind].parameters(self.facts.effort), query_d, count)


def build_ann(
    index: Index,
    texts_nd: np.ndarray | None = None,
    say: Callable[[str], None] = lambda words: None,
) -> AnnFacts:
    """Builds and tunes the approximate index of an index, measures it, and writes it into the index's folder.

    Args:
      index: the index.
      texts_nd: features of texts that people search for, (n, dim): half are used for tuning, half for measuring.
      say: called with words about the progress.

    Raises:
      JclipError: the index is empty, or its folder cannot be written.
      MissingExtra: faiss is not installed.
    """
    import faiss

    live = index.select()
    if not len(live):
        raise JclipError(f"{index.folder} is empty: run jclip embed first")
    check_utf8(index.folder, "faiss")
    name = "IVF,SQfp16" if index.vectors >= _LARGE else "HNSW32,SQfp16"
    start = time.perf_counter()
    built = _built(_KINDS[name], index, live, say)
    seconds = time.perf_counter() - start
    say("measuring recall")
    rows, texts = queries_of(index, _QUERIES, texts_nd)

    def nearest(effort: int, query_d: np.ndarray, count: int) -> np.ndarray:
        return _found(built, _KINDS[name].parameters(effort), query_d, count)

    effort = next(
        (
            each
            for each in _EFFORTS
            if all(some.tuning_recall(partial(nearest, each)) >= _TARGET for some in (rows, texts))
        ),
        _EFFORTS[-1],
    )
    measurements = measured(rows, texts, partial(nearest, effort), seconds)
    with whole_folder(index.folder / FOLDER) as folder:
        faiss.write_index(built, str(folder / _VECTORS))
        facts = AnnFacts(
            kind=name,
            effort=effort,
            state=state_of(index),
            vectors=index.vectors,
            size=(folder / _VECTORS).stat().st_size,
            **asdict(measurements),
        )
        (folder / _FACTS).write_text(as_json(asdict(facts), indent=2) + "\n", encoding="utf-8")
    return facts


def read_ann_facts(index: Index) -> AnnFacts | None:
    """Returns the facts of an index's approximate index, which may be out of date; None if it has none.

    Raises JclipError if they are damaged.
    """
    file = index.folder / FOLDER / _FACTS
    if not file.is_file():
        return None
    facts: AnnFacts = from_json(AnnFacts, read_object(file, largest=_LARGEST_FACTS), f"{file}: ")
    if facts.kind not in _KINDS or facts.effort < 1:
        raise _unusable(index, f"its kind is {facts.kind!r}, of effort {facts.effort}")
    return facts


def open_ann(index: Index) -> Ann:
    """Opens the approximate index of an index.

    Raises:
      JclipError: there is none; it was built from other vectors, as after `jclip embed --update`; or it is damaged.
      MissingExtra: faiss is not installed.
    """
    import faiss

    facts = read_ann_facts(index)
    if facts is None:
        raise JclipError(f"{index.folder} has no approximate index: run jclip index {index.folder} --ann")
    if facts.state != state_of(index):
        raise JclipError(
            f"{index.folder} has changed since its approximate index was built: run jclip index {index.folder} --ann"
        )
    file = index.folder / FOLDER / _VECTORS
    check_utf8(file, "faiss")
    if not file.is_file() or file.stat().st_size != facts.size:
        raise _unusable(index, f"{_VECTORS} is not of {facts.size} bytes")
    try:
        found = faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise _unusable(index, first_line(error)) from None
    shape = found.d, found.ntotal, found.metric_type
    expected = index.facts.dim, index.vectors, faiss.METRIC_INNER_PRODUCT
    kind = type(_KINDS[facts.kind].make(1, 1))
    if type(found) is not kind or shape != expected:
        raise _unusable(index, f"{_VECTORS} is a {type(found).__name__} of shape {shape}")
    return Ann(facts, found)


def state_of(index: Index) -> str:
    """Returns a digest of the model, the table of segments, and a sample of the vectors."""
    digest = hashlib.blake2b(digest_size=16)
    table = index.query("SELECT number, first, count FROM segments ORDER BY first")
    digest.update(repr((index.facts.model_identity, index.facts.dim, table)).encode())
    sample = np.unique(np.linspace(0, index.vectors - 1, min(_SAMPLE, index.vectors)).astype(np.int64))
    digest.update(index.vectors_at(sample).tobytes())
    return digest.hexdigest()


def _built(kind: _Kind, index: Index, live: np.ndarray, say: Callable[[str], None]) -> Any:
    built = kind.make(index.facts.dim, index.vectors)
    say("training")
    some = np.random.default_rng(0).permutation(live)[: kind.training(len(live))]
    built.train(_floats(index, index.vectors_at(np.sort(some))))
    for first, block_nd in index.blocks(1 << 14):
        say(f"adding vectors: {first:,} of {index.vectors:,}")
        built.add(_floats(index, block_nd))
    return built


def _floats(index: Index, block_nd: np.ndarray) -> np.ndarray:
    """Returns vectors in float32. Raises JclipError if they are damaged, which faiss does not expect."""
    if not np.isfinite(block_nd).all():
        raise JclipError(f"{index.folder} has vectors that are not finite: it is damaged; run jclip embed again")
    return block_nd.astype(np.float32)


def _found(index: Any, parameters: Any, query_d: np.ndarray, count: int) -> np.ndarray:
    _, numbers = index.search(query_d[None].astype(np.float32), min(count, index.ntotal), params=parameters)
    found: np.ndarray = numbers[0]
    return np.unique(found[(found >= 0) & (found < index.ntotal)])  # -1 stands for none


def _unusable(index: Index, reason: str) -> JclipError:
    return JclipError(
        f"{index.folder / FOLDER} cannot be used ({reason}): build it again with jclip index {index.folder} --ann"
    )
