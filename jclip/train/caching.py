"""Computes a frozen tower's outputs for a stage's data once, before its first step: see `jclip.data.batches.features`.

The tower runs on the mesh, with the batch size that it has in a step. Each process reads its own rows of a batch;
process 0 writes. After each batch all processes exchange stop requests and unreadable rows, so that they stop together.
Complete files are kept.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jclip.data.batches.features import FeatureCache, FeatureRow, describe_source, open_cache
from jclip.data.batches.loader import Batches
from jclip.data.sources.folders import Records
from jclip.data.sources.records import Record
from jclip.errors import JclipError
from jclip.parallel.checksum import checksums
from jclip.parallel.processes import broadcast, everywhere, gather, is_first_process, on_first, wait_until_visible
from jclip.parallel.sharding import local_rows, place_rows, replicated
from jclip.stages import FrozenTower
from jclip.train.assembly import StageParts
from jclip.train.state import TrainState, whole_params

_SHARD_ROWS = 1 << 14  # rows of a file: 48 MB of CLIP's 768 float32s, the most that a killed process loses
_FORMAT = 1

Stepped = Callable[[int, int], None]
"""(rows done, rows in all)"""


class Filled(NamedTuple):
    """Caches of a stage's sources, and the number of rows that this call computed."""

    caches: list[FeatureCache]
    computed: int


def fill(
    part: StageParts, batches: Batches, state: TrainState, stop: Callable[[], bool], stepped: Stepped
) -> Filled | None:
    """Completes the caches of a stage's sources. Returns None if any process was asked to stop.

    Raises JclipError on every process if the cache cannot be written, or not all processes see it.

    Args:
      part: parts of a stage with `cache`.
      batches: the stage's data.
      state: any state of the stage, because frozen parameters do not change.
      stop: returns whether to stop.
      stepped: called with the progress, if anything has to be computed.
    """
    place, opened = Path(part.stage.cache), part.open_inputs().opened
    tower = part.stage.objective.frozen_tower(part.context, opened, whole_params(state), state.stats)
    weights = _hash(tower.variables)
    size = part.stage.batch_size // part.stage.micro_batches
    rows = jax.ShapeDtypeStruct((size, *tower.blank.shape), tower.blank.dtype)
    shape = jax.eval_shape(tower.apply, tower.variables, rows)
    run_tower = jax.jit(tower.apply, out_shardings=replicated(part.mesh))
    caches: list[tuple[FeatureCache, list[int]]] = []
    for source, records in zip(part.stage.data, batches.opened.records, strict=True):
        firsts, count = _firsts(records)

        def begin(source: Any = source, count: int = count) -> FeatureCache:
            description = {**tower.description, "format": _FORMAT, "weights": weights}
            description["data"] = broadcast(describe_source(source, place))
            layout = {"count": count, "width": shape.shape[1], "dtype": str(shape.dtype)}
            shard_rows = size * max(1, _SHARD_ROWS // size)
            on_first(lambda: open_cache(place, tower.name, description, **layout, shard_rows=shard_rows))
            return open_cache(place, tower.name, description, **layout, shard_rows=shard_rows)

        cache = replace(everywhere(begin), first_rows=firsts)
        missing = broadcast(cache.missing() if is_first_process() else [])
        caches.append((cache, missing))
    total = sum(cache.count for cache, _ in caches)
    todo = sum(len(cache.rows_of(shard)) for cache, missing in caches for shard in missing)
    done = total - todo
    for number, (cache, missing) in enumerate(caches):
        for shard in missing:
            features: list[FeatureRow] = []
            rows_of_shard = cache.rows_of(shard)
            for some in (rows_of_shard[start : start + size] for start in range(0, len(rows_of_shard), size)):
                read = partial(tower.read, batches.opened, number)
                made = _rows(part, tower, read, [cache.unit(row) for row in some], size, run_tower, stop)
                if made is None:
                    return None
                features += made
                done += len(made)
                stepped(done, total)
            on_first(lambda: cache.write(shard, features))  # noqa: B023 (called at once)
    found = [cache for cache, _ in caches]
    everywhere(lambda: _check_seen(found))
    return Filled(found, todo)


def _rows(
    part: StageParts,
    tower: FrozenTower,
    read: Callable[[int, int], np.ndarray],
    units: Sequence[tuple[int, int]],
    size: int,
    run_tower: Callable[[Any, jax.Array], jax.Array],
    stop: Callable[[], bool],
) -> list[FeatureRow] | None:
    """Returns the features of some (record, image), or an error message for an unreadable one; None to stop."""
    filled = [*units, *[units[0]] * (size - len(units))]  # one shape, one compilation
    mine, errors = [], {}
    for row in local_rows(size, part.mesh):
        try:
            mine.append(read(*filled[row]))
        except JclipError as error:
            mine.append(tower.blank)
            errors[row] = str(error)
    report = {"stop": stop(), "errors": list(errors.items())}
    reports = gather(report if any(report.values()) else None)
    if any(each["stop"] for each in reports):
        return None
    found = np.asarray(run_tower(tower.variables, place_rows(np.stack(mine), size, part.mesh)))
    rows: list[FeatureRow] = list(found[: len(units)])
    for row, message in (error for each in reports for error in each["errors"]):
        if row < len(units):
            rows[row] = message
    return rows


def _hash(variables: Any) -> str:
    """Returns a hash of all weights, independent of their sharding."""
    shapes = {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{leaf.shape}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
    }
    sums = {path: [shapes[path], value] for path, value in checksums(variables).items()}
    return hashlib.blake2b(json.dumps(sums, sort_keys=True).encode(), digest_size=16).hexdigest()


def _firsts(records: Sequence[Record]) -> tuple[tuple[int, ...] | None, int]:
    """Returns the row of each record's first image (None if rows are records), and the number of rows."""
    if isinstance(records, Records):  # a record of a folder has one image, and is not read for that
        return None, len(records)
    counts = [1] * len(records)
    for number in range(len(records)):
        with suppress(JclipError):  # the record's row says why it is unreadable
            counts[number] = records[number].inputs()
    ends = np.cumsum(counts).tolist()
    return (0, *ends[:-1]), ends[-1]


def _check_seen(caches: Sequence[FeatureCache]) -> None:
    for cache in caches:
        if not all(map(wait_until_visible, cache.files)) or cache.missing():  # all() stops early
            raise JclipError(
                f"{cache.folder} lacks {len(cache.missing())} files that process 0 wrote: give all processes the "
                "same cache, on a shared disk"
            )
