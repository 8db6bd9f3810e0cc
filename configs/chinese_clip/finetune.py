"""Chinese-CLIP fine-tuned for retrieval, from its published weights: 5 sizes, 3 data sets (table 9).

    jclip train chinese_clip/finetune --size vit_b_16 --dataset muge
    jclip train chinese_clip/finetune --size vit_b_16 --dataset muge --variant 8-gpus

Download the data by hand (`jclip data import --formats` lists the files). Then import them, and convert the weights:

    jclip data import muge          downloads data/muge
    jclip data import flickr30k-cn  downloads data/flickr30k-cn
    jclip data import coco-cn       downloads data/coco-cn

    jclip convert clip_cn_rn50.pt                                    bundles/chinese-clip-rn50 --family cn-clip
    jclip convert hf://OFA-Sys/chinese-clip-vit-base-patch16         bundles/chinese-clip-vit-b-16
    jclip convert hf://OFA-Sys/chinese-clip-vit-large-patch14        bundles/chinese-clip-vit-l-14
    jclip convert hf://OFA-Sys/chinese-clip-vit-large-patch14-336px  bundles/chinese-clip-vit-l-14-336
    jclip convert hf://OFA-Sys/chinese-clip-vit-huge-patch14         bundles/chinese-clip-vit-h-14

`jclip plan` prints the published figures. recipe.py lists the differences between the paper and its authors' code.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from jclip.configs.chinese_clip.recipe import SETS, SIZES, Tuning, finetuning
from jclip.errors import JclipError
from jclip.train import Run

SizeName = Literal["rn50", "vit_b_16", "vit_l_14", "vit_l_14_336", "vit_h_14"]
Dataset = Literal["muge", "flickr30k_cn", "coco_cn"]
Variant = Literal["paper", "8-gpus", "1-gpu", "flip"]


@dataclass(frozen=True)
class Script:
    """A script of the authors' repository, which fine-tunes ViT-B/16 with other settings than table 9.

    Attributes:
      tuning: hyper-parameters.
      patch_dropout: share of each image's patches that is dropped in training.
    """

    tuning: Tuning
    patch_dropout: float = 0.0


SCRIPTS = {
    # 8 GPUs with 128 pairs each, 3 epochs; for COCO-CN 1,024 pairs each, 20 epochs. Except for MUGE's log, no figures
    # of these scripts are published: the repository's table repeats table 9.
    ("8-gpus", "muge"): Script(Tuning(1_024, 5e-5, 3, 100)),
    ("8-gpus", "flickr30k_cn"): Script(Tuning(1_024, 5e-5, 3, 100)),
    ("8-gpus", "coco_cn"): Script(Tuning(8_192, 3e-5, 20, 6)),
    # The notebook: one GPU, 48 pairs, one epoch.
    ("1-gpu", "muge"): Script(Tuning(48, 3e-6, 1, 100)),
    # Drops half of the patches (Li et al. 2022, FLIP). No figure is published for it.
    ("flip", "muge"): Script(Tuning(1_024, 5e-5, 3, 100), patch_dropout=0.5),
}


def config(size: SizeName = "vit_b_16", dataset: Dataset = "muge", variant: Variant = "paper") -> Run:
    """Returns the run that fine-tunes a published model on a data set.

    Args:
      size: the model's size.
      dataset: the pairs to train on. For MUGE, whose test labels are secret, the validation split is reported.
      variant: "paper" for table 9; or a script of the authors' repository, for ViT-B/16.

    Raises:
      JclipError: the authors have no script for this size and data set.
    """
    for name, value, known in (("size", size, SIZES), ("dataset", dataset, SETS), ("variant", variant, VARIANTS)):
        if value not in known:
            raise JclipError(f"{name} is {value!r}; expected one of {', '.join(known)}")
    if variant == "paper":
        return finetuning(size, dataset)
    if size != "vit_b_16" or (variant, dataset) not in SCRIPTS:
        sets = ", ".join(each for name, each in SCRIPTS if name == variant)
        raise JclipError(f"variant {variant} is for size vit_b_16 and dataset {sets}; not for {size} and {dataset}")
    script = SCRIPTS[variant, dataset]
    name = f"{dataset.replace('_', '-')}-vit-b-16-{variant}"
    return finetuning(size, dataset, script.tuning, name=name, patch_dropout=script.patch_dropout)


VARIANTS = get_args(Variant)
