"""The control for Chinese-CLIP's second stage: from the same first stage, the same steps with the image tower frozen.

Without it, "stage 2 helped" could mean no more than "it was trained longer".

    jclip train configs/demo/chinese_clip_control.py --workdir runs/demo/chinese_clip_control      after chinese_clip.py
"""

from dataclasses import replace

from jclip.configs.demo import chinese_clip, common
from jclip.train.configuration import Run


def build(place: common.Place) -> Run:
    """The run, at some place."""
    run = chinese_clip.build(place)
    frozen, everything = run.stages
    control = replace(everything, name="still-frozen", trains=frozen.trains)
    start = ((r".*", f"{place.home}/chinese_clip/1-{frozen.name}"),)
    return replace(run, name="chinese-clip-control", stages=(control,), starts_from=start)


def config() -> Run:
    """The run at the demo's own place."""
    return build(common.Place())
