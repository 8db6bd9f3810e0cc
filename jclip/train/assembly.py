"""Builds a stage's parts from its configuration, in order: parameters, loss, length, optimizer, step, shardings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jclip import rules
from jclip.bundle import check_tokenizer
from jclip.data.batches.examples import Examples
from jclip.data.batches.loader import Batches
from jclip.data.batches.opened import OpenSources, open_sources
from jclip.errors import JclipError
from jclip.images.on_host import Decoder, HostAugmentation
from jclip.models.build import shapes
from jclip.models.compute import Compute, Remat
from jclip.models.dual_encoder import DualEncoder
from jclip.optimizer import build, learning_rate
from jclip.parallel.memory import have_own_memory
from jclip.parallel.mesh import make_mesh
from jclip.parallel.replication import Replication, replication
from jclip.parallel.sharding import (
    Rules,
    batch_devices,
    check_batch,
    follow,
    local_rows,
    on_mesh,
    param_shardings,
    place_rows,
    replicated,
)
from jclip.parallel.tables import rules_for
from jclip.stages import Constants, Context, Program, Stage
from jclip.tokenizers.padding import Texts
from jclip.tokenizers.text import Tokenizer, load_tokenizer
from jclip.train.checks import check
from jclip.train.configuration import Run
from jclip.train.layout import Layout, layout, whole_path
from jclip.train.parked import parked
from jclip.train.reads import frozen_reads, with_frozen_reads
from jclip.train.state import (
    InitSlots,
    TrainState,
    begin_stage,
    next_stage,
    placed,
    starting_variables,
)
from jclip.train.step import Step, make_step


@dataclass(frozen=True)
class Devices:
    """Devices of a run.

    Attributes:
      mesh: their mesh.
      rules: sharding rules of the parameters.
      copies: replication of the parameters.
      own_memory: True if they have a memory apart from their host's, where frozen parameters then are during a stage.
    """

    mesh: jax.sharding.Mesh
    rules: Rules
    copies: Replication
    own_memory: bool


def devices_of(run: Run, devices: Sequence[jax.Device] | None = None) -> Devices:
    """Checks a run, and returns its mesh of all devices, or of those given, with its sharding rules. Reads no files.

    Raises JclipError if the run, its batches on these devices, or its sharding rules are not valid.
    """
    check(run)
    mesh = make_mesh(run.mesh, devices)
    for stage in run.stages:
        check_batch(stage.batch_size, mesh)
        _check_micro_batches(stage, mesh)
    rules = rules_for(run.model, mesh)
    params = shapes(run.model)["params"]
    copies = replication(params, param_shardings(params, mesh, rules), mesh)
    copies.check(run.max_replicated)
    return Devices(mesh, rules, copies, have_own_memory(mesh))


@dataclass(frozen=True)
class Inputs:
    """Inputs of a stage.

    Attributes:
      tokenizer: tokenizer of the text tower.
      opened: result of `Objective.open`.
      make_batches: opens the stage's data.
    """

    tokenizer: Tokenizer
    opened: Any
    make_batches: Callable[[], Batches]


@dataclass(frozen=True)
class StageParts:
    """A stage, ready to run.

    Attributes:
      index: index of the stage, from 0.
      paths: {path: shape} of the parameters, as the stage holds them.
      context: facts from which the objective built `program`.
      inputs: tokenizer and data; None in a plan.
      batches: the data, if the number of steps depends on them; otherwise None, see `open_batches`.
      steps: number of optimizer steps of the whole stage.
      optimizer: optax transformation of the trainable parameters.
      step: the pure step.
      compiled: the jitted step. Donates its input state. See `program_for`.
      state_shapes, shardings: shapes, dtypes and shardings of the training state.
      read: shapes and dtypes of the frozen parameters that `compiled` takes, nested: see `frozen_reads`. On a CPU all
        of them.
    """

    run: Run
    index: int
    devices: Devices
    layout: Layout
    paths: dict[str, Any]
    context: Context
    program: Program
    inputs: Inputs | None
    batches: Batches | None
    steps: int
    optimizer: optax.GradientTransformation
    step: Step
    compiled: Any
    state_shapes: TrainState
    shardings: TrainState
    read: dict[str, Any]
    _init_slots: InitSlots
    _programs: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    @property
    def remat(self) -> Remat:
        """Activations that the backward pass recomputes; "none" if the run leaves the choice, see `planning.remat`."""
        remat: Remat = self.context.towers.compute.remat
        return remat

    def with_remat(self, remat: Remat) -> "StageParts":
        """Returns this stage with another `remat`."""
        if remat == self.remat:
            return self
        towers = self.context.towers
        context = replace(self.context, towers=towers.clone(compute=replace(towers.compute, remat=remat)))
        program = self.stage.objective.program(context)
        step = make_step(program.loss, self.optimizer)
        compiled = _jitted(step, self.state_shapes.frozen, self.read, self.shardings)
        return replace(self, context=context, program=program, step=step, compiled=compiled, _programs={})

    def program_for(self, *inputs: Any) -> Any:
        """Returns the step, compiled for the shapes of its inputs, and keeps it.

        Args:
          inputs: state (see `taken`), constants, batch and key, or their shapes with shardings.
        """
        shapes = tuple(sorted((name, each.shape) for name, each in inputs[2].items()))
        if shapes not in self._programs:
            self._programs[shapes] = self.compiled.lower(*inputs).compile()
        return self._programs[shapes]

    @property
    def stage(self) -> Stage:
        """The stage's configuration."""
        return self.run.stages[self.index]

    @property
    def mesh(self) -> jax.sharding.Mesh:
        """Mesh of the run."""
        return self.devices.mesh

    @property
    def trains(self) -> frozenset[str]:
        """Paths of the parameters that train."""
        return self.layout.trains

    @property
    def learning_rate(self) -> Callable[[int], jax.Array]:
        """Learning rate as a function of the stage's step."""
        return learning_rate(self.stage.optimizer, self.steps)

    def open_inputs(self) -> Inputs:
        """Returns the inputs. Raises JclipError if the stage was assembled for a plan."""
        if self.inputs is None:
            raise JclipError(f"stage {self.stage.name!r} was assembled for a plan: pass the inputs of `open_stage`")
        return self.inputs

    def open_batches(self) -> Batches:
        """Returns the stage's data; opens them unless they are open already."""
        return self.batches or self.open_inputs().make_batches()

    def place(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Returns the global batch on the mesh, from this process's rows of it."""
        return {name: place_rows(rows, self.stage.batch_size, self.mesh) for name, rows in batch.items()}

    def constants(self) -> Constants:
        """Returns the objective's constants on the mesh."""
        return self.stage.objective.constants(self.open_inputs().opened, self.program)

    def start(self) -> TrainState:
        """Creates the state at the run's first step, sharded."""
        variables = shapes(self.run.model)
        places = {"params": param_shardings(variables["params"], self.mesh, self.devices.rules)}
        if "batch_stats" in variables:
            places["batch_stats"] = jax.tree.map(lambda _: replicated(self.mesh), variables["batch_stats"])
        key = jax.random.key(self.run.seed)
        begun = starting_variables(self.run.model, self.run.starts_from, key, places)
        state = begin_stage(begun["params"], begun.get("batch_stats", {}), self.layout, self._init_slots)
        return placed(state, self.shardings)

    @property
    def taken(self) -> TrainState:
        """Shapes, dtypes and shardings of the state that `compiled` takes: its `frozen` is what the step reads."""
        state: TrainState = on_mesh(self.state_shapes, self.shardings)
        return state._replace(frozen=self.read)

    def between_steps(self, state: TrainState) -> TrainState:
        """Moves frozen parameters to the host's memory, if the devices have their own; see `parked`."""
        return parked(state) if self.devices.own_memory else state

    def taken_of(self, state: TrainState) -> TrainState:
        """Returns the state that `compiled` takes. Its arrays are those of `state`, except for frozen parameters.

        Frozen parameters are copies, if the devices have their own memory; those of `state` are deleted on them.
        """
        if not self.devices.own_memory:
            return state
        held, read = rules.paths_of(parked(state).frozen), rules.paths_of(self.read)
        copies = {path: held[path].on_devices(shape.dtype) for path, shape in read.items()}
        return state._replace(frozen=rules.tree_from_paths(copies))

    def follow(self, state: TrainState) -> TrainState:
        """Returns this stage's first state from the last state of the stage before."""
        return placed(next_stage(state, self.layout, self._init_slots), self.shardings)


def assemble(run: Run, index: int, devices: Devices, inputs: Inputs | None = None) -> StageParts:
    """Builds the parts of the stage at `index`, of a run that has been checked.

    Without `inputs`, which `open_stage` returns, nothing is read. If the run's `remat` is "auto", the stage has "none"
    until `planning.remat.choose_remat`. Raises JclipError if a rule of the optimizer matches nothing, or a budget in
    epochs has no data to count.
    """
    stage, mesh, variables = run.stages[index], devices.mesh, shapes(run.model)
    # The parameters, as the model has them and as the stage holds them.
    whole = rules.paths_of(variables["params"])
    held = layout(stage, whole, run.model.towers)
    paths = rules.paths_of(jax.eval_shape(held.held, variables["params"]))
    # The loss.
    compute = Compute(jnp.dtype(run.dtype), "none" if run.remat == "auto" else run.remat, run.attention)
    towers = DualEncoder(run.model, compute, frozen_layers=held.first_layers)
    context = Context(stage, towers, run.preprocessing, held.trains, mesh)
    program = stage.objective.program(context)
    # The length. Only epochs need the data.
    batches, epoch = None, 0
    if stage.budget.epochs is not None:
        if inputs is None:
            raise JclipError(f"stage {stage.name!r} has a budget in epochs, which needs its data: give steps instead")
        batches = inputs.make_batches()
        epoch = batches.examples_per_epoch
    steps = stage.budget.in_steps(stage.batch_size, epoch)
    # The optimizer and the step.
    trainable = rules.tree_from_paths({path: leaf for path, leaf in paths.items() if path in held.trains})
    optimizer = build(stage.optimizer, steps, whole, trainable, run.model.towers)
    step = make_step(program.loss, optimizer)

    # The state and its shardings.
    def begin(variables: dict[str, Any]) -> TrainState:
        return begin_stage(variables["params"], variables.get("batch_stats", {}), held, optimizer.init)

    state_shapes = jax.eval_shape(begin, variables)
    places = _held_shardings(paths, devices)
    shardings = cast(TrainState, follow(state_shapes, rules.tree_from_paths(paths), places, mesh))
    read = on_mesh(state_shapes.frozen, shardings.frozen)
    if devices.own_memory and paths.keys() != held.trains:
        with jax.set_mesh(mesh):
            state = on_mesh(state_shapes, shardings)
            rest = program.constants, program.batch, jax.eval_shape(lambda: jax.random.key(0))
            read = frozen_reads(step, compute.dtype, state, *rest)
    return StageParts(
        run=run,
        index=index,
        devices=devices,
        layout=held,
        paths=paths,
        context=context,
        program=program,
        inputs=inputs,
        batches=batches,
        steps=steps,
        optimizer=optimizer,
        step=step,
        compiled=_jitted(step, state_shapes.frozen, read, shardings),
        state_shapes=state_shapes,
        shardings=shardings,
        read=read,
        _init_slots=jax.jit(optimizer.init, out_shardings=shardings.slots),
    )


def _jitted(step: Step, frozen: dict[str, Any], read: dict[str, Any], shardings: TrainState) -> Any:
    """Returns the jitted step, for states whose frozen parameters are those in `read`; `frozen` has all of them."""
    places = shardings._replace(frozen=jax.tree.map(lambda leaf: leaf.sharding, read))
    mesh = jax.tree.leaves(shardings)[0].mesh
    return jax.jit(with_frozen_reads(step, frozen), donate_argnums=0, out_shardings=(places, replicated(mesh)))


def open_tokenizer(run: Run) -> Tokenizer:
    """Loads the run's tokenizer. Raises JclipError if it is missing, or does not fit the text tower."""
    tokenizer = load_tokenizer(Path(run.tokenizer))
    check_tokenizer(run.model, tokenizer, f"{run.tokenizer}: ")
    return tokenizer


def open_stage(run: Run, index: int, devices: Devices, tokenizer: Tokenizer) -> Inputs:
    """Loads the files of a stage's objective, not its data. Raises JclipError if one is missing or does not fit."""
    stage = run.stages[index]
    opened = stage.objective.open()

    def decoder(augmentation: HostAugmentation) -> Decoder:
        return Decoder(run.preprocessing, augmentation, run.seed, index)

    def make(examples: Callable[[OpenSources, Any], Examples[Any]], **options: Any) -> Batches:
        sources = open_sources(stage.data, run.preprocessing)
        return Batches(
            sources,
            examples(sources, decoder),
            batch_size=stage.batch_size,
            seed=run.seed,
            stage=index,
            texts=Texts(tokenizer, stage.context_length, stage.buckets),
            bucket_window=stage.bucket_window,
            language_temperature=stage.language_temperature,
            max_unreadable=stage.max_unreadable,
            workers=stage.workers,
            rows=local_rows(stage.batch_size, devices.mesh),
            **options,
        )

    return Inputs(tokenizer, opened, lambda: stage.objective.batches(make, opened))


def _check_micro_batches(stage: Stage, mesh: jax.sharding.Mesh) -> None:
    """Raises JclipError unless every micro-batch can be split over the devices that split a batch."""
    devices = batch_devices(mesh)
    if stage.batch_size // stage.micro_batches % devices:
        most = stage.batch_size // devices
        fitting = max(count for count in range(1, stage.micro_batches) if most % count == 0)
        raise JclipError(
            f"stage {stage.name!r}: micro_batches={stage.micro_batches} makes parts of "
            f"{stage.batch_size // stage.micro_batches} pairs, which {devices} devices do not divide: use {fitting}"
        )


def _held_shardings(paths: dict[str, Any], devices: Devices) -> dict[str, Any]:
    """Returns the shardings of the parameters as a stage holds them: both parts of a stack follow the stack's rule."""
    last = {path: leaf for path, leaf in paths.items() if whole_path(path) == path}
    first = last | {whole_path(path): leaf for path, leaf in paths.items() if path not in last}
    of_last, of_first = (
        rules.paths_of(param_shardings(rules.tree_from_paths(leaves), devices.mesh, devices.rules))
        for leaves in (last, first)
    )
    return rules.tree_from_paths(
        {path: of_last[path] if path in last else of_first[whole_path(path)] for path in paths}
    )
