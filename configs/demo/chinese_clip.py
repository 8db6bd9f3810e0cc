"""The demo's Chinese-CLIP: a new Chinese text tower beside the English CLIP's image tower, frozen, then everything.

jclip train configs/demo/chinese_clip.py --workdir runs/demo/chinese_clip      after the one of english.py
"""

from dataclasses import replace

from jclip.configs.demo import common
from jclip.train import Budget, Contrastive, Run, Stage


def build(place: common.Place) -> Run:
    """The run, at some place."""
    frozen = Stage(
        name="image-frozen",
        objective=Contrastive(augmentation=common.AUGMENTATION),
        data=(common.pairs(place, "zh"),),
        batch_size=256,
        budget=Budget(steps=150),
        optimizer=replace(common.MUON, warmup_steps=30),
        trains=((r"image/.*", False), (r"text/.*|logit_scale", True)),
        context_length=common.CONTEXT,
    )
    everything = replace(
        frozen,
        name="everything",
        budget=Budget(steps=150),
        optimizer=replace(frozen.optimizer, learning_rate=1e-3),
        trains=((r".*", True),),
    )
    return Run(
        name="chinese-clip",
        model=common.CHINESE_CLIP,
        tokenizer=f"{place.data}/{common.CHINESE_TOKENIZER}",
        preprocessing=common.PREPROCESSING,
        stages=(frozen, everything),
        starts_from=((r"image/.*|logit_scale", f"{place.home}/english/1-contrastive"), (r"text/.*", "")),
        checkpoint_every=100,
    )


def config() -> Run:
    """The run at the demo's own place."""
    return build(common.Place())
