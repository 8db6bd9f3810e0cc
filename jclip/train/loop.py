"""A run, from the configuration to the last bundle: the life of a job, in order."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
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
from jclip.train.assembly import StageParts, check_and_mesh, on_mesh, variables_of
from jclip.train.identity import check_same, identity
from jclip.train.run import Run
from jclip.train.state import TrainState
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
        folder, a full disk, pictures that cannot be read, or a loss that is not finite. Whatever comes from data,
        evaluation or the writing of a bundle comes after a checkpoint of the step it met.
    """
    # What is wrong with the configuration shows here, before anything is written.
    _check_processes()
    mesh = check_and_mesh(run)
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
        me, position = identity(run, tokenizer), Position(0, 0, 0)
        if found := checkpoints.latest():
            position, record = found
            check_same(record, me, workdir / "checkpoints")
        if position.total:
            here = parts[min(position.stage, len(parts) - 1)]
            state = checkpoints.restore(position, on_mesh(here.state_shapes, here.shardings))
        else:
            state = parts[0].start()
        journal = Journal(workdir / "metrics.jsonl", position.total)
        stack.callback(journal.close)
        job = _Job(parts, workdir, checkpoints, journal, me, dict(evaluators or {}), watcher)
        job.should_stop = lambda total: bool(stop) or (stop_after is not None and total >= stop_after)
        if position.total == 0:
            job.evaluate(state, position)

        # Stage after stage.
        while position.stage < len(parts):
            state, position = job.train_stage(state, position)
            if position.step < parts[position.stage].steps or job.should_stop(position.total):
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
    identity: dict[str, Any]
    evaluators: dict[str, Evaluator]
    watcher: Watcher | None
    should_stop: Callable[[int], bool] = field(default=lambda total: False)

    def train_stage(self, state: TrainState, position: Position) -> tuple[TrainState, Position]:
        """Steps until the stage is done or a stop is asked for; in both cases the state is saved."""
        part = self.parts[position.stage]
        run, stage, steps = part.run, part.stage, part.steps
        if position.step == steps:  # it was saved before it could be finished
            return state, position
        step_fn, constants = part.compiled, part.constants()
        key = jax.random.fold_in(jax.random.key(run.seed), position.stage)
        before = position.total - position.step
        if self.watcher:
            self.watcher.stage_begins(stage.name, position.step, steps)
        clock, counted, noted = time.perf_counter(), position.step, 0
        with closing(part.batches.iterate(position.step)) as batches:
            for step in range(position.step, steps):
                with self._saved_first(state, position):
                    batch = next(batches)
                state, metrics = step_fn(state, constants, part.place(batch), jax.random.fold_in(key, step))
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
                if found := part.batches.unreadable[noted:]:
                    noted += len(found)
                    self._write("unreadable", position, {"pictures": list(found)})
                if run.evaluate_every and position.step < steps and position.step % run.evaluate_every == 0:
                    with self._saved_first(state, position):
                        self.evaluate(state, position)
                stopping = self.should_stop(position.total)
                due = run.checkpoint_every and position.step % run.checkpoint_every == 0
                # The last step too: what comes now, evaluation and the bundle, must not cost what was learned.
                if stopping or due or position.step == steps:
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
            state = self.parts[next_index].follow(state)
        position = Position(next_index, 0, position.total)
        self._save(state, position)
        return state, position

    def evaluate(self, state: TrainState, position: Position) -> None:
        """Hands the model to every evaluator and writes what they find, unless that is written already."""
        if self.journal.has("evaluation", position.total):
            return
        figures: dict[str, float] = {}
        for name, evaluator in self.evaluators.items():
            figures |= {f"{name}/{key}": value for key, value in evaluator(variables_of(state)).items()}
        if figures:
            self._write("evaluation", position, figures)

    def bundles(self, stages: int) -> tuple[Path, ...]:
        """The folders of the first `stages` stages' bundles."""
        return tuple(bundle_folder(self.workdir, self.parts[0].run, i) for i in range(stages))

    def _save(self, state: TrainState, position: Position) -> None:
        if not _all_finite(state.trainable):
            raise JclipError(
                f"parameters are not finite after {position.total} steps, and are not saved. "
                f"{_BROKEN.format(self.workdir)}"
            )
        self.checkpoints.save(position, state, self.identity)

    @contextmanager
    def _saved_first(self, state: TrainState, position: Position) -> Iterator[None]:
        """Saves the state before an error of the block goes its way, so that no step is lost to it."""
        try:
            yield
        except Exception as error:
            if position.total:
                try:
                    self._save(state, position)
                except JclipError as failure:
                    if isinstance(error, JclipError):
                        raise JclipError(f"{error}\n{failure}") from error
                    error.add_note(str(failure))
            raise

    def _write(self, kind: str, position: Position, figures: Mapping[str, Any]) -> None:
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


def _check_processes() -> None:
    if jax.process_count() > 1:
        raise JclipError(
            f"training over {jax.process_count()} processes is not there yet: evaluation, bundles and a stop in the "
            "middle are one process's so far. Start one process that sees all its devices"
        )


_BROKEN = "The last checkpoint in {} is from before: lower the learning rate or clip the gradients"


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _finite(metrics: Mapping[str, jax.Array], stage: str, position: Position, workdir: Path) -> dict[str, float]:
    figures = {name: float(value) for name, value in metrics.items()}
    if not np.isfinite(figures["loss"]):
        raise JclipError(
            f"stage {stage!r}: the loss is {figures['loss']} at step {position.step}. {_BROKEN.format(workdir)}"
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
