"""Runs a stage's frozen tower over its data once, before its first step: see `jclip.data.batches.features`.

The tower computes on the mesh, in batches of the size it would have in a step. Each process reads its own rows of a
batch, and the first one writes. After each batch all meet, so that a process which is asked to stop, or which meets an
error, takes the others along; files that are whole by then stay.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jclip.config import to_json
from jclip.data.batches.features import FeatureCache, FeatureRow, describe_source, open_cache
from jclip.data.sources.folders import Records
from jclip.data.sources.records import Pair
from jclip.errors import JclipError
from jclip.images.preprocess import to_array
from jclip.models.dual_encoder import DualEncoder
from jclip.parallel.checksum import checksums
from jclip.parallel.processes import appears, first, is_first, meet, said_by_first, together
from jclip.parallel.sharding import local_rows, place_rows, replicated
from jclip.tokenizers.padding import Texts
from jclip.train.assembly import StageParts
from jclip.train.identity import of_tokenizer
from jclip.train.state import TrainState, whole_params
from jclip.train.step import see, teach

_SHARD_ROWS = 1 << 14  # of a file: 48 MB of CLIP's 768 float32s, which is lost at most when a process is killed
_FORMAT = 1

Stepped = Callable[[int, int], None]
"""(rows that are done, rows in all)"""


@dataclass(frozen=True)
class Tower:
    """A frozen tower, ready to run.

    Attributes:
      name: "image" or "teacher".
      variables: on the mesh.
      apply: (variables, batch) -> features (b, d); what the step would do.
      read: (source number, record, picture) -> a row of a batch; a JclipError where it cannot be read.
      blank: a row in the place of one that cannot.
      description: what decides the features, but for the source.
    """

    name: str
    variables: Any
    apply: Callable[[Any, jax.Array], jax.Array]
    read: Callable[[int, int, int], np.ndarray]
    blank: np.ndarray
    description: dict[str, Any]


class Filled(NamedTuple):
    """The caches of a stage's sources, and how many rows were computed for them now."""

    caches: list[FeatureCache]
    computed: int


def fill(part: StageParts, state: TrainState, stop: Callable[[], bool], stepped: Stepped) -> Filled | None:
    """Completes the caches of a stage's sources; None where a stop was asked for, on any process.

    Args:
      part: of a stage with `cache`.
      state: at its beginning, or later: what is frozen is the same.
      stop: whether to stop.
      stepped: is told of the progress, if anything is to be computed.

    Raises:
      JclipError: the cache cannot be written to, or not all processes see it; on every process.
    """
    place, tower = Path(part.stage.cache), _image_tower(part, state) if _of_pictures(part) else _teacher_tower(part)
    size = part.stage.batch_size // part.stage.micro_batches
    rows = jax.ShapeDtypeStruct((size, *tower.blank.shape), tower.blank.dtype)
    shape = jax.eval_shape(tower.apply, tower.variables, rows)
    run_tower = jax.jit(tower.apply, out_shardings=replicated(part.mesh))
    caches: list[tuple[FeatureCache, Sequence[tuple[int, int]], list[int]]] = []
    for source, records in zip(part.stage.data, part.batches.opened.records, strict=True):
        firsts, units = _units(records)

        def begin(source: Any = source, count: int = len(units)) -> FeatureCache:
            description = {
                **tower.description,
                "data": json.loads(said_by_first(json.dumps(describe_source(source, place)))),
            }
            layout = {"count": count, "width": shape.shape[1], "dtype": str(shape.dtype)}
            shard_rows = size * max(1, _SHARD_ROWS // size)
            first(lambda: open_cache(place, tower.name, description, **layout, shard_rows=shard_rows))
            return open_cache(place, tower.name, description, **layout, shard_rows=shard_rows)

        cache = replace(together(begin), first=firsts)
        missing = json.loads(said_by_first(json.dumps(cache.missing() if is_first() else [])))
        caches.append((cache, units, missing))
    total = sum(cache.count for cache, _, _ in caches)
    todo = sum(len(cache.rows_of(shard)) for cache, _, missing in caches for shard in missing)
    done = total - todo
    for number, (cache, units, missing) in enumerate(caches):
        for shard in missing:
            features: list[FeatureRow] = []
            for some in _in_batches(cache.rows_of(shard), size):
                made = _rows(part, tower, number, [units[row] for row in some], size, run_tower, stop)
                if made is None:
                    return None
                features += made
                done += len(made)
                stepped(done, total)
            first(lambda: cache.write(shard, features))  # noqa: B023 (called at once)
    found = [cache for cache, _, _ in caches]
    together(lambda: _check_seen(found))
    return Filled(found, todo)


def _rows(
    part: StageParts,
    tower: Tower,
    source: int,
    units: Sequence[tuple[int, int]],
    size: int,
    run_tower: Callable[[Any, jax.Array], jax.Array],
    stop: Callable[[], bool],
) -> list[FeatureRow] | None:
    """The features of some (record, picture), or why there are none; None to stop."""
    filled = [*units, *[units[0]] * (size - len(units))]  # a batch has always the same size
    mine, troubles = [], {}
    for row in local_rows(size, part.mesh):
        try:
            mine.append(tower.read(source, *filled[row]))
        except JclipError as error:
            mine.append(tower.blank)
            troubles[row] = str(error)
    word = {"stop": stop(), "troubles": list(troubles.items())}
    told = [json.loads(each) for each in meet(json.dumps(word) if any(word.values()) else None)]
    if any(each["stop"] for each in told):
        return None
    found = np.asarray(run_tower(tower.variables, place_rows(np.stack(mine), size, part.mesh)))
    rows: list[FeatureRow] = list(found[: len(units)])
    for row, why in (trouble for each in told for trouble in each["troubles"]):
        if row < len(units):
            rows[row] = why
    return rows


def _image_tower(part: StageParts, state: TrainState) -> Tower:
    run, model = part.run, part.model
    variables = {"params": {"image": whole_params(state)["image"]}}
    if state.stats:
        variables["batch_stats"] = state.stats

    def read(source: int, record: int, picture: int) -> np.ndarray:
        opened = part.batches.opened
        shown = opened.records[source][record].pictures[picture]
        name = opened.picture_name(source, record, shown)
        return to_array(run.preprocessing, shown, name)

    return Tower(
        name="image",
        variables=variables,
        apply=lambda variables, pixels_bhwc: see(model, run.preprocessing, variables, pixels_bhwc),
        read=read,
        blank=np.zeros((run.preprocessing.size, run.preprocessing.size, 3), np.uint8),
        description={
            "format": _FORMAT,
            "tower": to_json(run.model.image),
            "width": run.model.embed_dim,
            "weights": _hash(variables),
            "dtype": run.dtype,
            "preprocessing": to_json(run.preprocessing),
        },
    )


def _teacher_tower(part: StageParts) -> Tower:
    given, bundle = part.run.teacher, part.teacher
    assert given is not None and bundle is not None
    teacher, texts = DualEncoder(given.model), Texts(bundle.tokenizer, given.context_length)
    variables = {"params": part.teacher_params()}

    def read(source: int, record: int, picture: int) -> np.ndarray:
        return texts([part.batches.opened.records[source][record].english])[0]

    return Tower(
        name="teacher",
        variables=variables,
        apply=lambda variables, ids_bm: teach(teacher, variables["params"], ids_bm),
        read=read,
        blank=np.full(given.context_length, bundle.tokenizer.pad_id, np.int32),
        description={
            "format": _FORMAT,
            "tower": to_json(given.model.text),
            "head_width": given.model.head_width,
            "weights": _hash(variables),
            "dtype": str(jnp.dtype(teacher.dtype)),
            "tokenizer": of_tokenizer(bundle.tokenizer),
            "context_length": given.context_length,
        },
    )


def _of_pictures(part: StageParts) -> bool:
    return part.stage.objective == "contrastive"


def _hash(variables: Any) -> str:
    """Of all weights, wherever they lie."""
    shapes = {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{leaf.shape}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
    }
    sums = {path: [shapes[path], value] for path, value in checksums(variables).items()}
    return hashlib.blake2b(json.dumps(sums, sort_keys=True).encode(), digest_size=16).hexdigest()


def _units(records: Sequence[Any]) -> tuple[tuple[int, ...] | None, "Sequence[tuple[int, int]]"]:
    """The row of each record's first picture, None where that is its number; and (record, picture) of each row."""
    if not isinstance(records, Records) and isinstance(records[0], Pair):
        counts = [len(pair.pictures) for pair in records]
        if max(counts) > 1:
            firsts = tuple(int(row) for row in np.cumsum([0, *counts[:-1]]))
            return firsts, [(record, picture) for record, count in enumerate(counts) for picture in range(count)]
    return None, _OneEach(len(records))


class _OneEach(Sequence[Any]):
    """(record, 0) for each record, of which there may be hundreds of millions."""

    def __init__(self, count: int):
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: Any) -> Any:
        return row, 0


def _in_batches(rows: range, size: int) -> Iterator[range]:
    for start in range(rows.start, rows.stop, size):
        yield range(start, min(start + size, rows.stop))


def _check_seen(caches: Sequence[FeatureCache]) -> None:
    for cache in caches:
        if not all(map(appears, cache.files)) or cache.missing():  # all() ends with the first that does not come
            raise JclipError(
                f"{cache.folder} lacks {len(cache.missing())} files here that the first process wrote: give all "
                "processes the same cache, on a shared disk"
            )
