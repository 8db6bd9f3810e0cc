"""Last lines of `jclip train`: the best bundle, and a command that uses it."""

import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

from jclip.train.configuration import Run
from jclip.train.outcome import Outcome


def what_now(run: Run, outcome: Outcome) -> tuple[str, str]:
    """Returns the last two lines of a finished run: its best bundle, and a command that uses it."""
    bundle = outcome.best or outcome.bundles[-1]
    which = f"best by {run.best}" if outcome.best else "the last stage's"
    return f"bundle ({which}): {bundle}", f"try it: {command(run, bundle)}"


def command(run: Run, bundle: Path) -> str:
    """Returns a command that evaluates the bundle as the run did, or on DATA if the run has no evaluation."""
    evaluation: Any = run.evaluations[0] if run.evaluations else None
    if evaluation is None or not evaluation.command:
        return shlex.join(["jclip", "eval", "retrieval", str(bundle), "DATA"])
    words = ["jclip", "eval", evaluation.command, str(bundle), evaluation.data]
    for field in fields(evaluation):
        value = getattr(evaluation, field.name)
        if field.name not in ("name", "data") and value != field.default:
            said = ",".join(str(each or "all") for each in value) if isinstance(value, tuple) else str(value)
            words += [f"--{field.name}", said]
    return shlex.join(words)
