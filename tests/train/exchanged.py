"""Lists what the devices of a compiled step exchange, by the meaning of the arrays, which their sizes tell."""

from collections import Counter
from math import prod

import jax

from jclip import rules
from jclip.accelerators.account import account
from jclip.axes import TENSOR
from jclip.models.transformer import SHALLOW
from jclip.parallel.sharding import batch_devices
from jclip.train.layout import merge


def exchanges(part, text, *, stacks=False):
    """Returns {(kind, meaning): number of arrays that are exchanged in a step} of a stage's compiled text.

    With `stacks`, an array with a parameter of all layers counts as one array for each layer: TPU's compiler sums the
    gradients of small parameters after the loop over the layers.
    """
    found, meanings = account(text), _meanings(part, stacks)
    assert not found.unknown, found.unknown
    counts = Counter()
    for each in found.collectives:
        for array in each.arrays:
            kind = each.kind if each.devices > 1 else "nothing"
            key = array.dtype.startswith("s"), array.elements
            unknown = f"{array.dtype}{list(array.dims)}", 1
            meaning, count = ("scalar", 1) if array.elements == 1 else meanings.get(key, unknown)
            counts[kind, meaning] += each.times * count
    return {key: count for key, count in sorted(counts.items()) if key[0] != "nothing"}


def _meanings(part, stacks):
    """Returns {(True for integers, number of elements): (meaning, number of arrays)}.

    Raises AssertionError if two meanings have the same numbers.
    """
    stage, model = part.stage, part.run.model
    batch, rows = stage.batch_size, stage.batch_size // stage.micro_batches
    local, share = rows // batch_devices(part.mesh), batch // batch_devices(part.mesh)
    found = {
        "features": {size * model.embed_dim for size in (batch, share)},
        "statistics": {batch, share},
        "states": {local * stage.context_length * model.text.width},
        "a token's states": {local * model.text.width},
    }
    if model.image.patches:
        found["states"].add(local * model.image.tokens * model.image.width)
        found["a token's states"].add(local * model.image.width)
    integers = {
        "statistics": {batch, share},
        "ids": {size * 3 for size in (batch, share)},
        "tokens": {rows * stage.context_length},
    }
    meant = [((False, size), (meaning, 1)) for meaning, sizes in found.items() for size in sizes]
    meant += [((False, size), ("parameter", count)) for size, count in _parameters(part, stacks) if size > 1]
    meant += [((True, size), (meaning, 1)) for meaning, sizes in integers.items() for size in sizes]
    meanings = {}
    for key, meaning in dict.fromkeys(meant):
        assert key not in meanings, f"{meaning} and {meanings[key]} have {key[1]} elements each"
        meanings[key] = meaning
    return meanings


def _parameters(part, stacks):
    """Yields (size, number of arrays) of each parameter: as tensor splits it, as fsdp does too, or whole.

    Of a stack, one layer's; with `stacks`, all layers' too.
    """
    state = part.shardings
    teacher = jax.tree.map(lambda leaf: leaf.sharding, part.program.constants)
    shapes = part.paths | rules.paths_of(part.program.constants)
    for path, at in rules.paths_of({**merge(state.trainable, state.frozen), **teacher}).items():
        shape, own = shapes[path].shape, at.shard_shape(shapes[path].shape)
        layers = shape[0] if "layers/" in path else 1
        ways = part.mesh.shape[TENSOR] if TENSOR in str(at.spec) else 1
        for size in (prod(shape) // ways, prod(own)):
            yield size // layers, 1
            if stacks and layers > SHALLOW:  # the layers of others are exchanged one by one
                yield size, layers
        if "layers/" not in path:
            yield prod(shape), 1
        if path.endswith("position_embedding"):  # without the class token's, or of the positions that a text has
            yield (shape[0] - 1 if path.startswith("image/") else part.stage.context_length) * shape[1], 1
