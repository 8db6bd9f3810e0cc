"""From a stage as data to the parts that run it: which parameters, how many steps, what optimizer, which step."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jclip import rules
from jclip.bundle import Bundle
from jclip.data.pipeline import Batches
from jclip.data.text import Tokenizer
from jclip.models.dual_encoder import DualEncoder, shapes
from jclip.optimizer import build, learning_rate
from jclip.stages import Stage, merge, trainable_paths
from jclip.train.run import Run
from jclip.train.state import TrainState, begin_stage
from jclip.train.step import Constants, Objective, Step, contrastive_objective, make_step, teacher_objective


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
        )

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
        return DualEncoder(self.run.model, dtype=jnp.dtype(self.run.dtype))

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

    def begin(self, variables: dict[str, Any]) -> TrainState:
        """The state at the stage's first step when it is a run's first."""
        return begin_stage(variables["params"], variables.get("batch_stats", {}), self.chosen, self.optimizer)

    def state_shapes(self) -> TrainState:
        """The shapes and dtypes of the stage's training state, computed without any array."""
        return jax.eval_shape(self.begin, self.variables)

    @property
    def constants(self) -> Constants:
        """The arrays that the stage reads and never changes: the teacher's text tower."""
        if self.stage.objective != "teacher":
            return {}
        if self.teacher is None:
            assert self.run.teacher is not None
            return {"teacher": {"text": shapes(self.run.teacher.model)["params"]["text"]}}
        return {"teacher": {"text": self.teacher.params["text"]}}

    def batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes and dtypes of a full-length batch."""
        size, length = self.stage.batch_size, self.stage.context_length
        ids = jax.ShapeDtypeStruct((size, length), jnp.int32)
        one = jax.ShapeDtypeStruct((size,), jnp.int32)
        if self.stage.objective == "teacher":
            assert self.run.teacher is not None
            teacher_ids = jax.ShapeDtypeStruct((size, self.run.teacher.context_length), jnp.int32)
            return {"student": ids, "teacher": teacher_ids, "example": one}
        side = self.run.model.image.image_size
        image = jax.ShapeDtypeStruct((size, side, side, 3), jnp.uint8)
        return {"image": image, "text": ids, "image_id": one, "text_id": one, "example": one}


def variables_of(state: TrainState) -> dict[str, Any]:
    """The model's variables in a training state, for `apply`."""
    params = merge(state.trainable, state.frozen)
    return {"params": params, **({"batch_stats": state.stats} if state.stats else {})}
