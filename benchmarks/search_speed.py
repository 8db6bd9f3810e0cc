"""Time of one exact query: jclip's memory-mapped float16 index, NumPy's float32 matrix product, and faiss.

    python -m benchmarks.search_speed                        a minute, on an idle machine
    python -m benchmarks.search_speed --vectors 1000000

Each contender returns the numbers and scores of the ten best of random vectors, and all must agree:

- numpy: float32 vectors in memory; a product, and a partial sort. It needs twice the memory.
- faiss flat: the same vectors in an `IndexFlatIP`.
- faiss fp16: an `IndexScalarQuantizer` of float16, as much memory as jclip.
- jclip: `Scorer.best`, on an index that `write_index` wrote.

They take turns; a ratio compares the turns of a round. It also gives the time in which near duplicates are found among
a part of the vectors. Exits with 1 if the median ratio of jclip to numpy is above 3.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import tyro

from jclip.search import Index
from jclip.search.duplicates import groups_of
from jclip.search.index import IndexFacts
from jclip.search.scoring import Scorer
from jclip.search.writing import write_index

MOST = 3.0
K = 10


@dataclass(frozen=True)
class Options:
    """Options of the benchmark.

    Attributes:
      vectors: number of vectors.
      dim: their dimension.
      rounds: number of rounds, in which each contender answers one query.
      duplicates: number of vectors among which near duplicates are found.
    """

    vectors: int = 200_000
    dim: int = 512
    rounds: int = 40
    duplicates: int = 20_000


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    options = tyro.cli(Options, description=__doc__)
    random = np.random.default_rng(0)
    vectors_nd = random.standard_normal((options.vectors, options.dim), dtype=np.float32)
    vectors_nd /= np.linalg.norm(vectors_nd, axis=1, keepdims=True)
    vectors_nd = vectors_nd.astype(np.float16).astype(np.float32)  # the same for all
    queries_qd = random.standard_normal((options.rounds + 1, options.dim), dtype=np.float32)
    queries_qd /= np.linalg.norm(queries_qd, axis=1, keepdims=True)
    with tempfile.TemporaryDirectory() as folder:
        facts = IndexFacts("", "random", "", options.dim, "apply", "benchmark")
        write_index(Path(folder) / "index", facts, vectors_nd, [])
        with Index.open(Path(folder) / "index") as index:
            seconds = _timed(_contenders(index, vectors_nd), queries_qd)
            first = time.perf_counter()
            groups_of(index, np.arange(min(options.duplicates, index.vectors)), 0.95)
            duplicates = time.perf_counter() - first
    print("| contender | ms, median | lowest | highest | of numpy |\n|---|---:|---:|---:|---|")
    for name, each in seconds.items():
        ratios = [mine / other for mine, other in zip(each, seconds["numpy"], strict=True)]
        low, middle, high = (1000 * value for value in (min(each), statistics.median(each), max(each)))
        print(f"| {name} | {middle:.1f} | {low:.1f} | {high:.1f} | {statistics.median(ratios):.2f} |")
    print(f"\nnear duplicates among {options.duplicates:,} vectors: {duplicates:.1f} s")
    ratio = statistics.median(mine / other for mine, other in zip(seconds["jclip"], seconds["numpy"], strict=True))
    return int(ratio > MOST)


def _contenders(
    index: Index, vectors_nd: np.ndarray
) -> dict[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]]:
    dim = vectors_nd.shape[1]
    flat = faiss.IndexFlatIP(dim)
    half = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    for each in (flat, half):
        each.train(vectors_nd[:1])
        each.add(vectors_nd)
    scorer = Scorer(index, dim)

    def numpy(query_d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores_n = vectors_nd @ query_d
        best = np.argpartition(-scores_n, K)[:K]
        best = best[np.argsort(-scores_n[best])]
        return best, scores_n[best]

    def search(index: faiss.Index, query_d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores, numbers = index.search(query_d[None], K)
        return numbers[0], scores[0]

    return {
        "numpy": numpy,
        "faiss flat": lambda query_d: search(flat, query_d),
        "faiss fp16": lambda query_d: search(half, query_d),
        "jclip": lambda query_d: scorer.best(query_d, K),
    }


def _timed(
    contenders: dict[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]], queries_qd: np.ndarray
) -> dict[str, list[float]]:
    """Returns the seconds of each contender for each query but the first, which compiles and warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number, query_d in enumerate(queries_qd):
        answers = []
        for name, search in contenders.items():
            start = time.perf_counter()
            answers.append(search(query_d))
            if number:
                seconds[name].append(time.perf_counter() - start)
        for numbers, scores in answers:
            assert (numbers == answers[0][0]).all() and np.abs(scores - answers[0][1]).max() < 1e-5
    return seconds


if __name__ == "__main__":
    sys.exit(main())
