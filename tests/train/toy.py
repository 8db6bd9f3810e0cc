"""A toy model of two small matrices behind the interface of a stage's parts, for tests of what is around the step.

It compiles in a fraction of a second where the reduced towers take ten. Data, mesh, log, checkpoints and loop are real.
"""

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jclip.data.batches.loader import Batches

from jclip import rules
from jclip.images.on_host import HostAugmentation
from jclip.io.files import check_folder, whole_folder
from jclip.parallel.mesh import make_mesh
from jclip.parallel.processes import on_first
from jclip.parallel.sharding import local_rows, place_rows, place_whole, replicated
from jclip.stages import Budget, merge, split
from jclip.tokenizers.text import load_tokenizer
from jclip.train import loop
from jclip.train.configuration import Run
from jclip.train.state import TrainState, placed


class ToyParts:
    """A stage of the toy, which learns text/w, and image/w unless it is the first stage of a run.

    The loss is the squared distance between an image's mean colour times image/w and a text's first ids times text/w,
    with random numbers from the key of the step. It depends on the data, their order and the step, as a model's does.
    """

    ballast = 1  # elements of a frozen parameter that makes the state as large as a test needs

    def __init__(self, run, index, mesh, tokenizer):
        self.run, self.index, self.mesh, self.tokenizer = run, index, mesh, tokenizer
        self.stage = run.stages[index]
        self.steps = self.stage.budget.steps
        self.chosen = frozenset({"text/w", "image/w"} if index else {"text/w"})
        self.optimizer = optax.adam(self.stage.optimizer.learning_rate)

    @cached_property
    def batches(self):
        stage = self.stage
        return Batches(
            stage.data,
            batch_size=stage.batch_size,
            seed=self.run.seed,
            stage=self.index,
            tokenizer=self.tokenizer,
            context_length=stage.context_length,
            buckets=stage.buckets,
            bucket_window=stage.bucket_window,
            preprocessing=self.run.preprocessing,
            max_unreadable=stage.max_unreadable,
            workers=stage.workers,
            rows=local_rows(stage.batch_size, self.mesh),
        )

    def place(self, batch):
        return {name: place_rows(rows, self.stage.batch_size, self.mesh) for name, rows in batch.items()}

    def learning_rate(self, step):
        return self.stage.optimizer.learning_rate

    def constants(self):
        return {}

    @property
    def compiled(self):
        return jax.jit(self._step, donate_argnums=0, out_shardings=(self.shardings, replicated(self.mesh)))

    def _step(self, state, constants, batch, key):
        def loss_of(trainable):
            params = merge(trainable, state.frozen)
            colours_bc = batch["image"].astype(jnp.float32).mean((1, 2)) / 255
            ids_bk = batch["text"][:, 1:4].astype(jnp.float32) / 100 + 0.01 * jax.random.normal(key, (3,))
            return jnp.mean((colours_bc @ params["image"]["w"] - ids_bk @ params["text"]["w"]) ** 2)

        loss, gradients = jax.value_and_grad(loss_of)(state.trainable)
        updates, slots = self.optimizer.update(gradients, state.slots, state.trainable)
        state = state._replace(trainable=optax.apply_updates(state.trainable, updates), slots=slots)
        return state, {"loss": loss, "gradient_norm": optax.tree.norm(gradients)}

    def start(self):
        draw = np.random.default_rng(self.run.seed)
        params = {"image": {"w": draw.normal(size=(3, 4))}, "text": {"w": draw.normal(size=(3, 4))}}
        params["image"]["ballast"] = np.zeros(self.ballast)
        params = jax.tree.map(lambda leaf: leaf.astype(np.float32), params)
        return self._begin(place_whole(params, jax.tree.map(lambda _: replicated(self.mesh), params)))

    def follow(self, state):
        return self._begin(merge(state.trainable, state.frozen))

    def _begin(self, params):
        trainable, frozen = split(params, self.chosen)
        return placed(TrainState(trainable, frozen, {}, self.optimizer.init(trainable)), self.shardings)

    @cached_property
    def state_shapes(self):
        params = {name: {"w": jax.ShapeDtypeStruct((3, 4), jnp.float32)} for name in ("image", "text")}
        params["image"]["ballast"] = jax.ShapeDtypeStruct((self.ballast,), jnp.float32)
        trainable, frozen = split(params, self.chosen)
        return TrainState(trainable, frozen, {}, jax.eval_shape(self.optimizer.init, trainable))

    @cached_property
    def shardings(self):
        return jax.tree.map(lambda _: replicated(self.mesh), self.state_shapes)

    def unrounded(self, params, before):
        return params


def toy(run: Run, steps: int = 2, **changes) -> Run:
    """Returns a run whose stages are the toy's: without augmentation, `steps` steps each, with other changes."""
    stages = tuple(
        replace(
            stage,
            **{"batch_size": 8, "budget": Budget(steps=steps), "host_augmentation": HostAugmentation(), **changes},
            optimizer=replace(stage.optimizer, learning_rate=1e-2),
        )
        for stage in run.stages
    )
    return replace(run, stages=stages)


def prepare(run, workdir):
    """`jclip.train.preparing.prepare`, of the toy."""
    on_first(lambda: check_folder(workdir))
    mesh, tokenizer = make_mesh(run.mesh), load_tokenizer(Path(run.tokenizer))
    return mesh, tokenizer, [ToyParts(run, index, mesh, tokenizer) for index in range(len(run.stages))]


def save(bundle, folder):
    """`jclip.bundle.save_bundle`, of the toy."""
    with whole_folder(folder) as partial:
        np.savez(partial / "params.npz", **rules.paths_of(bundle.params))


def leaves(folder):
    """{path: array} of a bundle that `save` wrote."""
    return dict(np.load(folder / "params.npz"))


def install(patch=setattr):
    """Makes `train` train the toy, in this process."""
    patch(loop, "prepare", prepare)
    patch(loop, "save_bundle", save)
