"""What a run needs before its first step, found and held against the configuration."""

from pathlib import Path

import jax

from jclip.bundle import Bundle, check_tokenizer, load_bundle
from jclip.config import difference, to_json
from jclip.data.text import Tokenizer, load_tokenizer
from jclip.errors import JclipError
from jclip.train.assembly import StageParts, check_and_mesh
from jclip.train.run import Run, check_starting_points


def prepare(run: Run, workdir: Path) -> tuple[jax.sharding.Mesh, Tokenizer, list[StageParts]]:
    """The devices, the tokenizer and the stages of a run that can run; nothing is written, and no data is opened.

    Args:
      run: to be checked.
      workdir: of the run; where it holds checkpoints already, the starting bundles may be gone.

    Raises:
      JclipError: what `check_and_mesh` finds; a tokenizer, a teacher or a starting bundle that is missing or
        does not fit.
    """
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


def _teacher(run: Run) -> Bundle | None:
    if run.teacher is None:
        return None
    bundle = load_bundle(run.teacher.bundle)
    changed = difference(to_json(run.teacher.model), to_json(bundle.config))
    if changed:
        raise JclipError(f"the teacher in {run.teacher.bundle} has other towers than the run says ({changed[0]})")
    return bundle
