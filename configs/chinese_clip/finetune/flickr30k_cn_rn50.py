"""Chinese-CLIP RN50 fine-tuned on Flickr30K-CN (Yang et al. 2022, table 9), from its published weights.

    jclip convert clip_cn_rn50.pt bundles/chinese-clip-rn50 --family cn-clip
    jclip data import flickr30k-cn downloads data/flickr30k-cn
    jclip train configs/chinese_clip/finetune/flickr30k_cn_rn50.py

Expected: text-to-image R@1/5/10 66.7/89.4/94.1 on the test split.
"""

from jclip.configs.chinese_clip.recipe import finetuning
from jclip.train.configuration import Run


def config() -> Run:
    return finetuning("rn50", "flickr30k_cn")
