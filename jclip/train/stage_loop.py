"""The steps of one stage."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jclip.accelerators.peaks import peak_of
from jclip.checkpoint import Position
from jclip.data.batches.examples import Batch
from jclip.data.batches.loader import Batches
from jclip.parallel.processes import barrier, everywhere, mark_sent
from jclip.train.arithmetic import Arithmetic
from jclip.train.assembly import StageParts
from jclip.train.caching import fill
from jclip.train.evaluating import Evaluating
from jclip.train.exchange import Exchange
from jclip.train.logging.meter import Meter, Profiler
from jclip.train.logging.progress import Watcher
from jclip.train.logging.run_log import RunLog
from jclip.train.parked import unparked
from jclip.train.saver import Saver
from jclip.train.state import TrainState
from jclip.train.workplace import StopRequest


@dataclass(frozen=True)
class Instruments:
    """Services that the stages of a run share."""

    log: RunLog
    saver: Saver
    evaluating: Evaluating
    profiler: Profiler
    stop: StopRequest
    watcher: Watcher | None = None


class StageLoop:
    """Loop over the steps of one stage."""

    def __init__(self, part: StageParts, instruments: Instruments):
        self._part, self._run, self._instruments = part, part.run, instruments
        self._stop, self._log, self._saver = instruments.stop, instruments.log, instruments.saver
        self._data = everywhere(part.open_batches)
        self._exchange = Exchange(self._data, self._stop.signals, self._log.unreadable(part.stage.name))

    def train(self, state: TrainState, position: Position) -> tuple[TrainState, Position]:
        """Trains until the stage ends or a stop is requested, and saves the state.

        Deletes the arrays of `state`, and returns the whole state on the devices.
        """
        part, steps = self._part, self._part.steps
        batches = self._batches(state, position)
        if batches is None:
            return state, position
        state = part.between_steps(state)
        run_step, meter = _CompiledStep(part, state), self._meter()
        self._tell_begin(part.stage.name, position.step, steps)
        with closing(batches.iterate(position.step)) as queue:
            ended = False
            while not ended:
                with self._saver.saving_before_errors(state, position), meter.waiting():
                    batch = self._next(queue, position)
                if batch is None:
                    self._saver.save(state, position)
                    return unparked(state), position
                self._instruments.profiler.before_step(position.total)
                state, metrics = run_step(state, batch, position.step)
                position = position.stepped()
                self._instruments.profiler.after_step(position.total, metrics["loss"])
                meter.step(batch)
                self._tell_step(position.step)
                done = position.step == steps
                if done or _is_due(self._run.log_every, position):
                    self._log_step(metrics, state, position, meter)
                if _is_due(self._run.evaluate_every, position) and not done:
                    with self._saver.saving_before_errors(state, position), meter.apart():
                        self._instruments.evaluating.evaluate(state, position)
                ended = done or self._instruments.evaluating.patience_is_spent(position)
                # The last step is saved too, because evaluation and the bundle follow and may fail.
                if ended or _is_due(self._run.checkpoint_every, position) or self._saver.is_best(position):
                    with meter.apart():
                        self._saver.save(state, position)
            self._listen(position)
        return unparked(state), position

    def _batches(self, state: TrainState, position: Position) -> Batches | None:
        """Fills the stage's cache and returns its batches; None if a stop was requested meanwhile."""
        part, begun = self._part, False
        if not part.stage.cache:
            return self._data

        def stepped(done: int, rows: int) -> None:
            nonlocal begun
            if not begun:
                self._tell_begin(f"{part.stage.name}: cache", done, rows)
            self._tell_step(done)
            begun = True

        filled = fill(part, self._data, state, lambda: bool(self._stop.signals), stepped)
        if filled is None:
            self._listen(position)
            return None
        rows = sum(cache.count for cache in filled.caches)
        self._log.write("cache", position, {"rows": rows, "computed": filled.computed})
        return self._data.with_features(filled.caches)

    def _next(self, batches: Iterator[Batch], position: Position) -> Batch | None:
        """Returns the next batch; None if a stop is requested. Raises JclipError if a process could not read."""
        batch, failure = None, None
        if not self._stop.is_due(position) and not self._stop.signals:
            try:
                batch = next(batches)
            except Exception as error:
                # A signal to the whole process group ends the workers too, which is not a failure.
                failure = None if self._stop.signals else error
        self._listen(position, failure)
        return None if self._stop.is_due(position) else batch

    def _listen(self, position: Position, failure: Exception | None = None) -> None:
        """Exchanges reports with the other processes, and acts on them."""
        heard = self._exchange(failure)
        if heard.error is not None:
            raise mark_sent(heard.error)
        if heard.unreadable:
            self._log.write("unreadable", position, {"pictures": heard.unreadable})
        self._stop.signal = self._stop.signal or heard.signal

    def _log_step(self, metrics: Mapping[str, jax.Array], state: TrainState, position: Position, meter: Meter) -> None:
        figures = self._saver.finite(metrics, state, position, self._part.stage.name)
        rate = float(self._part.learning_rate(position.step - 1))
        self._log.write("train", position, {**figures, "learning_rate": rate, **meter.read()})

    def _tell_begin(self, name: str, step: int, steps: int) -> None:
        if self._instruments.watcher:
            number, count = self._part.index + 1, len(self._run.stages)
            figures = self._part.stage.objective.figures
            self._instruments.watcher.stage_begins(name, step, steps, number=number, count=count, figures=figures)

    def _tell_step(self, step: int) -> None:
        if self._instruments.watcher:
            self._instruments.watcher.stepped(step)

    def _meter(self) -> Meter:
        part = self._part
        given = self._run.monitor.peak_tflops
        peak = given * 1e12 if given else peak_of(jax.local_devices()[0].device_kind)
        pad_id = part.open_inputs().tokenizer.pad_id
        flops = Arithmetic(part) if peak is not None else None
        return Meter(part.stage.batch_size, part.mesh.size, flops, peak, self._data.text_name, pad_id)


class _CompiledStep:
    """Compiled step of a stage. All processes compile a new batch shape before any of them runs it."""

    def __init__(self, part: StageParts, state: TrainState):
        self._part, self._constants, self._frozen = part, part.constants(), part.taken_of(state).frozen
        self._key = jax.random.fold_in(jax.random.key(part.run.seed), part.index)
        self._met: set[tuple[tuple[int, ...], ...]] = set()

    def __call__(self, state: TrainState, batch: Batch, step: int) -> tuple[TrainState, Any]:
        """Returns the next state and the metrics of step number `step` of the stage; donates `state`."""
        taken = state._replace(frozen=self._frozen)
        inputs = taken, self._constants, self._part.place(batch), jax.random.fold_in(self._key, step)
        program = self._part.program_for(*inputs)
        if (shapes := tuple(map(np.shape, batch.values()))) not in self._met:
            self._met.add(shapes)
            barrier()  # collectives between hosts time out if a process is half a minute late
        next_state, metrics = program(*inputs)
        self._frozen = next_state.frozen
        if self._part.devices.own_memory:
            next_state = next_state._replace(frozen=state.frozen)
        return next_state, metrics


def _is_due(every: int, position: Position) -> bool:
    return bool(every) and position.step % every == 0
