"""Chinese-CLIP ViT-B/16 fine-tuned on MUGE as the repository's notebook does it: one GPU, 48 pairs, one epoch.

    jclip convert hf://OFA-Sys/chinese-clip-vit-base-patch16 bundles/chinese-clip-vit-b-16
    jclip data import muge downloads data/muge
    jclip train configs/chinese_clip/finetune/muge_vit_b_16_1_gpu.py

Expected on the validation split: text-to-image R@1/5/10 56.9/81.2/87.9.
"""

from dataclasses import replace

from jclip.configs.chinese_clip.recipe import Tuning, finetuning
from jclip.train.configuration import Run


def config() -> Run:
    run = finetuning("vit_b_16", "muge", Tuning(48, 3e-6, 1, 100), name="muge-vit-b-16-1-gpu")
    return replace(run, remat="layers")
