"""Chinese-CLIP ViT-L/14 at 336 pixels fine-tuned on Flickr30K-CN (Yang et al. 2022, table 9), from published weights.

    jclip convert hf://OFA-Sys/chinese-clip-vit-large-patch14-336px bundles/chinese-clip-vit-l-14-336
    jclip data import flickr30k-cn downloads data/flickr30k-cn
    jclip train configs/chinese_clip/finetune/flickr30k_cn_vit_l_14_336.py

Expected: text-to-image R@1/5/10 84.4/97.1/98.7 on the test split.
"""

from jclip.configs.chinese_clip.recipe import finetuning
from jclip.train.configuration import Run


def config() -> Run:
    return finetuning("vit_l_14_336", "flickr30k_cn")
