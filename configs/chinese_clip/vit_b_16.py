"""Chinese-CLIP ViT-B/16, both pre-training stages (Yang et al. 2022, section 2.2, tables 7 and 8).

    jclip plan  configs/chinese_clip/vit_b_16.py
    jclip train configs/chinese_clip/vit_b_16.py --reduced      two small steps a stage, here and now
    jclip train configs/chinese_clip/vit_b_16.py --workdir runs/chinese-clip-b16

Expected after stage 2 on the authors' 200M pairs: MUGE zero-shot R@1/5/10 52.1/76.7/84.4.

The paper's 200M pairs are not public as a set; `DATA` is a folder of your own pairs. `START` has CLIP's image tower and
logit scale, Chinese RoBERTa-wwm's text tower and a new text projection:

    jclip convert --image hf://openai/clip-vit-base-patch16 --text hf://hfl/chinese-roberta-wwm-ext START

Stage 2 repeats the warm-up: the paper says that all other settings stay. Weight decay spares what the authors' code
spares, which is not quite every norm (`CN_CLIP_DECAYS`).
"""

from dataclasses import replace

from jclip.data.images import CLIP_MEAN, CLIP_STD, Preprocessing
from jclip.data.sources import PairFolder
from jclip.losses.contrastive import ContrastiveLoss
from jclip.models import zoo
from jclip.optimizer import CN_CLIP_DECAYS, Optimizer
from jclip.stages import Budget, Stage
from jclip.train.run import Run

DATA = "data/chinese-clip-pairs"
START = "bundles/clip-b16-with-roberta-wwm"
PAIRS = 200_000_000


def config() -> Run:
    """The run."""
    optimizer = Optimizer(
        learning_rate=1e-4,
        warmup_steps=5000,
        schedule="cosine",
        beta1=0.9,
        beta2=0.98,
        eps=1e-6,
        weight_decay=1e-3,
        decays=CN_CLIP_DECAYS,
    )
    frozen = Stage(
        name="image-frozen",
        objective="contrastive",
        data=(PairFolder(DATA),),
        batch_size=32_768,
        budget=Budget(examples=44 * PAIRS),
        optimizer=optimizer,
        trains=((r"image/.*", False), (r"text/.*|logit_.*", True)),
        loss=ContrastiveLoss(impl="ring"),
        context_length=52,
    )
    everything = Stage(
        name="everything",
        objective="contrastive",
        data=(PairFolder(DATA),),
        batch_size=16_384,
        budget=Budget(examples=15 * PAIRS),
        optimizer=replace(optimizer, learning_rate=2e-5),
        trains=((r".*", True),),
        loss=ContrastiveLoss(impl="ring"),
        context_length=52,
    )
    return Run(
        name="chinese-clip-vit-b-16",
        model=zoo.get("chinese-clip-vit-b-16"),
        tokenizer=f"{START}/tokenizer",
        preprocessing=Preprocessing(size=224, mean=CLIP_MEAN, std=CLIP_STD, resize="squash"),
        stages=(frozen, everything),
        starts_from=((r".*", START),),
        dtype="bfloat16",
    )
