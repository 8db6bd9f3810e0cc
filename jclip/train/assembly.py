"""From a stage as data to the parts that run it: which parameters, how many steps, what optimizer, which step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jclip import rules
from jclip.bundle import Bundle
from jclip.data.pipeline import Batches
from jclip.data.text import Tokenizer
from jclip.models.build import shapes
from jclip.models.dual_encoder import DualEncoder
from jclip.optimizer import build, learning_rate
from jclip.parallel.mesh import make_mesh
from jclip.parallel.sharding import (
    FSDP,
    batch_sharding,
    check_batch,
    check_rules,
    follow,
    param_shardings,
    replicated,
)
from jclip.stages import Stage, merge, trainable_paths
from jclip.train.run import Run, check
from jclip.train.state import InitSlots, TrainState, begin_stage, next_stage, starting_variables
from jclip.train.step import Constants, Objective, Step, contrastive_objective, make_step, teacher_objective


def check_and_mesh(run: Run) -> jax.sharding.Mesh:
    """The devices of a run as a grid, once the run is known to fit them.

    Raises:
      JclipError: what is wrong with the run, with its batches on these devices, or with its sharding rules.
    """
    check(run)
    mesh = make_mesh(run.mesh)
    for stage in run.stages:
        check_batch(stage.batch_size, mesh)
    check_rules(run.sharding, mesh)
    param_shardings(shapes(run.model)["params"], mesh, run.sharding)
    return mesh


@dataclass(frozen=True)
class StageParts:
    """A stage, ready to run. Data is opened when first asked for, so that a plan needs none.

    Attributes:
      run, index: which stage of which run.
      mesh: the devices.
      tokenizer: of the model's text tower; None where no data will be read.
      teacher: the frozen teacher's bundle, for a stage that learns from one; None where shapes are enough.
    """

    run: Run
    index: int
    mesh: jax.sharding.Mesh
    tokenizer: Tokenizer | None = None
    teacher: Bundle | None = None

    @property
    def stage(self) -> Stage:
        """The stage as data."""
        return self.run.stages[self.index]

    @cached_property
    def variables(self) -> dict[str, Any]:
        """Shapes of the model's variables."""
        return shapes(self.run.model)

    @cached_property
    def paths(self) -> dict[str, Any]:
        """Every parameter's path and shape."""
        return rules.paths_of(self.variables["params"])

    @cached_property
    def chosen(self) -> frozenset[str]:
        """The parameters that train."""
        return trainable_paths(self.stage, self.paths)

    @cached_property
    def carried(self) -> frozenset[str]:
        """The parameters whose optimizer slots go on from the stage before."""
        verdict = rules.match(self.stage.carries, list(self.paths), what=f"stage {self.stage.name!r}: carries")
        return frozenset(path for path, goes_on in verdict.items() if goes_on) & self.chosen

    @cached_property
    def batches(self) -> Batches:
        """The stage's data, a function of the step."""
        assert self.tokenizer is not None
        stage, teacher = self.stage, self.teacher if self.stage.objective == "teacher" else None
        return Batches(
            stage.data,
            batch_size=stage.batch_size,
            seed=self.run.seed,
            stage=self.index,
            tokenizer=self.tokenizer,
            context_length=stage.context_length,
            buckets=stage.buckets,
            preprocessing=self.run.preprocessing,
            teacher_tokenizer=teacher.tokenizer if teacher else None,
            teacher_context_length=self.run.teacher.context_length if teacher and self.run.teacher else None,
            max_unreadable=stage.max_unreadable,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def place(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """The global batch on the mesh, from this process's share of it."""
        sharding = batch_sharding(self.mesh)
        return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}

    @cached_property
    def steps(self) -> int:
        """Optimizer steps of the whole stage."""
        epoch = self.batches.examples_per_epoch if self.stage.budget.epochs is not None else 0
        return self.stage.budget.in_steps(self.stage.batch_size, epoch)

    @cached_property
    def optimizer(self) -> optax.GradientTransformation:
        """The optax transformation over the trainable subtree."""
        trainable = rules.tree_from_paths({path: self.paths[path] for path in self.paths if path in self.chosen})
        return build(self.stage.optimizer, self.steps, list(self.paths), trainable, self.carried)

    @property
    def learning_rate(self) -> Callable[[int], jax.Array]:
        """The learning rate at a step of the stage."""
        return learning_rate(self.stage.optimizer, self.steps)

    @cached_property
    def model(self) -> DualEncoder:
        """The towers."""
        return DualEncoder(self.run.model, dtype=jnp.dtype(self.run.dtype), remat=self.run.remat)

    @cached_property
    def objective(self) -> Objective:
        """What the stage minimises."""
        if self.stage.objective == "contrastive":
            return contrastive_objective(self.model, self.stage, self.run.preprocessing, self.chosen, self.mesh)
        assert self.run.teacher is not None
        return teacher_objective(self.model, self.stage, DualEncoder(self.run.teacher.model))

    @cached_property
    def step(self) -> Step:
        """The pure step, not yet compiled."""
        return make_step(self.objective, self.optimizer)

    @property
    def compiled(self) -> Any:
        """The step on the mesh: it takes the state's memory, and leaves the next state where this one lay."""
        return jax.jit(self.step, donate_argnums=0, out_shardings=(self.shardings, replicated(self.mesh)))

    def start(self) -> TrainState:
        """The state at the run's first step, created in its place on the mesh.

        Raises:
          JclipError: what `starting_variables` raises.
        """
        places = {"params": self._parameter_shardings}
        if "batch_stats" in self.variables:
            places["batch_stats"] = jax.tree.map(lambda _: replicated(self.mesh), self.variables["batch_stats"])
        key = jax.random.key(self.run.seed)
        return self._begin(starting_variables(self.run.model, self.run.starts_from, key, places), self._init_slots)

    def follow(self, state: TrainState) -> TrainState:
        """The state at this stage's first step, from the last of the stage before."""
        return next_stage(state, self.chosen, self._init_slots, self.carried)

    @cached_property
    def state_shapes(self) -> TrainState:
        """The shapes and dtypes of the stage's training state, computed without any array."""
        return jax.eval_shape(lambda variables: self._begin(variables, self.optimizer.init), self.variables)

    @cached_property
    def shardings(self) -> TrainState:
        """Where the training state lies on the mesh."""
        return cast(
            TrainState, follow(self.state_shapes, self.variables["params"], self._parameter_shardings, self.mesh)
        )

    @cached_property
    def constant_shapes(self) -> Constants:
        """The shapes of what the stage reads and never changes, placed on the mesh: the teacher's text tower."""
        if self.stage.objective != "teacher":
            return {}
        assert self.run.teacher is not None
        text = {"text": shapes(self.run.teacher.model)["params"]["text"]}
        return {"teacher": on_mesh(text, param_shardings(text, self.mesh, FSDP))}

    def constants(self) -> Constants:
        """The arrays of `constant_shapes`, on the devices."""
        if self.teacher is None or not self.constant_shapes:
            return {}
        text = {"text": self.teacher.params["text"]}
        return {
            "teacher": jax.tree.map(lambda x, at: jax.device_put(x, at.sharding), text, self.constant_shapes["teacher"])
        }

    def batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes and dtypes of a full-length batch, split over the mesh."""
        size, length = self.stage.batch_size, self.stage.context_length
        shape = partial(jax.ShapeDtypeStruct, sharding=batch_sharding(self.mesh))
        ids, one = shape((size, length), jnp.int32), shape((size,), jnp.int32)
        if self.stage.objective == "teacher":
            assert self.run.teacher is not None
            teacher_ids = shape((size, self.run.teacher.context_length), jnp.int32)
            return {"student": ids, "teacher": teacher_ids, "example": one}
        side = self.run.model.image.image_size
        image = shape((size, side, side, 3), jnp.uint8)
        return {"image": image, "text": ids, "image_id": one, "text_id": one, "example": one}

    @cached_property
    def _parameter_shardings(self) -> dict[str, Any]:
        return param_shardings(self.variables["params"], self.mesh, self.run.sharding)

    @cached_property
    def _init_slots(self) -> InitSlots:
        return jax.jit(self.optimizer.init, out_shardings=self.shardings.slots)

    def _begin(self, variables: dict[str, Any], init_slots: InitSlots) -> TrainState:
        return begin_stage(variables["params"], variables.get("batch_stats", {}), self.chosen, init_slots)


def on_mesh(shapes: Any, shardings: Any) -> Any:
    """Shapes with the places where their arrays are to lie."""
    return jax.tree.map(lambda s, at: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=at), shapes, shardings)


def variables_of(state: TrainState) -> dict[str, Any]:
    """The model's variables in a training state, for `apply`."""
    params = merge(state.trainable, state.frozen)
    return {"params": params, **({"batch_stats": state.stats} if state.stats else {})}
