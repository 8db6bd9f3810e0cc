"""Chinese-CLIP RN50 fine-tuned on MUGE (Yang et al. 2022, table 9), from its published weights.

    jclip convert clip_cn_rn50.pt bundles/chinese-clip-rn50 --family cn-clip
    jclip data import muge downloads data/muge
    jclip train configs/chinese_clip/finetune/muge_rn50.py

Expected: text-to-image R@1/5/10 48.6/75.1/84.0 on the validation split.
"""

from jclip.configs.chinese_clip.recipe import finetuning
from jclip.train.configuration import Run


def config() -> Run:
    return finetuning("rn50", "muge")
