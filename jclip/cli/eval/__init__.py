"""`jclip eval TASK`: each task is a module, imported on use."""

import sys
from collections.abc import Sequence
from importlib import import_module

from jclip.errors import JclipError
from jclip.names import suggestion
from jclip.plain import complain, say

TASKS = {
    "retrieval": "R@1, R@5, R@10 between pictures and captions, by the papers' protocols",
    "classify": "zero-shot classification with prompts in any of 18 languages",
    "probe": "a linear classifier on frozen features, trained on all pictures or a few of each class",
    "predictions": "recalls of predictions in cn_clip's files",
    "benchmark": "CLIP_benchmark's data sets and metrics, if it is installed",
    "compare": "two results side by side",
}


def main(arguments: Sequence[str]) -> int:
    """Runs one task and returns the exit code."""
    arguments = list(arguments)
    if arguments[:1] in (["-h"], ["--help"]):
        say(_usage())
        sys.exit(0)
    if not arguments or arguments[0].startswith("-"):
        complain(f"jclip eval: missing: what to evaluate, one of {', '.join(TASKS)} (see jclip eval --help)")
        sys.exit(2)
    task, rest = arguments[0], arguments[1:]
    if task not in TASKS:
        raise JclipError(f"there is no evaluation {task!r}: {suggestion(task, TASKS)}")
    code: int = import_module(f"jclip.cli.eval.{task}").main(rest)
    return code


def _usage() -> str:
    rows = "\n".join(f"  {name:<11} {what}" for name, what in TASKS.items())
    return (
        "usage: jclip eval TASK ...\n\nEvaluates a bundle. Prints tables or JSON (--json); --output writes a folder\n"
        f"with results.json, report.html and report.md.\n\n{rows}\n\n"
        "  jclip eval retrieval BUNDLE DATA --protocol muge\n"
        "  jclip eval classify BUNDLE DATA --dataset cifar-100 --prompts zh\n"
        "  jclip eval probe BUNDLE DATA --shots 1,2,4,8,16,all\n"
        "  jclip eval compare OUT_A OUT_B\n\n"
        "`jclip eval TASK --help` explains one."
    )
