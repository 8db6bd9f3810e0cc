"""From a stage as data to the parts that run it: which parameters, how many steps, what optimizer, which step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jclip import rules
from jclip.bundle import Bundle
from jclip.data.batches.examples import Examples, PairExamples, ParallelExamples
from jclip.data.batches.loader import Batches
from jclip.data.batches.opened import open_sources
from jclip.errors import JclipError
from jclip.images.on_host import Decoder
from jclip.models.build import shapes
from jclip.models.dual_encoder import DualEncoder
from jclip.optimizer import build, learning_rate
from jclip.parallel.mesh import make_mesh
from jclip.parallel.replication import Replication, replication
from jclip.parallel.sharding import (
    Rules,
    batch_devices,
    batch_sharding,
    check_batch,
    check_rules,
    follow,
    local_rows,
    param_shardings,
    place_rows,
    place_whole,
    replicated,
)
from jclip.parallel.tables import rules_for, tower_rules
from jclip.stages import Stage, carried_paths
from jclip.tokenizers.padding import Texts
from jclip.tokenizers.text import Tokenizer
from jclip.train.layout import Layout, layout, whole_path
from jclip.train.run import Run, check
from jclip.train.state import (
    InitSlots,
    TrainState,
    begin_stage,
    next_stage,
    placed,
    starting_variables,
    unrounded,
    whole_params,
)
from jclip.train.step import Constants, Objective, Step, contrastive_objective, make_step, teach, teacher_objective


def check_and_mesh(run: Run) -> jax.sharding.Mesh:
    """The devices of a run as a grid, once the run is known to fit them.

    Raises:
      JclipError: what is wrong with the run, with its batches on these devices, or with its sharding rules.
    """
    check(run)
    mesh = make_mesh(run.mesh)
    for stage in run.stages:
        check_batch(stage.batch_size, mesh)
        check_micro_batches(stage, mesh)
    copies_on(mesh, run).check(run.max_replicated)
    return mesh


def sharding_rules(run: Run, mesh: jax.sharding.Mesh) -> Rules:
    """The run's own rules, or those of its towers.

    Raises:
      JclipError: the run's own do not use a tensor axis that the mesh has.
    """
    if not run.sharding:
        return rules_for(run.model, mesh)
    check_rules(run.sharding, mesh)
    return run.sharding


def copies_on(mesh: jax.sharding.Mesh, run: Run) -> Replication:
    """Which parameters of a run the mesh leaves in copies.

    Raises:
      JclipError: sharding rules that do not fit the mesh or the model.
    """
    params = shapes(run.model)["params"]
    return replication(params, param_shardings(params, mesh, sharding_rules(run, mesh)), mesh)


def check_micro_batches(stage: Stage, mesh: jax.sharding.Mesh) -> None:
    """Raises JclipError unless every micro-batch can be spread over the devices that split a batch."""
    devices = batch_devices(mesh)
    if stage.batch_size // stage.micro_batches % devices:
        most = stage.batch_size // devices
        fitting = max(count for count in range(1, stage.micro_batches) if most % count == 0)
        raise JclipError(
            f"stage {stage.name!r}: micro_batches={stage.micro_batches} makes parts of "
            f"{stage.batch_size // stage.micro_batches}, which {devices} devices do not divide: use {fitting}"
        )


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
    def whole_paths(self) -> dict[str, Any]:
        """Every parameter's path and shape, as the model has them: what rules are about."""
        return rules.paths_of(self.variables["params"])

    @cached_property
    def layout(self) -> Layout:
        """How the stage holds the parameters."""
        return layout(self.stage, self.whole_paths)

    @cached_property
    def paths(self) -> dict[str, Any]:
        """Every parameter's path and shape, as the stage holds them."""
        return rules.paths_of(jax.eval_shape(self.layout.held, self.variables["params"]))

    @property
    def chosen(self) -> frozenset[str]:
        """Those of `paths` that train."""
        return self.layout.trains

    @cached_property
    def carried(self) -> frozenset[str]:
        """The parameters whose optimizer slots go on from the stage before."""
        return carried_paths(self.stage, self.whole_paths) & self.chosen

    @cached_property
    def batches(self) -> Batches:
        """The stage's data, a function of the step."""
        assert self.tokenizer is not None
        stage, opened = self.stage, open_sources(self.stage.data, self.run.preprocessing)
        examples: Examples[Any]
        if self.stage.objective == "teacher":
            if self.teacher is None or self.run.teacher is None:
                raise JclipError("parallel text is for teacher learning: name the teacher's bundle")
            examples = ParallelExamples(opened, Texts(self.teacher.tokenizer, self.run.teacher.context_length))
        else:
            decode = Decoder(self.run.preprocessing, stage.host_augmentation, self.run.seed, self.index)
            examples = PairExamples(opened, decode)
        return Batches(
            opened,
            examples,
            batch_size=stage.batch_size,
            seed=self.run.seed,
            stage=self.index,
            texts=Texts(self.tokenizer, stage.context_length, stage.buckets),
            bucket_window=stage.bucket_window,
            captions=stage.captions,
            language_temperature=stage.language_temperature,
            max_unreadable=stage.max_unreadable,
            workers=stage.workers,
            rows=local_rows(stage.batch_size, self.mesh),
        )

    def place(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """The global batch on the mesh, from this process's rows of it."""
        return {name: place_rows(rows, self.stage.batch_size, self.mesh) for name, rows in batch.items()}

    @cached_property
    def steps(self) -> int:
        """Optimizer steps of the whole stage."""
        epoch = self.batches.examples_per_epoch if self.stage.budget.epochs is not None else 0
        return self.stage.budget.in_steps(self.stage.batch_size, epoch)

    @cached_property
    def optimizer(self) -> optax.GradientTransformation:
        """The optax transformation over the trainable subtree."""
        trainable = rules.tree_from_paths({path: self.paths[path] for path in self.paths if path in self.chosen})
        return build(self.stage.optimizer, self.steps, self.whole_paths, trainable)

    @property
    def learning_rate(self) -> Callable[[int], jax.Array]:
        """The learning rate at a step of the stage."""
        return learning_rate(self.stage.optimizer, self.steps)

    @cached_property
    def model(self) -> DualEncoder:
        """The towers."""
        return DualEncoder(
            self.run.model,
            dtype=jnp.dtype(self.run.dtype),
            remat=self.run.remat,
            attention=self.run.attention,
            frozen_layers=self.layout.first,
            patch_dropout=self.stage.patch_dropout,
        )

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
        places = {"params": param_shardings(self.variables["params"], self.mesh, self._rules)}
        if "batch_stats" in self.variables:
            places["batch_stats"] = jax.tree.map(lambda _: replicated(self.mesh), self.variables["batch_stats"])
        key = jax.random.key(self.run.seed)
        variables = starting_variables(self.run.model, self.run.starts_from, key, places)
        return placed(self._begin(variables, self._init_slots), self.shardings)

    def follow(self, state: TrainState) -> TrainState:
        """The state at this stage's first step, from the last of the stage before."""
        return placed(next_stage(state, self.layout, self._init_slots, self.carried), self.shardings)

    def unrounded(self, params: dict[str, Any], before: Path | None) -> dict[str, Any]:
        """Host parameters for the stage's bundle, see `state.unrounded`.

        Args:
          params: nested, whole.
          before: bundle of the stage before; None for the first stage, which began from the run's starting bundles.
        """
        folders = [folder for _, folder in self.run.starts_from if folder] if before is None else [before]
        return unrounded(params, self.layout, folders)

    @cached_property
    def state_shapes(self) -> TrainState:
        """The shapes and dtypes of the stage's training state, computed without any array."""
        return jax.eval_shape(lambda variables: self._begin(variables, self.optimizer.init), self.variables)

    @cached_property
    def shardings(self) -> TrainState:
        """Where the training state lies on the mesh."""
        held = rules.tree_from_paths(self.paths)
        return cast(TrainState, follow(self.state_shapes, held, self._parameter_shardings, self.mesh))

    @cached_property
    def constant_shapes(self) -> Constants:
        """The shapes of what the stage reads and never changes, placed on the mesh: the teacher's text tower.

        With a cache nothing is: the batch holds what the teacher says.
        """
        if self.stage.objective != "teacher" or self.stage.cache:
            return {}
        return {"teacher": self._teacher_shapes}

    @cached_property
    def _teacher_shapes(self) -> dict[str, Any]:
        assert self.run.teacher is not None
        text = {"text": shapes(self.run.teacher.model)["params"]["text"]}
        rules_of_teacher = tower_rules(self.run.teacher.model, "text", self.mesh)
        return cast(dict[str, Any], on_mesh(text, param_shardings(text, self.mesh, rules_of_teacher)))

    def constants(self) -> Constants:
        """The arrays of `constant_shapes`, on the devices."""
        if self.teacher is None or not self.constant_shapes:
            return {}
        return {"teacher": self.teacher_params()}

    def teacher_params(self) -> dict[str, Any]:
        """The teacher's text tower on the devices, {"text": …}."""
        assert self.teacher is not None
        text = {"text": self.teacher.params["text"]}
        places = jax.tree.map(lambda shape: shape.sharding, self._teacher_shapes)
        return cast(dict[str, Any], place_whole(text, places))

    def batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes and dtypes of a full-length batch, split over the mesh."""
        size, length = self.stage.batch_size, self.stage.context_length
        shape = partial(jax.ShapeDtypeStruct, sharding=batch_sharding(self.mesh))
        ids, one = shape((size, length), jnp.int32), shape((size,), jnp.int32)
        if self.stage.objective == "teacher":
            assert self.run.teacher is not None
            teacher_ids = shape((size, self.run.teacher.context_length), jnp.int32)
            if self.stage.cache:
                width = self._teacher_state_width
                return {"student": ids, "target": shape((size, width), jnp.float32), "example": one}
            return {"student": ids, "teacher": teacher_ids, "example": one}
        rest = {"text": ids, "image_id": one, "text_id": one, "example": one}
        if self.stage.cache:
            return {"image_feature": shape((size, self.run.model.embed_dim), jnp.float32), **rest}
        side = self.run.model.image.image_size
        return {"image": shape((size, side, side, 3), jnp.uint8), **rest}

    @cached_property
    def _teacher_state_width(self) -> int:
        assert self.run.teacher is not None
        teacher, ids = DualEncoder(self.run.teacher.model), jax.ShapeDtypeStruct((1, 3), jnp.int32)
        state = jax.eval_shape(lambda params, ids: teach(teacher, params, ids), self._teacher_shapes, ids)
        return int(state.shape[1])

    @cached_property
    def _parameter_shardings(self) -> dict[str, Any]:
        """Of the parameters as the stage holds them: each part of a stack by the rule for the whole."""
        last = {path: leaf for path, leaf in self.paths.items() if whole_path(path) == path}
        first = last | {whole_path(path): leaf for path, leaf in self.paths.items() if path not in last}
        of_last, of_first = (
            rules.paths_of(param_shardings(rules.tree_from_paths(leaves), self.mesh, self._rules))
            for leaves in (last, first)
        )
        return rules.tree_from_paths(
            {path: of_last[path] if path in last else of_first[whole_path(path)] for path in self.paths}
        )

    @cached_property
    def _rules(self) -> Rules:
        return sharding_rules(self.run, self.mesh)

    @cached_property
    def _init_slots(self) -> InitSlots:
        return jax.jit(self.optimizer.init, out_shardings=self.shardings.slots)

    def _begin(self, variables: dict[str, Any], init_slots: InitSlots) -> TrainState:
        return begin_stage(variables["params"], variables.get("batch_stats", {}), self.layout, init_slots)


def on_mesh(shapes: Any, shardings: Any) -> Any:
    """Shapes with the places where their arrays are to lie."""
    return jax.tree.map(lambda s, at: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=at), shapes, shardings)


def variables_of(state: TrainState) -> dict[str, Any]:
    """The model's variables in a training state, for `apply`; what is kept in bfloat16 is so here."""
    return {"params": whole_params(state), **({"batch_stats": state.stats} if state.stats else {})}
