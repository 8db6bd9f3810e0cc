"""Frozen parameters in the host's memory, while a stage's steps run on devices that have their own memory.

Between the steps of such a stage its state holds `Parked` arrays instead of the frozen parameters. A step takes its own
copy of what it reads of them (`jclip.train.reads`). Checkpoints, evaluations, bundles and the next stage take the whole
state, for which the originals are copied to the devices and deleted there afterwards: 1.1 GiB for ViT-L/14.

Each process keeps the shards of its own devices, so nothing is exchanged and every sharding is possible. An array with
memory_kind="pinned_host" would be kept once for each device, even if it is replicated, and no function could take it
without knowing that.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jclip.train.state import TrainState

_Index = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, eq=False)
class Parked:
    """Array in the host's memory.

    Attributes:
      shape, dtype, sharding: those of the array on the devices.
      shards: the parts that this process's devices hold, each once, by their index.
    """

    shape: tuple[int, ...]
    dtype: Any
    sharding: jax.sharding.Sharding
    shards: Mapping[_Index, np.ndarray]

    def on_devices(self, dtype: Any = None) -> jax.Array:
        """Returns the array on the devices, converted to `dtype` if it is given. Processes exchange nothing."""

        def shard(index: tuple[slice, ...] | None) -> np.ndarray:
            return self.shards[_key(index or (), self.shape)].astype(dtype or self.dtype, copy=False)

        return jax.make_array_from_callback(self.shape, self.sharding, shard)


def parked(state: TrainState) -> TrainState:
    """Moves the frozen parameters of a state to the host's memory, and deletes them on the devices."""
    return state._replace(frozen=jax.tree.map(_park, state.frozen))


def unparked(state: TrainState) -> TrainState:
    """Returns the whole state on the devices, with copies of parked parameters."""
    return state._replace(frozen=jax.tree.map(_unpark, state.frozen))


@contextmanager
def on_devices(state: TrainState) -> Iterator[TrainState]:
    """Yields the whole state on the devices, for the block. Copies of parked parameters are deleted at its end."""
    whole = unparked(state)
    try:
        yield whole
    finally:
        # References that the block left behind, as in a writer's thread, would keep the memory.
        jax.tree.map(lambda leaf, copy: copy.delete() if leaf is not copy else None, state.frozen, whole.frozen)


def _park(leaf: jax.Array | Parked) -> Parked:
    if isinstance(leaf, Parked):
        return leaf
    shards = dict[_Index, np.ndarray]()
    for shard in leaf.addressable_shards:
        key = _key(shard.index, leaf.shape)
        if key not in shards:
            shards[key] = np.asarray(shard.data)
    found = Parked(leaf.shape, leaf.dtype, leaf.sharding, shards)
    leaf.delete()
    return found


def _unpark(leaf: jax.Array | Parked) -> jax.Array:
    return leaf.on_devices() if isinstance(leaf, Parked) else leaf


def _key(index: tuple[slice, ...], shape: tuple[int, ...]) -> _Index:
    return tuple(each.indices(size) for each, size in zip(index, shape, strict=True))
