"""A run, from the configuration to the last bundle: the life of a job, in order.

All processes of a run walk through it in step. At every step they meet (`parallel.processes`), so that a signal or an
error which reaches one of them is acted on by all, at the same step.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jclip.bundle import Bundle, save_bundle
from jclip.checkpoint import Checkpoints, Position
from jclip.data.batches.examples import Batch
from jclip.errors import JclipError
from jclip.parallel.processes import (
    agree,
    alone,
    first,
    is_shared,
    known_to_all,
    meet,
    said_by_first,
    sharing_errors,
    together,
)
from jclip.parallel.sharding import whole
from jclip.train.arithmetic import Arithmetic
from jclip.train.assembly import StageParts, on_mesh, variables_of
from jclip.train.caching import fill
from jclip.train.exchange import Exchange
from jclip.train.health import all_finite, first_broken
from jclip.train.identity import check_same, disagreement, identity
from jclip.train.logging.logbook import Logbook
from jclip.train.logging.meter import Meter, device_peak
from jclip.train.logging.profiling import Profiler
from jclip.train.logging.telemetry import Watcher
from jclip.train.outcome import Outcome
from jclip.train.patience import is_spent
from jclip.train.preparing import begin, look_at_data, prepare
from jclip.train.run import Run
from jclip.train.state import TrainState
from jclip.train.workplace import alone_in, bundle_folder, stop_requests

Evaluator = Callable[[dict[str, Any]], Mapping[str, float]]
"""Variables -> figures, called on every process. Handed to the loop, so that training need not know evaluation."""


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
    stage and the step alone. On other devices, or another number of processes, it goes on from the same example, and
    ends the same but for rounding.

    Args:
      run: what to do; the same on every process.
      workdir: holds checkpoints/, metrics.jsonl and one bundle a stage; seen by every process.
      watcher: is told of the progress.
      evaluators: called before the first stage, at the end of each, and every `run.evaluate_every` steps.
      stop_after: stop, with a checkpoint, after so many steps in all stages together: for tests and time limits.

    Raises:
      JclipError: a configuration that cannot run, or that is not the same on all processes; a checkpoint from another
        one; another run in the same folder; a full disk; pictures that cannot be read; or a loss that is not finite.
        It is raised on every process. Whatever comes from data, evaluation or the writing of a bundle comes after a
        checkpoint of the step it met.
    """
    with ExitStack() as stack:
        stack.enter_context(sharing_errors())
        if run.best and not evaluators:
            raise JclipError(f"best={run.best!r}, but nothing is evaluated in this run: leave it empty")
        # What is wrong with the configuration shows here, before anything is written.
        mesh, tokenizer, parts = together(lambda: prepare(run, workdir))
        me = identity(run, tokenizer)
        agree("configuration", json.dumps(me), lambda firsts, mine: disagreement(json.loads(firsts), json.loads(mine)))

        stack.enter_context(jax.set_mesh(mesh))
        stop = stack.enter_context(stop_requests())
        stack.enter_context(alone_in(workdir))
        checkpoints = Checkpoints(workdir / "checkpoints", keep=run.keep_checkpoints)
        stack.callback(checkpoints.close)
        job = _Job(parts, workdir, checkpoints, me, dict(evaluators or {}), watcher, stop, stop_after)
        stack.callback(job.close)
        # Where the run stands.
        state, position = job.resume() or (begin(parts[0]), Position(0, 0, 0))
        reads, warnings = look_at_data(parts[position.stage :])
        if reads:
            job.write("data", position, {"reads": [str(one) for one in reads]})
        for warning in warnings:
            job.write("warning", position, {"message": warning})
        together(lambda: [part.steps for part in parts[position.stage :]])  # whose data must be there
        if position.total == 0:
            job.evaluate(state, position)

        # Stage after stage.
        while position.stage < len(parts):
            state, position = job.train_stage(state, position)
            if job.stopping(position):
                return Outcome(False, position, job.bundles(position.stage), job.signal)
            state, position = job.finish_stage(state, position)
        return Outcome(True, position, job.bundles(position.stage), best=job.finish(state, position))


@dataclass
class _Job:
    parts: list[StageParts]
    workdir: Path
    checkpoints: Checkpoints
    identity: dict[str, Any]
    evaluators: dict[str, Evaluator]
    watcher: Watcher | None
    signals: list[int]
    stop_after: int | None = None
    signal: int | None = None
    score: tuple[int, float] | None = None

    def __post_init__(self) -> None:
        self.run = self.parts[0].run
        self.logbook = Logbook(self.run, self.workdir, self.identity["config"], self.watcher)
        monitor = self.run.monitor
        self.profiler = Profiler(self.workdir / "profile", monitor.profile_from, monitor.profile_steps)

    def resume(self) -> tuple[TrainState, Position] | None:
        """The state of the newest checkpoint that is whole, and what had been measured until then."""
        warnings: list[str] = []
        found = self.checkpoints.restore(self._shapes_at, warn=warnings.append)
        position = found.position if found else Position(0, 0, 0)
        self.logbook.begin(found.journal if found else (), position.total)
        for warning in warnings:
            self.write("warning", position, {"message": warning})
        return (found.state, found.position) if found else None

    def close(self) -> None:
        """Ends a profile that is under way, and closes what is open."""
        self.profiler.close()
        self.logbook.close()

    def train_stage(self, state: TrainState, position: Position) -> tuple[TrainState, Position]:
        """Steps until the stage is done or a stop is asked for; in both cases the state is saved."""
        part = self.parts[position.stage]
        run, stage, steps = part.run, part.stage, part.steps
        if position.step == steps or self._ends_early(position):  # it was saved before it could be finished
            return state, position
        self.exchange = Exchange(part.batches, self.signals, self.logbook.unreadable(stage.name))
        if stage.cache and not self._fill_cache(part, state, position):
            return state, position  # which are saved
        step_fn, constants = part.compiled, part.constants()
        key = jax.random.fold_in(jax.random.key(run.seed), position.stage)
        before = position.total - position.step
        if self.watcher:
            self.watcher.stage_begins(stage.name, position.step, steps)
        meter, begin = self._meter(part), position.step
        compiled: set[tuple[tuple[int, ...], ...]] = set()
        with closing(part.batches.iterate(position.step)) as batches:
            for step in range(begin, steps):
                with self._saved_first(state, position), meter.waiting():
                    batch = self._next(batches, position)
                if batch is None:
                    self._save(state, position)
                    break
                inputs = constants, part.place(batch), jax.random.fold_in(key, step)
                if (shapes := tuple(map(np.shape, batch.values()))) not in compiled and not alone():
                    # Collectives between hosts give up on a process that comes half a minute late: compile first.
                    step_fn.lower(state, *inputs).compile()
                    compiled.add(shapes)
                    meet()
                self.profiler.before(position.total)
                state, metrics = step_fn(state, *inputs)
                position = Position(position.stage, step + 1, before + step + 1)
                self.profiler.after(position.total, metrics["loss"])
                meter.step(batch)
                if self.watcher:
                    self.watcher.stepped(position.step)
                if position.step == steps or (run.log_every and position.step % run.log_every == 0):
                    figures = self._finite(metrics, state, position)
                    figures |= {"learning_rate": float(part.learning_rate(step)), **meter.read()}
                    self.write("train", position, figures)
                if run.evaluate_every and position.step < steps and position.step % run.evaluate_every == 0:
                    with self._saved_first(state, position), meter.apart():
                        self.evaluate(state, position)
                # The last step too: what comes now, evaluation and the bundle, must not cost what was learned.
                due = run.checkpoint_every and position.step % run.checkpoint_every == 0
                early = self._ends_early(position)
                if position.step == steps or due or early or self._is_best(position):
                    with meter.apart():
                        self._save(state, position)
                if early:
                    self._listen(position)
                    break
            else:
                self._listen(position)
        return state, position

    def finish_stage(self, state: TrainState, position: Position) -> tuple[TrainState, Position]:
        """Evaluates, writes the stage's bundle, and turns the state into the next stage's first."""
        next_index = position.stage + 1
        self.evaluate(state, position)
        self._write_bundle(state, position.stage, position, bundle_folder(self.workdir, self.run, position.stage))
        if next_index < len(self.parts):
            state = self.parts[next_index].follow(state)
        position = Position(next_index, 0, position.total)
        self._save(state, position)
        return state, position

    def finish(self, state: TrainState, position: Position) -> Path | None:
        """Writes what is left when all stages are done, and returns the best model's bundle, if there is one.

        That is the best model's bundle, and a last one that somebody took away.
        """
        last = len(self.parts) - 1
        if json.loads(said_by_first(json.dumps(not bundle_folder(self.workdir, self.run, last).is_dir()))):
            self._write_bundle(state, last, position, bundle_folder(self.workdir, self.run, last))
        self.checkpoints.wait()
        number = self.checkpoints.best() if self.run.best else None
        if number is not None:
            warnings: list[str] = []
            best = self.checkpoints.restore(self._shapes_at, number, warn=warnings.append)
            for warning in warnings:
                self.write("warning", position, {"message": warning})
            if best:
                self._write_bundle(best.state, min(best.position.stage, last), best.position, self.workdir / "best")
                return self.workdir / "best"
        return None

    def stopping(self, position: Position) -> bool:
        """Whether a stop was asked for, of which all processes know."""
        return self.signal is not None or (self.stop_after is not None and position.total >= self.stop_after)

    def evaluate(self, state: TrainState, position: Position) -> None:
        """Hands the model to every evaluator and writes what they find, unless that is written already."""
        if self.logbook.has("evaluation", position.total):
            return
        figures: dict[str, float] = {}
        for name, evaluator in self.evaluators.items():
            found = together(lambda call=evaluator: dict(call(variables_of(state))))  # type: ignore[misc]
            figures |= {f"{name}/{key}": float(value) for key, value in found.items()}
        # What is decided by them must be decided alike, and no two processors round alike.
        figures = json.loads(said_by_first(json.dumps(figures)))
        if figures:
            self.write("evaluation", position, figures)
        if self.run.best and figures:
            if self.run.best not in figures:
                raise JclipError(f"best: no evaluation gives {self.run.best!r}: choose one of {', '.join(figures)}")
            if not np.isnan(figures[self.run.best]):
                self.score = position.total, figures[self.run.best]

    def bundles(self, stages: int) -> tuple[Path, ...]:
        """The folders of the first `stages` stages' bundles."""
        return tuple(bundle_folder(self.workdir, self.run, i) for i in range(stages))

    def _fill_cache(self, part: StageParts, state: TrainState, position: Position) -> bool:
        """Has what the frozen tower makes of the stage's data computed, where it is not; False to stop instead."""
        watcher, begun = self.watcher, False

        def stepped(done: int, rows: int) -> None:
            nonlocal begun
            if watcher and not begun:
                watcher.stage_begins(f"{part.stage.name}, its cache", done, rows)
            if watcher:
                watcher.stepped(done)
            begun = True

        filled = fill(part, state, lambda: bool(self.signals), stepped)
        if filled is None:
            self._listen(position)
            return False
        part.batches.features = filled.caches
        rows = sum(cache.count for cache in filled.caches)
        self.write("cache", position, {"rows": rows, "computed": filled.computed})
        return True

    def _next(self, batches: Iterator[Batch], position: Position) -> Batch | None:
        """The next batch, or None where a stop is asked for: on all processes alike.

        Raises:
          JclipError: a process has no batch.
        """
        batch, failure = None, None
        if not self.stopping(position) and not self.signals:
            try:
                batch = next(batches)
            except Exception as error:
                # A signal that went to the whole group has ended the workers that make batches.
                failure = None if self.signals else error
        self._listen(position, failure)
        return None if self.stopping(position) else batch

    def _listen(self, position: Position, failure: Exception | None = None) -> None:
        """Hears what came up on any process since the step before, and acts on it."""
        heard = self.exchange(failure)
        if heard.error is not None:
            raise known_to_all(heard.error)
        if heard.unreadable:
            self.write("unreadable", position, {"pictures": heard.unreadable})
        self.signal = self.signal or heard.signal

    def _save(self, state: TrainState, position: Position) -> None:
        if not all_finite(state):
            raise JclipError(
                f"{first_broken(state)} is not finite after {position.total} steps, and nothing is saved. "
                f"{self._mend_broken()}"
            )
        score = self.score[1] if self.score and self.score[0] == position.total else None
        self.checkpoints.save(position, state, self.identity, self.logbook.records, score)

    def _ends_early(self, position: Position) -> bool:
        stage = self.parts[position.stage].stage.name
        return is_spent(self.run.patience, self.run.best, stage, position.total, self.logbook.records)

    def _is_best(self, position: Position) -> bool:
        """Whether what was evaluated just now is better than any checkpoint."""
        if not self.score or self.score[0] != position.total:
            return False
        best = self.checkpoints.best_score()
        return best is None or self.score[1] > best

    def _mend_broken(self) -> str:
        saved = (
            f"The last checkpoint in {self.workdir} is from before"
            if self.checkpoints.numbers()
            else "No checkpoint was due before, and the same command begins again"
        )
        return f"{saved}: lower the learning rate or clip the gradients"

    @contextmanager
    def _saved_first(self, state: TrainState, position: Position) -> Iterator[None]:
        """Saves the state before an error of the block goes its way, so that no step is lost to it."""
        try:
            yield
        except Exception as error:
            if position.total and is_shared(error):
                try:
                    self._save(state, position)
                    self.checkpoints.wait()
                except JclipError as failure:
                    if isinstance(error, JclipError):
                        raise JclipError(f"{error}; and then: {failure}") from error
                    error.add_note(str(failure))
            raise

    def _finite(self, metrics: Mapping[str, jax.Array], state: TrainState, position: Position) -> dict[str, float]:
        figures = {name: float(value) for name, value in metrics.items()}
        if not np.isfinite(figures["loss"]):
            name = self.parts[position.stage].stage.name
            culprit = first_broken(state) or "no parameter: the batch itself"
            raise JclipError(
                f"stage {name!r}: the loss is {figures['loss']} at step {position.step}; the first that is not finite "
                f"is {culprit}. {self._mend_broken()}"
            )
        return figures

    def _write_bundle(self, state: TrainState, stage: int, position: Position, folder: Path) -> None:
        part = self.parts[stage]
        variables = whole(variables_of(state), part.mesh)
        before = bundle_folder(self.workdir, self.run, stage - 1) if stage else None
        provenance = {"run": self.run.name, "stage": part.stage.name, "steps": position.total, "seed": self.run.seed}

        def write() -> None:
            assert part.tokenizer is not None
            bundle = Bundle(
                config=self.run.model,
                params=part.unrounded(variables["params"], before),
                stats=variables.get("batch_stats", {}),
                tokenizer=part.tokenizer,
                preprocessing=self.run.preprocessing,
                context_length=part.stage.context_length,
                provenance=provenance,
            )
            save_bundle(bundle, folder)

        first(write)

    def _shapes_at(self, position: Position, record: dict[str, Any]) -> TrainState:
        check_same(record, self.identity, self.workdir / "checkpoints")
        here = self.parts[min(position.stage, len(self.parts) - 1)]
        shapes: TrainState = on_mesh(here.state_shapes, here.shardings)
        return shapes

    def write(self, kind: str, position: Position, figures: Mapping[str, Any]) -> None:
        """Notes one record of where the run stands."""
        stage = self.parts[min(position.stage, len(self.parts) - 1)].stage
        self.logbook.write(kind, position.total, {"stage": stage.name, "step": position.step, **figures})

    def _meter(self, part: StageParts) -> Meter:
        peak = device_peak(self.run.monitor.peak_tflops)
        pad_id = part.tokenizer.pad_id if part.tokenizer else 0
        return Meter(part.stage.batch_size, part.mesh.size, Arithmetic(part), peak, pad_id)
