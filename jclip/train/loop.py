"""Training of a run, from its configuration to its last bundle.

All processes of a run execute it together. They exchange signals and errors at every step (`parallel.processes`), so
that all act on them at the same step.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jclip.bundle import Bundle, save_bundle
from jclip.checkpoint import Checkpoints, Position
from jclip.errors import JclipError, first_line
from jclip.models.build import variables_of
from jclip.parallel.memory import least_device_memory
from jclip.parallel.processes import broadcast, everywhere, on_first, same_everywhere, sharing_errors
from jclip.parallel.sharding import on_mesh, whole
from jclip.tokenizers.text import Tokenizer
from jclip.train.assembly import Devices, StageParts
from jclip.train.configuration import Run
from jclip.train.evaluating import Evaluating, Evaluator
from jclip.train.identity import check_same, disagreement, identity
from jclip.train.logging.meter import Profiler
from jclip.train.logging.progress import Watcher
from jclip.train.logging.run_log import RunLog
from jclip.train.outcome import Outcome
from jclip.train.planning.remat import choose_remat, least_recomputation
from jclip.train.planning.stage_plan import device_bytes
from jclip.train.preparing import begin, prepare, sample_data
from jclip.train.saver import Saver
from jclip.train.stage_loop import Instruments, StageLoop
from jclip.train.state import TrainState, whole_params
from jclip.train.workplace import StopRequest, bundle_folder, exclusive, stop_signals


def train(
    run: Run,
    workdir: Path,
    *,
    watcher: Watcher | None = None,
    evaluators: Mapping[str, Evaluator] | None = None,
    stop_after: int | None = None,
) -> Outcome:
    """Trains the remaining stages of `run`. Call it again to resume.

    A resumed run ends with the same parameters to the bit: data, augmentation and dropout depend on the seed, the stage
    and the step alone. On other devices, or with another number of processes, it continues from the same example and
    ends the same except for rounding. Raises JclipError on every process if the configuration is not valid, or differs
    between processes; a checkpoint is another run's; another run uses the folder; the disk is full; data cannot be
    read; or a loss is not finite. If data, an evaluation or a bundle fails, the state of that step is saved first.

    Args:
      run: the configuration; the same on every process.
      workdir: folder for checkpoints/, metrics.jsonl and one bundle per stage, on a disk that all processes share.
      watcher: observer of the progress.
      evaluators: called before the first stage, at the end of each, and every `run.evaluate_every` steps.
      stop_after: number of steps, over all stages, after which to save a checkpoint and stop.
    """
    with ExitStack() as stack:
        stack.enter_context(sharing_errors())
        stack.enter_context(_memory_errors())
        if run.best and not evaluators:
            raise JclipError(f"best={run.best!r}, but nothing is evaluated in this run: set it to ''")
        # Errors of the configuration show here, before anything is written.
        devices, tokenizer, parts = everywhere(lambda: prepare(run, workdir))
        own_identity = identity(run, tokenizer)
        same_everywhere("the configuration", own_identity, disagreement)

        stack.enter_context(jax.set_mesh(devices.mesh))
        stop = StopRequest(stack.enter_context(stop_signals()), stop_after)
        stack.enter_context(exclusive(workdir))
        job = stack.enter_context(
            closing(_Job(parts, tokenizer, workdir, own_identity, evaluators or {}, watcher, stop))
        )
        state, position = job.resume() or (begin(parts[0]), Position(0, 0, 0))
        job.log_inputs(position, devices)
        if position.total == 0:
            job.instruments.evaluating.evaluate(state, position)

        while position.stage < len(parts):
            state, position = job.train_stage(state, position)
            if stop.is_due(position):
                return Outcome(False, position, job.bundles(position.stage), stop.signal)
            state, position = job.finish_stage(state, position)
        return Outcome(True, position, job.bundles(position.stage), best=job.finish(state, position))


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Raises JclipError if the devices have too little memory for the block."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        reason = first_line(error)
        if "RESOURCE_EXHAUSTED" not in reason:
            raise
        raise JclipError(
            f"the devices have too little memory ({reason}): double micro_batches, which keeps gradients exact, "
            "or find settings with `jclip plan CONFIG --memory GIB`"
        ) from error


@dataclass
class _Job:
    """Run that is being trained in its folder."""

    parts: list[StageParts]
    tokenizer: Tokenizer
    workdir: Path
    identity: dict[str, Any]
    evaluators: Mapping[str, Evaluator]
    watcher: Watcher | None
    stop: StopRequest

    def __post_init__(self) -> None:
        run = self.run = self.parts[0].run
        self.checkpoints = Checkpoints(self.workdir / "checkpoints", keep=run.keep_checkpoints)
        log = RunLog(run, self.workdir, self.identity["config"], self.watcher)
        evaluating = Evaluating(run, self.evaluators, log)
        saver = Saver(self.checkpoints, self.identity, log, evaluating, str(self.workdir))
        profiler = Profiler(self.workdir / "profile", run.monitor.profile_from, run.monitor.profile_steps)
        self.instruments = Instruments(log, saver, evaluating, profiler, self.stop, self.watcher)

    def close(self) -> None:
        """Closes log, profiler and checkpoints, and waits for the last checkpoint."""
        with ExitStack() as stack:
            for each in (self.checkpoints, self.instruments.log, self.instruments.profiler):
                stack.callback(each.close)

    def resume(self) -> tuple[TrainState, Position] | None:
        """Restores the newest undamaged checkpoint and opens the log with its records; returns None for a new run."""
        warnings: list[str] = []
        found = self.checkpoints.restore(self._shapes_at, warn=warnings.append)
        position = found.position if found else Position(0, 0, 0)
        self.instruments.log.open(found.journal if found else (), position.total)
        self._warn(warnings, position)
        return (found.state, found.position) if found else None

    def log_inputs(self, position: Position, devices: Devices) -> None:
        """Logs the data of the remaining stages and the placement of the parameters.

        Raises JclipError if the data are missing, or nothing can be learned from them.
        """
        parts = self.parts[position.stage :]
        reads, warnings = sample_data(parts)
        if reads:
            self.instruments.log.write("data", position, {"reads": [str(one) for one in reads]})
        if devices.copies.devices > 1:
            self.instruments.log.write("devices", position, {"parameters": str(devices.copies)})
        self._warn(warnings, position)

    def train_stage(self, state: TrainState, position: Position) -> tuple[TrainState, Position]:
        """Trains the remaining steps of a stage, if any."""
        part = self.parts[position.stage]
        if position.step == part.steps or self.instruments.evaluating.patience_is_spent(position):
            return state, position
        choice = choose_remat(part, least_device_memory(), device_bytes)
        chosen = {"remat": choice.part.remat, "least": least_recomputation(part), "reason": choice.reason}
        self.instruments.log.write("remat", position, chosen)
        return StageLoop(choice.part, self.instruments).train(state, position)

    def finish_stage(self, state: TrainState, position: Position) -> tuple[TrainState, Position]:
        """Evaluates, writes the stage's bundle, and returns the next stage's first state."""
        following = position.stage + 1
        self.instruments.evaluating.evaluate(state, position)
        self._write_bundle(state, position.stage, position, self._folder(position.stage))
        if following < len(self.parts):
            state = self.parts[following].follow(state)
        position = Position(following, 0, position.total)
        self.instruments.saver.save(state, position)
        return state, position

    def finish(self, state: TrainState, position: Position) -> Path | None:
        """Writes the best model's bundle; returns its folder, or None without scores.

        Also writes the last stage's bundle again if it was deleted.
        """
        last = len(self.parts) - 1
        if broadcast(not self._folder(last).is_dir()):
            self._write_bundle(state, last, position, self._folder(last))
        self.checkpoints.wait()
        number = self.checkpoints.best() if self.run.best else None
        if number is None:
            return None
        warnings: list[str] = []
        best = self.checkpoints.restore(self._shapes_at, number, warn=warnings.append)
        self._warn(warnings, position)
        if best is None:
            return None
        self._write_bundle(best.state, min(best.position.stage, last), best.position, self.workdir / "best")
        return self.workdir / "best"

    def bundles(self, count: int) -> tuple[Path, ...]:
        """Returns the bundles of the first `count` stages."""
        return tuple(map(self._folder, range(count)))

    def _folder(self, stage: int) -> Path:
        return bundle_folder(self.workdir, self.run, stage)

    def _write_bundle(self, state: TrainState, stage: int, position: Position, folder: Path) -> None:
        part = self.parts[stage]
        variables = whole(variables_of(whole_params(state), state.stats), part.mesh)
        provenance = {"run": self.run.name, "stage": part.stage.name, "steps": position.total, "seed": self.run.seed}

        def write() -> None:
            bundle = Bundle(
                config=self.run.model,
                params=variables["params"],
                stats=variables.get("batch_stats", {}),
                tokenizer=self.tokenizer,
                preprocessing=self.run.preprocessing,
                context_length=part.stage.context_length,
                provenance=provenance,
            )
            save_bundle(bundle, folder)

        on_first(write)

    def _shapes_at(self, position: Position, record: dict[str, Any]) -> TrainState:
        check_same(record, self.identity, self.workdir / "checkpoints")
        part = self.parts[min(position.stage, len(self.parts) - 1)]
        shapes: TrainState = on_mesh(part.state_shapes, part.shardings)
        return shapes

    def _warn(self, warnings: list[str], position: Position) -> None:
        for warning in warnings:
            self.instruments.log.write("warning", position, {"message": warning})
