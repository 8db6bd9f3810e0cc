"""Chinese-CLIP ViT-B/16 fine-tuned on MUGE as the repository's _flip script: half of each picture's patches left out.

    jclip data import muge downloads data/muge
    jclip train configs/chinese_clip/finetune/muge_vit_b_16_flip.py

Li et al. 2022 (FLIP). No figure is published for it.
"""

from jclip.configs.chinese_clip.recipe import Tuning, finetuning
from jclip.train.configuration import Run


def config() -> Run:
    return finetuning("vit_b_16", "muge", Tuning(1024, 5e-5, 3, 100), name="muge-vit-b-16-flip", patch_dropout=0.5)
