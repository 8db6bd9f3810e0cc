"""Control for Chinese-CLIP's second stage: the same steps after the same first stage, with the image tower frozen.

It separates the effect of training the image tower from that of more steps.

jclip train demo/chinese_clip_control --workdir runs/demo/chinese_clip_control      after demo/chinese_clip
"""

from dataclasses import replace

from jclip.configs.demo import chinese_clip, common
from jclip.train.configuration import Run


def build(place: common.Place) -> Run:
    """Returns the run in the folders of `place`."""
    run = chinese_clip.build(place)
    frozen, everything = run.stages
    control = replace(everything, name="still-frozen", trains=frozen.trains)
    start = ((r".*", f"{place.home}/chinese_clip/1-{frozen.name}"),)
    return replace(run, name="chinese-clip-control", stages=(control,), starts_from=start)


def config() -> Run:
    """Returns the run in the demo's default folders."""
    return build(common.Place())
