"""English CLIP of the demo, from scratch: a stand-in for OpenAI's.

jclip train configs/demo/english.py --workdir runs/demo/english      after `jclip demo` has prepared the data
"""

from dataclasses import replace

from jclip.configs.demo import common
from jclip.stages import Budget, Stage
from jclip.train.run import Run


def build(place: common.Place) -> Run:
    """Returns the run in the folders of `place`."""
    stage = Stage(
        name="contrastive",
        objective="contrastive",
        data=(common.pairs(place, "en"),),
        batch_size=256,
        budget=Budget(steps=450),
        optimizer=replace(common.MUON, warmup_steps=50),
        augmentation=common.AUGMENTATION,
        context_length=common.ENGLISH_CONTEXT,
    )
    return Run(
        name="english",
        model=common.ENGLISH_CLIP,
        tokenizer=f"{place.data}/{common.ENGLISH_TOKENIZER}",
        preprocessing=common.PREPROCESSING,
        stages=(stage,),
        checkpoint_every=225,
    )


def config() -> Run:
    """Returns the run in the demo's default folders."""
    return build(common.Place())
