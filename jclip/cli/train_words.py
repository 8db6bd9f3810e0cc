"""Last lines of `jclip train`: the best bundle, and a command that uses it."""

import shlex
from pathlib import Path

from jclip.train.configuration import Run
from jclip.train.evaluations import Classification, Evaluation, Probe, Retrieval
from jclip.train.outcome import Outcome


def what_now(run: Run, outcome: Outcome) -> tuple[str, str]:
    """Returns the last two lines of a finished run: its best bundle, and a command that uses it."""
    bundle = outcome.best or outcome.bundles[-1]
    which = f"best by {run.best}" if outcome.best else "the last stage's"
    return f"bundle ({which}): {bundle}", f"try it: {command(run, bundle)}"


def command(run: Run, bundle: Path) -> str:
    """Returns the command that evaluates a bundle like the run, or on DATA if the run has no evaluation."""
    return shlex.join(["jclip", "eval", *_arguments(run.evaluations[0] if run.evaluations else None, str(bundle))])


def _arguments(asked: Evaluation | None, bundle: str) -> list[str]:
    if asked is None:
        return ["retrieval", bundle, "DATA"]
    options: dict[str, str] = {}
    if isinstance(asked, Retrieval):
        name = "retrieval"
        options = {"protocol": asked.protocol, "split": asked.split, "languages": ",".join(asked.languages)}
    elif isinstance(asked, Classification):
        name = "classify"
        options = {"dataset": asked.dataset, "prompts": ",".join(asked.prompts), "classes": asked.classes}
        options["split"] = asked.split
    else:
        assert isinstance(asked, Probe)
        name, options = "probe", {"dataset": asked.dataset}
    given = [word for option, value in options.items() if value for word in (f"--{option}", value)]
    return [name, bundle, asked.data, *given]
