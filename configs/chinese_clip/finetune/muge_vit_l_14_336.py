"""Chinese-CLIP ViT-L/14 at 336 pixels fine-tuned on MUGE (Yang et al. 2022, table 9), from its published weights.

    jclip convert hf://OFA-Sys/chinese-clip-vit-large-patch14-336px bundles/chinese-clip-vit-l-14-336
    jclip data import muge downloads data/muge
    jclip train configs/chinese_clip/finetune/muge_vit_l_14_336.py

Expected: text-to-image R@1/5/10 65.3/86.7/92.1 on the validation split.
"""

from jclip.configs.chinese_clip.recipe import finetuning
from jclip.train.configuration import Run


def config() -> Run:
    return finetuning("vit_l_14_336", "muge")
