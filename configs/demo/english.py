"""The demo's English CLIP, from scratch: the stand-in for OpenAI's.

jclip train configs/demo/english.py --workdir runs/demo/english      after `jclip demo` has prepared the data
"""

from jclip.configs.demo import common
from jclip.train import Budget, Contrastive, Run, Stage


def build(place: common.Place) -> Run:
    """The run, at some place."""
    stage = Stage(
        name="contrastive",
        objective=Contrastive(augmentation=common.AUGMENTATION),
        data=(common.pairs(place, "en"),),
        batch_size=256,
        budget=Budget(steps=600),
        optimizer=common.MUON,
        context_length=common.ENGLISH_CONTEXT,
    )
    return Run(
        name="english",
        model=common.ENGLISH_CLIP,
        tokenizer=f"{place.data}/{common.ENGLISH_TOKENIZER}",
        preprocessing=common.PREPROCESSING,
        stages=(stage,),
        checkpoint_every=100,
    )


def config() -> Run:
    """The run at the demo's own place."""
    return build(common.Place())
