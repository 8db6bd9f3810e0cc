"""`jclip eval TASK`: each task is a module, imported on use."""

from collections.abc import Sequence

from jclip.cli.dispatch import dispatch
from jclip.plain import complain

TASKS = {
    "retrieval": "R@1, R@5, R@10 between images and captions, by the papers' protocols",
    "classify": "zero-shot classification with prompts in any of 18 languages",
    "probe": "a linear classifier on frozen features, trained on all images or a few of each class",
    "predictions": "R@1, R@5, R@10 of predictions in cn_clip's files",
    "benchmark": "CLIP_benchmark's data sets and metrics, if it is installed",
    "compare": "two results side by side",
}


_USAGE = """usage: jclip eval TASK ...

Evaluates a bundle. Prints tables or JSON (--json); --output writes a folder
with results.json, report.html and report.md.

{}

  jclip eval retrieval BUNDLE DATA --protocol muge
  jclip eval classify BUNDLE DATA --dataset cifar-100 --prompts zh
  jclip eval probe BUNDLE DATA --shots 1,2,4,8,16,all
  jclip eval compare OUT_A OUT_B

`jclip eval TASK --help` explains a task."""


def main(arguments: Sequence[str]) -> int:
    """Runs one task and returns the exit code."""
    if not arguments:
        complain(f"jclip eval: missing: TASK, one of {', '.join(TASKS)} (see jclip eval --help)")
        return 2
    return dispatch("jclip eval", "jclip.cli.eval.", TASKS, arguments, _USAGE)
