"""Chinese-CLIP ViT-B/16 fine-tuned on Flickr30K-CN (Yang et al. 2022, table 9), from its published weights.

    jclip convert hf://OFA-Sys/chinese-clip-vit-base-patch16 bundles/chinese-clip-vit-b-16
    jclip data import flickr30k-cn downloads data/flickr30k-cn
    jclip train configs/chinese_clip/finetune/flickr30k_cn_vit_b_16.py

Expected: text-to-image R@1/5/10 79.1/94.8/97.4 on the test split.
"""

from jclip.configs.chinese_clip.recipe import finetuning
from jclip.train.configuration import Run


def config() -> Run:
    return finetuning("vit_b_16", "flickr30k_cn")
