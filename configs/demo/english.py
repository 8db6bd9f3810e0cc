"""The demo's English CLIP, from scratch: the stand-in for OpenAI's.

jclip train configs/demo/english.py      after `jclip demo` has prepared the data
"""

from configs.demo import common
from jclip.optimizer import Optimizer
from jclip.stages import Budget, Stage
from jclip.train.run import Run


def build(data: str, home: str) -> Run:
    """The run, with the data under `data` and its bundles under `home`."""
    stage = Stage(
        name="contrastive",
        objective="contrastive",
        data=(common.pairs(data, "en"),),
        batch_size=128,
        budget=Budget(steps=900),
        optimizer=Optimizer(learning_rate=1e-3, warmup_steps=50, weight_decay=0.1, beta2=0.98),
        augmentation=common.AUGMENTATION,
        context_length=common.ENGLISH_CONTEXT,
    )
    return Run(
        name="english",
        model=common.ENGLISH_CLIP,
        tokenizer=f"{data}/{common.ENGLISH_TOKENIZER}",
        preprocessing=common.PREPROCESSING,
        stages=(stage,),
        checkpoint_every=100,
    )


def config() -> Run:
    """The run at the demo's own place."""
    return build(common.HOME, common.HOME)
