"""Chinese-CLIP RN50 fine-tuned on COCO-CN (Yang et al. 2022, table 9), from its published weights.

    jclip convert clip_cn_rn50.pt bundles/chinese-clip-rn50 --family cn-clip
    jclip data import coco-cn downloads data/coco-cn
    jclip train configs/chinese_clip/finetune/coco_cn_rn50.py

Expected: text-to-image R@1/5/10 66.8/91.1/97.0 on the test split.
"""

from jclip.configs.chinese_clip.recipe import finetuning
from jclip.train.configuration import Run


def config() -> Run:
    return finetuning("rn50", "coco_cn")
