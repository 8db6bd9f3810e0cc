"""The arithmetic of a stage's step: what the model asks for, however it is computed."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jclip.train.assembly import StageParts
from jclip.train.planning.flops import count_flops


class Arithmetic:
    """Multiplications and additions of a step on a batch, counted once each for every shape of batch.

    What rematerialisation and micro-batches compute again is left out: it is no progress.
    """

    def __init__(self, part: StageParts):
        stage = replace(part.stage, micro_batches=1)
        run = replace(part.run, remat="none", stages=(*part.run.stages[: part.index], stage))
        self._part = StageParts(run, part.index, part.mesh, part.tokenizer)
        self._known: dict[tuple[Any, ...], int] = {}

    def __call__(self, batch: Mapping[str, np.ndarray]) -> int:
        """Of a step over all devices; `batch` is this process's rows of it."""
        shapes = tuple(sorted((name, rows.shape[1:]) for name, rows in batch.items()))
        if shapes not in self._known:
            part = self._part
            full = part.batch_shapes()
            whole = {
                name: jax.ShapeDtypeStruct((part.stage.batch_size, *shape), full[name].dtype) for name, shape in shapes
            }
            key = jax.eval_shape(lambda: jax.random.key(0))
            self._known[shapes] = count_flops(part.step, part.state_shapes, part.constant_shapes, whole, key)
        return self._known[shapes]
