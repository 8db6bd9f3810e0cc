"""Lists what the devices of a compiled step exchange, by the meaning of the arrays, which their sizes tell."""

from collections import Counter
from math import prod

import jax

from jclip import rules
from jclip.accelerators.account import account
from jclip.axes import TENSOR
from jclip.parallel.sharding import batch_devices
from jclip.train.layout import merge


def exchanges(part, text):
    """Returns {(kind, meaning): number of arrays that are exchanged in a step} of a stage's compiled text."""
    found, meanings = account(text), _meanings(part)
    assert not found.unknown, found.unknown
    counts = Counter()
    for each in found.collectives:
        for array in each.arrays:
            kind = each.kind if each.devices > 1 else "nothing"
            meaning = "scalar" if array.elements == 1 else meanings.get(array.elements)
            counts[kind, meaning or f"{array.dtype}{list(array.dims)}"] += each.times
    return {key: count for key, count in sorted(counts.items()) if key[0] != "nothing"}


def _meanings(part):
    """Returns {number of elements: meaning}. Raises AssertionError if two meanings have the same number."""
    stage, model = part.stage, part.run.model
    batch, rows = stage.batch_size, stage.batch_size // stage.micro_batches
    local, share = rows // batch_devices(part.mesh), batch // batch_devices(part.mesh)
    found = {
        "features": {size * model.embed_dim for size in (batch, share)},
        "statistics": {batch, share},
        "ids": {size * 3 for size in (batch, share)},
        "tokens": {rows * stage.context_length},
        "states": {local * stage.context_length * model.text.width},
        "a token's states": {local * model.text.width},
        "parameter": set(_parameters(part)) - {1},
    }
    if model.image.patches:
        found["states"].add(local * model.image.tokens * model.image.width)
        found["a token's states"].add(local * model.image.width)
    meanings = {}
    for meaning, sizes in found.items():
        for size in sizes:
            assert size not in meanings, f"{meaning} and {meanings[size]} have {size} elements each"
            meanings[size] = meaning
    return meanings


def _parameters(part):
    """Yields the sizes of each parameter, for one layer of a stack: as tensor splits it, as fsdp does too, or whole."""
    state = part.shardings
    teacher = jax.tree.map(lambda leaf: leaf.sharding, part.program.constants)
    shapes = part.paths | rules.paths_of(part.program.constants)
    for path, at in rules.paths_of({**merge(state.trainable, state.frozen), **teacher}).items():
        shape, own = shapes[path].shape, at.shard_shape(shapes[path].shape)
        layers = shape[0] if "layers/" in path else 1
        ways = part.mesh.shape[TENSOR] if TENSOR in str(at.spec) else 1
        yield prod(shape) // layers // ways
        yield prod(own) // layers
        if "layers/" not in path:
            yield prod(shape)
        if path.endswith("position_embedding"):  # without the class token's, or of the positions that a text has
            yield (shape[0] - 1 if path.startswith("image/") else part.stage.context_length) * shape[1]
