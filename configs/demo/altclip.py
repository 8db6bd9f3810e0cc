"""The demo's AltCLIP: teacher learning on names in 14 languages, seeing no picture; then contrastive, image frozen.

jclip train configs/demo/altclip.py --workdir runs/demo/altclip      after the one of configs/demo/english.py
"""

from dataclasses import replace

from jclip.configs.demo import common
from jclip.demo.emoji.protocol import LANGUAGES
from jclip.stages import Budget, Stage
from jclip.train.run import Run, Teacher


def build(place: common.Place) -> Run:
    """The run, at some place."""
    english = f"{place.home}/english/1-contrastive"
    teacher_learning = Stage(
        name="teacher",
        objective="teacher",
        data=(common.parallel(place),),
        batch_size=256,
        budget=Budget(steps=500),
        optimizer=replace(common.MUON, warmup_steps=50),
        trains=((r"text/projection/.*", False), (r"text/.*", True), (r"image/.*|logit_scale", False)),
        context_length=common.CONTEXT,
        dropout=False,
    )
    contrastive = Stage(
        name="contrastive",
        objective="contrastive",
        data=(common.pairs(place, *LANGUAGES),),
        batch_size=256,
        budget=Budget(steps=100),
        optimizer=replace(common.MUON, learning_rate=5e-4, warmup_steps=20),
        trains=((r"image/.*", False), (r"text/.*|logit_scale", True)),
        augmentation=common.AUGMENTATION,
        context_length=common.CONTEXT,
        dropout=False,
    )
    return Run(
        name="altclip",
        model=common.ALTCLIP,
        tokenizer=f"{place.data}/{common.MULTILINGUAL_TOKENIZER}",
        preprocessing=common.PREPROCESSING,
        stages=(teacher_learning, contrastive),
        starts_from=((r"image/.*|text/projection/.*|logit_scale", english), (r"text/.*", "")),
        teacher=Teacher(english, common.ENGLISH_CLIP, common.ENGLISH_CONTEXT),
        checkpoint_every=200,
    )


def config() -> Run:
    """The run at the demo's own place."""
    return build(common.Place())
