"""English CLIP of the demo, from scratch: a stand-in for OpenAI's.

jclip train demo/english --workdir runs/demo/english      once `jclip demo` has prepared the data
"""

from dataclasses import replace

from jclip.configs.demo import common
from jclip.train import Budget, Contrastive, Run, Stage


def build(place: common.Place) -> Run:
    """Returns the run in the folders of `place`."""
    stage = Stage(
        name="contrastive",
        objective=Contrastive(augmentation=common.AUGMENTATION),
        data=(common.pairs(place, "en"),),
        batch_size=256,
        budget=Budget(steps=700),
        optimizer=replace(common.MUON, warmup_steps=70),
        context_length=common.ENGLISH_CONTEXT,
    )
    return Run(
        name="english",
        model=common.ENGLISH_CLIP,
        tokenizer=f"{place.data}/{common.ENGLISH_TOKENIZER}",
        preprocessing=common.PREPROCESSING,
        stages=(stage,),
        checkpoint_every=350,
    )


def config() -> Run:
    """Returns the run in the demo's default folders."""
    return build(common.Place())
