"""Chinese-CLIP ViT-H/14 fine-tuned on Flickr30K-CN (Yang et al. 2022, table 9), from its published weights.

    jclip convert hf://OFA-Sys/chinese-clip-vit-huge-patch14 bundles/chinese-clip-vit-h-14
    jclip data import flickr30k-cn downloads data/flickr30k-cn
    jclip train configs/chinese_clip/finetune/flickr30k_cn_vit_h_14.py

Expected: text-to-image R@1/5/10 83.8/96.9/98.6 on the test split.
"""

from jclip.configs.chinese_clip.recipe import finetuning
from jclip.train.configuration import Run


def config() -> Run:
    return finetuning("vit_h_14", "flickr30k_cn")
