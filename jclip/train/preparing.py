"""What a run needs before its first step, found and held against the configuration."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from jclip import rules
from jclip.bundle import Bundle, check_tokenizer, load_bundle
from jclip.config import difference, to_json
from jclip.errors import JclipError
from jclip.io.files import check_folder
from jclip.models.build import shapes
from jclip.parallel.processes import everywhere, on_first
from jclip.tokenizers.text import Tokenizer, load_tokenizer
from jclip.train.assembly import StageParts, check_and_mesh
from jclip.train.health import first_broken_at_start
from jclip.train.layout import whole_path
from jclip.train.reading import Reading, check_learnable, check_trained, reading
from jclip.train.run import Run, check_starting_points
from jclip.train.state import TrainState


def prepare(run: Run, workdir: Path) -> tuple[jax.sharding.Mesh, Tokenizer, list[StageParts]]:
    """The devices, the tokenizer and the stages of a run that can run; nothing is written, and no data is opened.

    Args:
      run: to be checked.
      workdir: of the run; where it holds checkpoints already, the starting bundles may be gone.

    Raises:
      JclipError: a workdir that cannot be written to; what `check_and_mesh` finds; a tokenizer, a teacher or a
        starting bundle that is missing or does not fit.
    """
    on_first(lambda: check_folder(workdir))
    mesh = check_and_mesh(run)
    if not any((workdir / "checkpoints").glob("[0-9]*")):  # a run that resumes needs its starting points no more
        check_starting_points(run)
    tokenizer = load_tokenizer(Path(run.tokenizer))
    if tokenizer.vocab_size > run.model.text.vocab_size:
        raise JclipError(
            f"the tokenizer in {run.tokenizer} has {tokenizer.vocab_size} entries, but the text tower's "
            f"vocab_size is {run.model.text.vocab_size}: raise it"
        )
    check_tokenizer(run.model, tokenizer, f"{run.tokenizer}: ")
    teacher = _teacher(run)
    parts = [StageParts(run, i, mesh, tokenizer, teacher) for i in range(len(run.stages))]
    for part in parts:
        assert part.optimizer, "building it checks the stage's rules"
    return mesh, tokenizer, parts


def begin(part: StageParts) -> TrainState:
    """Returns the state of a new run at its first step.

    Raises:
      JclipError: a parameter holds infinities or NaN; it is named with its bundle.
    """
    state, run = part.start(), part.run
    path = first_broken_at_start(state)
    if path is None:
        return state
    whole = whole_path(path)
    params = rules.paths_of(shapes(run.model)["params"])
    folder = rules.match(run.starts_from, params, what="starts_from").get(whole, "")
    raise _not_finite(f"starts_from: {folder}" if folder else "the initialisation", path)


def look_at_data(parts: Sequence[StageParts]) -> tuple[list[Reading], list[str]]:
    """Looks at a few records of each stage's data; those of later stages may be missing, for they may come later.

    Returns:
      What is read, and warnings of what is odd.

    Raises:
      JclipError: a stage can learn nothing from its data; on every process.
    """

    def look() -> tuple[list[Reading], list[str]]:
        found, warnings = [], []
        for part in parts:
            mine = [reading(part.stage, source) for source in part.stage.data]
            warnings += check_learnable(part.stage, mine) + check_trained(part.stage, part.chosen)
            found += mine
        return found, warnings

    return everywhere(look)


def _not_finite(where: str, path: str) -> JclipError:
    return JclipError(
        f"{where}: {path} holds infinities or NaN, so no loss can be computed: convert the weights again, or start "
        "from others"
    )


def _teacher(run: Run) -> Bundle | None:
    if run.teacher is None:
        return None
    bundle = load_bundle(run.teacher.bundle)
    changed = difference(to_json(run.teacher.model), to_json(bundle.config))
    if changed:
        raise JclipError(f"the teacher in {run.teacher.bundle} has other towers than the run says ({changed[0]})")
    for path, leaf in rules.paths_of({"text": bundle.params["text"]}).items():
        if not np.isfinite(leaf).all():
            raise _not_finite(f"the teacher in {run.teacher.bundle}", path)
    return bundle
