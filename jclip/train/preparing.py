"""Prepares a run: checks it, opens its inputs and assembles its stages, before anything is written."""

from collections.abc import Sequence
from pathlib import Path

from jclip import rules
from jclip.data.inspecting.reading import SourceFacts, source_facts
from jclip.errors import JclipError
from jclip.io.files import check_folder
from jclip.models.build import shapes
from jclip.parallel.processes import everywhere, on_first
from jclip.tokenizers.text import Tokenizer
from jclip.train.assembly import Devices, StageParts, assemble, devices_of, open_stage, open_tokenizer
from jclip.train.checks import check_starting_points, warn_of_small_training
from jclip.train.configuration import Run
from jclip.train.health import first_broken
from jclip.train.layout import whole_path
from jclip.train.state import TrainState


def prepare(run: Run, workdir: Path) -> tuple[Devices, Tokenizer, list[StageParts]]:
    """Checks a run, and returns its devices, its tokenizer and its assembled stages.

    Writes nothing, and opens data only to count epochs. A run with checkpoints does not need its starting bundles.
    Raises JclipError if the workdir cannot be written to; the run is not valid; or a tokenizer, a teacher or a starting
    bundle is missing or does not fit.
    """
    on_first(lambda: check_folder(workdir))
    devices = devices_of(run)
    if not any((workdir / "checkpoints").glob("[0-9]*")):
        check_starting_points(run)
    tokenizer = open_tokenizer(run)
    inputs = [open_stage(run, index, devices, tokenizer) for index in range(len(run.stages))]
    return devices, tokenizer, [assemble(run, index, devices, each) for index, each in enumerate(inputs)]


def begin(part: StageParts) -> TrainState:
    """Returns a new run's first state. Raises JclipError, with path and bundle, if a parameter is not finite."""
    state, run = part.start(), part.run
    path = first_broken(state)
    if path is None:
        return state
    params = rules.paths_of(shapes(run.model)["params"])
    folder = rules.match(run.starts_from, params, what="starts_from").get(whole_path(path), "")
    where = f"starts_from: {folder}" if folder else "the initialisation"
    raise JclipError(
        f"{where}: {path} holds infinities or NaN, so no loss can be computed: convert the weights again, or start "
        "from others"
    )


def sample_data(parts: Sequence[StageParts]) -> tuple[list[SourceFacts], list[str]]:
    """Reads a sample of each stage's data, and returns facts about every source, and warnings.

    Later stages' data may be missing. Raises JclipError on every process if a stage can learn nothing from its data.
    """

    def sample() -> tuple[list[SourceFacts], list[str]]:
        found, warnings = [], []
        for part in parts:
            stage = part.stage
            mine = [source_facts(stage.name, source) for source in stage.data]
            if all(one.records is not None for one in mine):
                warnings += stage.objective.check_data(stage, mine)
            warnings += warn_of_small_training(stage, part.trains)
            found += mine
        return found, warnings

    return everywhere(sample)
