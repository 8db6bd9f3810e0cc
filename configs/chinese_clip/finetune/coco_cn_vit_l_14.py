"""Chinese-CLIP ViT-L/14 fine-tuned on COCO-CN (Yang et al. 2022, table 9), from its published weights.

    jclip convert hf://OFA-Sys/chinese-clip-vit-large-patch14 bundles/chinese-clip-vit-l-14
    jclip data import coco-cn downloads data/coco-cn
    jclip train configs/chinese_clip/finetune/coco_cn_vit_l_14.py

Expected: text-to-image R@1/5/10 78.9/96.3/99.0 on the test split.
"""

from jclip.configs.chinese_clip.recipe import finetuning
from jclip.train.configuration import Run


def config() -> Run:
    return finetuning("vit_l_14", "coco_cn")
