"""Chinese-CLIP's hyper-parameters, and the runs that use them (Yang et al. 2022: section 2.2, tables 7, 8 and 9).

Choices where the paper is silent, or differs from the authors' code (OFA-Sys/Chinese-CLIP, cn_clip 1.6.0):

- Stage 2 repeats the warm-up of 5,000 steps: the paper says "other hyper-parameters unchanged".
- Weight decay is the paper's 1e-3. It excludes the parameters that the code excludes, which are not all norms
  (`CN_CLIP_DECAYS`). The code's default of 0.2 is neither the paper's nor that of its own scripts.
- The code clamps the logit scale to [0, ln 100] after each step, and so does jclip.
- Without --gather-with-grad, the code's gradients of the towers are 1/W of the true ones on W GPUs. AdamW undoes the
  factor, except for epsilon. These runs have the true gradients.
- The paper gives H/14's text tower 24 heads, which do not divide its width of 1024. The released weights have 16.
- The batch size of L/14 at 336 pixels in stage 2 is not stated; it is that of L/14 here.
- H/14's image tower began as LAION's, trained with exact GELU. The code has QuickGELU in every ViT, and so have the
  released weights and these runs.
- An epoch of fine-tuning is every image with each of its captions, as in the code, rounded up to whole batches. The
  code completes the last batch with examples from the beginning.
- A text has 52 tokens: 50 and two special ones.
- AUGMENTATION is the code's (--use-augment): RandomResizedCrop of 0.9 to 1 of the area and AutoAugment, as in table 8.
  The code also mirrors half of the images, text in them included, by a default of timm that the paper does not mention.
  AUGMENTATION is on in both stages, since stage 2 changes only what the paper lists, and in fine-tuning, as in every
  script of the code.
- The authors' images were squares of the model's size before training ("already resized" in the code), so the crop
  removed at most a tenth. Here, as in the code, the crop comes from the stored image, with an aspect ratio of at most
  4:3. A quarter of a 16:9 image is never seen. Store square images to do as the authors did.
- In the code, pairs that share an image or a caption are each other's negatives (`duplicates="ignore"`). Fine-tuning
  data have up to five captions an image, and jclip masks those pairs, in pre-training too.
"""

from dataclasses import dataclass, replace

from jclip.data.sources.folders import PairFolder
from jclip.images.on_host import HostAugmentation
from jclip.images.preprocess import CLIP_MEAN, CLIP_STD, Preprocessing
from jclip.losses.contrastive import ContrastiveLoss
from jclip.models import zoo
from jclip.optimizer import CN_CLIP_DECAYS
from jclip.train import Budget, Contrastive, Optimizer, Retrieval, Run, Stage

DATA = "data/chinese-clip-pairs"
PAIRS = 200_000_000
"""Number of the paper's pairs, which are not public as a data set. DATA is a folder of your own."""
AUGMENTATION = HostAugmentation(crop_scale=(0.9, 1.0), flip=0.5, auto_augment="original")
CONTEXT = 52
IMAGE_FROZEN = ((r"image/.*", False), (r"text/.*|logit_.*", True))


@dataclass(frozen=True)
class ModelSize:
    """A row of tables 7 and 8.

    Attributes:
      model: the model's name in the zoo.
      start: the bundle with the initial parameters of pre-training.
      frozen_epochs: epochs of stage 1, at a batch size of 32,768.
      batch_size, epochs: batch size and epochs of stage 2.
      pixels: side of an image.
      beta2, eps: settings of AdamW; 0.999 and 1e-8 for the ResNet.
    """

    model: str
    start: str
    frozen_epochs: int
    batch_size: int
    epochs: int
    pixels: int = 224
    beta2: float = 0.98
    eps: float = 1e-6


SIZES = {
    "rn50": ModelSize("chinese-clip-rn50", "bundles/clip-rn50-with-rbt3", 20, 16_384, 44, beta2=0.999, eps=1e-8),
    "vit_b_16": ModelSize("chinese-clip-vit-b-16", "bundles/clip-b16-with-roberta-wwm", 44, 16_384, 15),
    "vit_l_14": ModelSize("chinese-clip-vit-l-14", "bundles/clip-l14-with-roberta-wwm", 64, 4_608, 7),
    # Continues from L/14's second stage, with its position embeddings interpolated to 336 pixels.
    "vit_l_14_336": ModelSize("chinese-clip-vit-l-14-336", "bundles/chinese-clip-l14-at-336", 0, 4_608, 2, pixels=336),
    "vit_h_14": ModelSize("chinese-clip-vit-h-14", "bundles/clip-h14-with-roberta-wwm-large", 26, 32_768, 7),
}


@dataclass(frozen=True)
class Set:
    """A data set for fine-tuning.

    Attributes:
      folder: data folder, with the training and the validation split.
      pairs: number of training pairs.
      watched: evaluation during training.
    """

    folder: str
    pairs: int
    watched: Retrieval


# MUGE's test labels are secret, so its validation split chooses the best epoch and is reported. The other two choose on
# the validation split and report the test split, once: see docs/ledger.md.
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
"""Table 9. The authors used 32 A100s, a checkpoint every epoch, and gradient checkpointing in L/14 at 336 and H/14."""


def pretraining(size: str) -> Run:
    """Returns the run with both stages of a model size; at 336 pixels the second alone."""
    row = SIZES[size]
    # Table 8, the same for all sizes.
    optimizer = _optimizer(row, learning_rate=1e-4, warmup_steps=5000)
    frozen = Stage(
        name="image-frozen",
        objective=Contrastive(ContrastiveLoss(impl="ring"), host_augmentation=AUGMENTATION),
        data=(PairFolder(DATA),),
        batch_size=32_768,
        budget=Budget(examples=row.frozen_epochs * PAIRS),
        optimizer=optimizer,
        trains=IMAGE_FROZEN,
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
    return _run(f"chinese-clip-{size.replace('_', '-')}", row, row.start, stages)


def finetuning(
    size: str, dataset: str, tuning: Tuning | None = None, *, name: str = "", patch_dropout: float = 0.0
) -> Run:
    """Returns the run that fine-tunes a model's published weights, bundles/chinese-clip-…, on a data set.

    Args:
      size: a key of `SIZES`.
      dataset: a key of `SETS`.
      tuning: hyper-parameters; table 9's by default.
      name: the run's name; by default that of the model and the data set.
      patch_dropout: share of the patches that are left out, as in FLIP.
    """
    row, pairs, chosen = SIZES[size], SETS[dataset], tuning or TUNINGS[size][dataset]
    epoch = -(-pairs.pairs // chosen.batch_size)
    stage = Stage(
        name="finetune",
        objective=Contrastive(
            ContrastiveLoss(impl="ring"),
            captions="all",
            host_augmentation=AUGMENTATION,
            patch_dropout=patch_dropout,
        ),
        data=(PairFolder(pairs.folder),),
        batch_size=chosen.batch_size,
        budget=Budget(steps=chosen.epochs * epoch),
        optimizer=_optimizer(row, chosen.learning_rate, chosen.warmup_steps),
        context_length=CONTEXT,
    )
    run = _run(name or f"{row.model}-{dataset.replace('_', '-')}", row, f"bundles/{row.model}", (stage,))
    return replace(
        run,
        checkpoint_every=epoch,
        evaluate_every=epoch,
        evaluations=(pairs.watched,),
        best=f"{pairs.watched.name}/mean_recall",
    )


def _optimizer(row: ModelSize, learning_rate: float, warmup_steps: int) -> Optimizer:
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


def _run(name: str, row: ModelSize, start: str, stages: tuple[Stage, ...]) -> Run:
    return Run(
        name=name,
        model=zoo.get_config(row.model),
        tokenizer=f"{start}/tokenizer",
        preprocessing=Preprocessing(size=row.pixels, mean=CLIP_MEAN, std=CLIP_STD, resize="squash"),
        stages=stages,
        starts_from=((r".*", start),),
        dtype="bfloat16",
    )
