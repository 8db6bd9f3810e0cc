"""Chinese-CLIP of the demo: a new Chinese text tower with the English CLIP's frozen image tower; then both towers.

jclip train demo/chinese_clip --workdir runs/demo/chinese_clip      after demo/english
"""

from dataclasses import replace

from jclip.configs.demo import common
from jclip.train import Budget, Contrastive, Run, Stage


def build(place: common.Place) -> Run:
    """Returns the run in the folders of `place`."""
    frozen = Stage(
        name="image-frozen",
        objective=Contrastive(augmentation=common.AUGMENTATION),
        data=(common.pairs(place, "zh"),),
        batch_size=256,
        budget=Budget(steps=150),
        optimizer=replace(common.MUON, warmup_steps=30),
        trains=((r"image/.*", False), (r"text/.*|logit_scale", True)),
        context_length=common.CHINESE_CONTEXT,
    )
    everything = replace(
        frozen,
        name="everything",
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
        checkpoint_every=150,
    )


def config() -> Run:
    """Returns the run in the demo's default folders."""
    return build(common.Place())
