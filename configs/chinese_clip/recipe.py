"""Chinese-CLIP's tables, and the runs they make (Yang et al. 2022: section 2.2, tables 7, 8 and 9).

Where the paper is silent, or differs from the authors' code (OFA-Sys/Chinese-CLIP, cn_clip 1.6.0), these runs choose:

- Stage 2 repeats the warm-up of 5,000 steps: "other hyper-parameters unchanged".
- Weight decay spares what the code spares, which is not quite every norm (`CN_CLIP_DECAYS`), at the paper's 1e-3; the
  code's default of 0.2 is that of neither the paper nor its own scripts.
- The code clamps the logit scale to [0, ln 100] after each step, and so does jclip.
- Without --gather-with-grad the code's gradients of the towers are 1/W of the true ones on W GPUs, which AdamW undoes
  but for epsilon: these runs have the true ones.
- The paper gives 24 heads to H/14's text tower, which do not divide its width of 1024; its weights have 16.
- Stage 2 of L/14 at 336 pixels: its batch is not stated, so it is that of L/14.
- H/14's image tower began as LAION's, trained with exact GELU; the code has QuickGELU in every ViT, and so have the
  released weights, and this.
- An epoch of fine-tuning is every picture with each of its captions, as in the code, and a whole number of batches: the
  code fills the last one up from the beginning.
- A text is 50 tokens and the two around them, 52.
- AUGMENTATION is the code's (--use-augment): RandomResizedCrop of 0.9 to 1 of the area and AutoAugment, as in table 8,
  and half of the pictures mirrored besides, writing too, by a default of timm's of which the paper does not speak. It
  acts in both stages, for stage 2 changes nothing of it, and in fine-tuning, where every script of the code has it on.
- The authors' pictures were squares of the model's size before training began ("already resized" in the code), and the
  crop lost a tenth of each at most. Here, as in the code, it is cut from a picture as it is stored, with sides of 4:3
  at most, so that of a picture of 16:9 a quarter is never seen. A data folder of squares is the paper's way.
- Pairs that share a picture or a caption are each other's negatives in the code (`duplicates="ignore"`); fine-tuning
  sets have up to five captions a picture, and jclip masks those pairs. The pre-training runs keep to that too.
"""

from dataclasses import dataclass, replace

from jclip.data.sources.folders import PairFolder
from jclip.images.on_host import HostAugmentation
from jclip.images.preprocess import CLIP_MEAN, CLIP_STD, Preprocessing
from jclip.losses.contrastive import ContrastiveLoss
from jclip.models import zoo
from jclip.models.remat import Remat
from jclip.optimizer import CN_CLIP_DECAYS, Optimizer
from jclip.stages import Budget, Stage
from jclip.train.evaluations import Retrieval
from jclip.train.run import Run

DATA = "data/chinese-clip-pairs"
PAIRS = 200_000_000
"""Of the paper, which are not public as a set: DATA is a folder of your own pairs."""
AUGMENTATION = HostAugmentation(crop_scale=(0.9, 1.0), flip=0.5, auto_augment="original")
CONTEXT = 52
IMAGE_FROZEN = ((r"image/.*", False), (r"text/.*|logit_.*", True))


@dataclass(frozen=True)
class Size:
    """A row of tables 7 and 8.

    Attributes:
      model: of the zoo.
      start: the bundle where pre-training begins.
      pixels: of a picture's side.
      beta2, eps: of AdamW, 0.999 and 1e-8 for the ResNet.
      frozen_epochs: of stage 1, at a batch of 32,768.
      batch_size, epochs: of stage 2.
      remat: the paper recomputes ("gradient checkpointing") in the largest.
    """

    model: str
    start: str
    frozen_epochs: int
    batch_size: int
    epochs: int
    pixels: int = 224
    beta2: float = 0.98
    eps: float = 1e-6
    remat: Remat = "none"


SIZES = {
    "rn50": Size("chinese-clip-rn50", "bundles/clip-rn50-with-rbt3", 20, 16_384, 44, beta2=0.999, eps=1e-8),
    "vit_b_16": Size("chinese-clip-vit-b-16", "bundles/clip-b16-with-roberta-wwm", 44, 16_384, 15),
    "vit_l_14": Size("chinese-clip-vit-l-14", "bundles/clip-l14-with-roberta-wwm", 64, 4_608, 7),
    # It goes on from L/14's second stage, with its position embeddings brought to 336 pixels.
    "vit_l_14_336": Size("chinese-clip-vit-l-14-336", "bundles/chinese-clip-l14-at-336", 0, 4_608, 2, pixels=336),
    "vit_h_14": Size("chinese-clip-vit-h-14", "bundles/clip-h14-with-roberta-wwm-large", 26, 32_768, 7, remat="layers"),
}


@dataclass(frozen=True)
class Set:
    """A data set that is fine-tuned on.

    Attributes:
      folder: its pairs, train and the split that is watched.
      pairs: for training.
      watched: the test during training.
    """

    folder: str
    pairs: int
    watched: Retrieval


# MUGE is reported on the split on which its best epoch is chosen, for the answers of its test split are secret. The
# other two choose on their validation split and report the test split, once: see docs/ledger.md.
SETS = {
    "muge": Set("data/muge", 250_314, Retrieval("muge", "data/muge", protocol="muge")),
    "flickr30k_cn": Set("data/flickr30k-cn", 148_915, Retrieval("valid", "data/flickr30k-cn", split="valid")),
    "coco_cn": Set("data/coco-cn", 20_065, Retrieval("valid", "data/coco-cn", split="valid")),
}


@dataclass(frozen=True)
class Tuning:
    """A cell of table 9."""

    batch_size: int
    learning_rate: float
    epochs: int
    warmup_steps: int


TUNINGS = {
    "rn50": {
        "muge": Tuning(24_576, 5e-5, 60, 100),
        "flickr30k_cn": Tuning(24_576, 6e-5, 30, 20),
        "coco_cn": Tuning(24_576, 5e-5, 40, 6),
    },
    "vit_b_16": {
        "muge": Tuning(12_800, 2e-5, 20, 40),
        "flickr30k_cn": Tuning(7_680, 5e-5, 16, 20),
        "coco_cn": Tuning(12_800, 5e-5, 30, 6),
    },
    "vit_l_14": {
        "muge": Tuning(4_096, 3e-5, 20, 100),
        "flickr30k_cn": Tuning(4_096, 2e-5, 16, 60),
        "coco_cn": Tuning(4_096, 6e-5, 18, 9),
    },
    "vit_l_14_336": {
        "muge": Tuning(8_192, 2e-5, 20, 100),
        "flickr30k_cn": Tuning(8_192, 2e-5, 18, 20),
        "coco_cn": Tuning(8_192, 4e-5, 18, 2),
    },
    "vit_h_14": {
        "muge": Tuning(20_480, 2e-5, 20, 20),
        "flickr30k_cn": Tuning(4_096, 6e-6, 18, 6),
        "coco_cn": Tuning(5_120, 2e-5, 18, 10),
    },
}
"""Table 9, on 32 A100s; checkpoints every epoch, gradient checkpointing in L/14 at 336 and H/14."""


def pretraining(size: str) -> Run:
    """Both stages of a model size; the second alone at 336 pixels."""
    row = SIZES[size]
    # Table 8, the same for all sizes.
    optimizer = _optimizer(row, learning_rate=1e-4, warmup_steps=5000)
    frozen = Stage(
        name="image-frozen",
        objective="contrastive",
        data=(PairFolder(DATA),),
        batch_size=32_768,
        budget=Budget(examples=row.frozen_epochs * PAIRS),
        optimizer=optimizer,
        trains=IMAGE_FROZEN,
        loss=ContrastiveLoss(impl="ring"),
        host_augmentation=AUGMENTATION,
        context_length=CONTEXT,
    )
    everything = replace(
        frozen,
        name="everything",
        batch_size=row.batch_size,
        budget=Budget(examples=row.epochs * PAIRS),
        optimizer=replace(optimizer, learning_rate=2e-5),
        trains=((r".*", True),),
    )
    stages = (frozen, everything) if row.frozen_epochs else (everything,)
    return _run(f"chinese-clip-{size.replace('_', '-')}", row, row.start, stages, row.remat)


def finetuning(size: str, dataset: str, tuning: Tuning | None = None, *, name: str = "") -> Run:
    """A model size on a data set, from its published weights: bundles/chinese-clip-…

    Args:
      size: a key of `SIZES`.
      dataset: a key of `SETS`.
      tuning: in place of table 9's.
      name: of the run, in place of the usual one.
    """
    row, pairs, chosen = SIZES[size], SETS[dataset], tuning or TUNINGS[size][dataset]
    epoch = -(-pairs.pairs // chosen.batch_size)
    stage = Stage(
        name="finetune",
        objective="contrastive",
        data=(PairFolder(pairs.folder),),
        batch_size=chosen.batch_size,
        budget=Budget(steps=chosen.epochs * epoch),
        optimizer=_optimizer(row, chosen.learning_rate, chosen.warmup_steps),
        captions="all",
        loss=ContrastiveLoss(impl="ring"),
        host_augmentation=AUGMENTATION,
        context_length=CONTEXT,
    )
    remat: Remat = "layers" if size in ("vit_l_14_336", "vit_h_14") else row.remat
    run = _run(name or f"{row.model}-{dataset.replace('_', '-')}", row, f"bundles/{row.model}", (stage,), remat)
    return replace(
        run,
        checkpoint_every=epoch,
        evaluate_every=epoch,
        evaluations=(pairs.watched,),
        best=f"{pairs.watched.name}/mean_recall",
    )


def _optimizer(row: Size, learning_rate: float, warmup_steps: int) -> Optimizer:
    return Optimizer(
        learning_rate=learning_rate,
        warmup_steps=warmup_steps,
        schedule="cosine",
        beta1=0.9,
        beta2=row.beta2,
        eps=row.eps,
        weight_decay=1e-3,
        decays=CN_CLIP_DECAYS,
    )


def _run(name: str, row: Size, start: str, stages: tuple[Stage, ...], remat: Remat) -> Run:
    return Run(
        name=name,
        model=zoo.get(row.model),
        tokenizer=f"{start}/tokenizer",
        preprocessing=Preprocessing(size=row.pixels, mean=CLIP_MEAN, std=CLIP_STD, resize="squash"),
        stages=stages,
        starts_from=((r".*", start),),
        dtype="bfloat16",
        remat=remat,
    )
