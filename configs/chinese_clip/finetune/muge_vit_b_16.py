"""Chinese-CLIP ViT-B/16 fine-tuned on MUGE (Yang et al. 2022, table 9), from its published weights.

    jclip convert hf://OFA-Sys/chinese-clip-vit-base-patch16 bundles/chinese-clip-vit-b-16
    jclip data import muge downloads data/muge
    jclip train configs/chinese_clip/finetune/muge_vit_b_16.py

Expected: text-to-image R@1/5/10 58.4/83.6/90.0 on the validation split.
"""

from jclip.configs.chinese_clip.recipe import finetuning
from jclip.train.configuration import Run


def config() -> Run:
    return finetuning("vit_b_16", "muge")
