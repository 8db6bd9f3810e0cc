"""A run, from the configuration to the last bundle: the life of a job, in order."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from jclip.bundle import Bundle, load_bundle, save_bundle
from jclip.checkpoint import Checkpoints, Position
from jclip.config import difference, to_json
from jclip.data.text import load_tokenizer
from jclip.errors import JclipError
from jclip.parallel.mesh import make_mesh
from jclip.parallel.sharding import batch_sharding, check_batch, replicated
from jclip.train.assembly import StageParts, variables_of
from jclip.train.run import FREE_TO_CHANGE, Run, check
from jclip.train.state import TrainState, next_stage, starting_variables
from jclip.train.telemetry import Journal, Watcher

Evaluator = Callable[[dict[str, Any]], Mapping[str, float]]
"""Variables -> figures. Handed to the loop, so that training need not know evaluation."""


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended: whether the run is finished, where it stands, and its stages' bundles so far."""

    finished: bool
    position: Position
    bundles: tuple[Path, ...]


def train(
    run: Run,
    workdir: Path,
    *,
    watcher: Watcher | None = None,
    evaluators: Mapping[str, Evaluator] | None = None,
    stop_after: int | None = None,
) -> Outcome:
    """Runs all stages of `run`, or what is left of them; call it again to resume.

    A resumed run ends with the same parameters to the bit: data, augmentation and dropout depend on the seed, the
    stage and the step alone.

    Args:
      run: what to do.
      workdir: holds checkpoints/, metrics.jsonl and one bundle a stage.
      watcher: is told of the progress.
      evaluators: called before the first stage, at the end of each, and every `run.evaluate_every` steps.
      stop_after: stop, with a checkpoint, after so many steps in all stages together: for tests and time limits.

    Raises:
      JclipError: a configuration that cannot run, a checkpoint from another one, another run in the same
        folder, a full disk, or a loss that is not finite.
    """
    # What is wrong with the configuration shows here, before anything is written.
    check(run)
    mesh = make_mesh(run.mesh)
    for stage in run.stages:
        check_batch(stage.batch_size, mesh)
    tokenizer = load_tokenizer(Path(run.tokenizer))
    if tokenizer.vocab_size > run.model.text.vocab_size:
        raise JclipError(
            f"the tokenizer in {run.tokenizer} has {tokenizer.vocab_size} entries, but the text tower's "
            f"vocab_size is {run.model.text.vocab_size}: raise it"
        )
    teacher = _teacher(run)
    parts = [StageParts(run, i, mesh, tokenizer, teacher) for i in range(len(run.stages))]
    for part in parts:
        assert part.optimizer, "building it checks the stage's rules"

    workdir.mkdir(parents=True, exist_ok=True)
    with jax.set_mesh(mesh), _stop_requests() as stop, _alone_in(workdir), ExitStack() as stack:
        checkpoints = Checkpoints(workdir / "checkpoints", keep=run.keep_checkpoints)
        stack.callback(checkpoints.close)
        # Where the run stands.
        config = to_json(run)
        position = checkpoints.latest(config, FREE_TO_CHANGE) or Position(0, 0, 0)
        if position.total:
            here = parts[min(position.stage, len(parts) - 1)]
            state = checkpoints.restore(position, _placed(here.state_shapes(), mesh))
        else:
            state = parts[0].begin(starting_variables(run.model, run.starts_from, jax.random.key(run.seed)))
            state = jax.device_put(state, replicated(mesh))
        journal = Journal(workdir / "metrics.jsonl", position.total)
        stack.callback(journal.close)
        job = _Job(parts, workdir, checkpoints, journal, config, dict(evaluators or {}), watcher)
        job.should_stop = lambda total: bool(stop) or (stop_after is not None and total >= stop_after)
        if position.total == 0:
            job.evaluate(state, position)

        # Stage after stage.
        while position.stage < len(parts):
            state, position = job.train_stage(state, position)
            if position.step < parts[position.stage].steps:
                return Outcome(False, position, job.bundles(position.stage))
            state, position = job.finish_stage(state, position)
        last = bundle_folder(workdir, run, len(parts) - 1)
        if not last.is_dir():  # somebody took it away after the run was finished
            _write_bundle(state, parts[-1], last, position)
        return Outcome(True, position, job.bundles(position.stage))


def bundle_folder(workdir: Path, run: Run, stage: int) -> Path:
    """Where the bundle of a finished stage lies: WORKDIR/1-teacher, WORKDIR/2-contrastive."""
    return workdir / f"{stage + 1}-{run.stages[stage].name}"


@dataclass
class _Job:
    parts: list[StageParts]
    workdir: Path
    checkpoints: Checkpoints
    journal: Journal
    config: Any
    evaluators: dict[str, Evaluator]
    watcher: Watcher | None
    should_stop: Callable[[int], bool] = field(default=lambda total: False)

    def train_stage(self, state: TrainState, position: Position) -> tuple[TrainState, Position]:
        """Steps until the stage is done or a stop is asked for; in both cases the state is saved or about to be."""
        part = self.parts[position.stage]
        run, stage, steps = part.run, part.stage, part.steps
        step_fn = jax.jit(part.step, donate_argnums=0)
        key = jax.random.fold_in(jax.random.key(run.seed), position.stage)
        sharding = batch_sharding(part.mesh)
        constants = jax.device_put(part.constants, replicated(part.mesh))
        before = position.total - position.step
        if self.watcher:
            self.watcher.stage_begins(stage.name, position.step, steps)
        clock, counted = time.perf_counter(), position.step
        for step, batch in zip(range(position.step, steps), part.batches.iterate(position.step), strict=False):
            state, metrics = step_fn(state, constants, jax.device_put(batch, sharding), jax.random.fold_in(key, step))
            position = Position(position.stage, step + 1, before + step + 1)
            if self.watcher:
                self.watcher.stepped(position.step)
            if position.step == steps or (run.log_every and position.step % run.log_every == 0):
                figures = _finite(metrics, stage.name, position, self.workdir)
                elapsed, clock = time.perf_counter() - clock, time.perf_counter()
                speed = (position.step - counted) * stage.batch_size / elapsed
                counted = position.step
                figures |= {"learning_rate": float(part.learning_rate(step)), "pairs_per_second": speed}
                self._write("train", position, figures)
            if position.step == steps:
                break
            if run.evaluate_every and position.step % run.evaluate_every == 0:
                self.evaluate(state, position)
            stopping = self.should_stop(position.total)
            if stopping or (run.checkpoint_every and position.step % run.checkpoint_every == 0):
                self._save(state, position)
            if stopping:
                break
        return state, position

    def finish_stage(self, state: TrainState, position: Position) -> tuple[TrainState, Position]:
        """Evaluates, writes the stage's bundle, and turns the state into the next stage's first."""
        part, next_index = self.parts[position.stage], position.stage + 1
        self.evaluate(state, position)
        _write_bundle(state, part, bundle_folder(self.workdir, part.run, position.stage), position)
        if next_index < len(self.parts):
            upcoming = self.parts[next_index]
            state = next_stage(state, upcoming.chosen, upcoming.optimizer, upcoming.carried)
        position = Position(next_index, 0, position.total)
        self._save(state, position)
        return state, position

    def evaluate(self, state: TrainState, position: Position) -> None:
        """Hands the model to every evaluator and writes what they find."""
        figures: dict[str, float] = {}
        for name, evaluator in self.evaluators.items():
            figures |= {f"{name}/{key}": value for key, value in evaluator(variables_of(state)).items()}
        if figures:
            self._write("evaluation", position, figures)

    def bundles(self, stages: int) -> tuple[Path, ...]:
        """The folders of the first `stages` stages' bundles."""
        return tuple(bundle_folder(self.workdir, self.parts[0].run, i) for i in range(stages))

    def _save(self, state: TrainState, position: Position) -> None:
        self.checkpoints.save(position, state, {"config": self.config})

    def _write(self, kind: str, position: Position, figures: Mapping[str, float]) -> None:
        name = self.parts[position.stage].stage.name
        record = self.journal.write(kind, position.total, {"stage": name, "step": position.step, **figures})
        if record and self.watcher:
            self.watcher.logged(record)


def _teacher(run: Run) -> Bundle | None:
    if run.teacher is None:
        return None
    bundle = load_bundle(run.teacher.bundle)
    changed = difference(to_json(run.teacher.model), to_json(bundle.config))
    if changed:
        raise JclipError(f"the teacher in {run.teacher.bundle} has other towers than the run says ({changed[0]})")
    return bundle


def _placed(shapes: Any, mesh: jax.sharding.Mesh) -> Any:
    sharding = replicated(mesh)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes)


def _finite(metrics: Mapping[str, jax.Array], stage: str, position: Position, workdir: Path) -> dict[str, float]:
    figures = {name: float(value) for name, value in metrics.items()}
    if not np.isfinite(figures["loss"]):
        raise JclipError(
            f"stage {stage!r}: the loss is {figures['loss']} at step {position.step}. The last checkpoint in "
            f"{workdir} is from before: lower the learning rate or clip the gradients"
        )
    return figures


def _write_bundle(state: TrainState, part: StageParts, folder: Path, position: Position) -> None:
    variables = jax.device_get(variables_of(state))
    assert part.tokenizer is not None
    provenance = {"run": part.run.name, "stage": part.stage.name, "steps": position.total, "seed": part.run.seed}
    bundle = Bundle(
        config=part.run.model,
        params=variables["params"],
        stats=variables.get("batch_stats", {}),
        tokenizer=part.tokenizer,
        preprocessing=part.run.preprocessing,
        context_length=part.stage.context_length,
        provenance=provenance,
    )
    save_bundle(bundle, folder)


@contextmanager
def _alone_in(workdir: Path) -> Iterator[None]:
    """Keeps a second run out of the folder: each would delete the other's checkpoints."""
    if fcntl is None or jax.process_index() > 0:  # the processes of one run share the folder; the first one locks it
        yield
        return
    with (workdir / ".lock").open("w") as file:  # the lock goes with the process, however it ends
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JclipError(f"another run is at work in {workdir}: let it finish, or choose another folder") from None
        yield


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """A list that the first Ctrl-C or SIGTERM fills; a step is never cut in two. The second acts at once."""
    received: list[int] = []
    kinds = (signal.SIGINT, signal.SIGTERM)

    def note(number: int, _: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    try:
        previous = {kind: signal.signal(kind, note) for kind in kinds}
    except ValueError:  # signals reach the main thread only; elsewhere a run is stopped by its caller
        previous = {}
    try:
        yield received
    finally:
        for kind, handler in previous.items():
            signal.signal(kind, handler)
