"""AltCLIP of the demo: teacher learning on names in 14 languages, without images; then contrastive, image tower frozen.

jclip train demo/altclip --workdir runs/demo/altclip      after demo/english
"""

from dataclasses import replace

from jclip.configs.demo import common
from jclip.demo.emoji.protocol import LANGUAGES
from jclip.train import Budget, Contrastive, Run, Stage, TeacherLearning


def build(place: common.Place) -> Run:
    """Returns the run in the folders of `place`."""
    english = f"{place.home}/english/1-contrastive"
    teacher_learning = Stage(
        name="teacher",
        objective=TeacherLearning(english, common.ENGLISH_CLIP, common.ENGLISH_CONTEXT),
        data=(common.parallel(place),),
        batch_size=256,
        budget=Budget(steps=440),
        optimizer=replace(common.MUON, warmup_steps=50),
        trains=((r"text/projection/.*", False), (r"text/.*", True), (r"image/.*|logit_scale", False)),
        context_length=common.CONTEXT,
        buckets=(8,),  # 93 % of the names are that short
        bucket_window=20,
        cache=f"{place.home}/altclip/teacher",
        dropout=False,
    )
    contrastive = Stage(
        name="contrastive",
        objective=Contrastive(augmentation=common.AUGMENTATION),
        data=(common.pairs(place, *LANGUAGES),),
        batch_size=256,
        budget=Budget(steps=50),
        optimizer=replace(common.MUON, learning_rate=5e-4, warmup_steps=10),
        trains=((r"image/.*", False), (r"text/.*|logit_scale", True)),
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
        checkpoint_every=440,
    )


def config() -> Run:
    """Returns the run in the demo's default folders."""
    return build(common.Place())
