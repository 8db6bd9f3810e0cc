"""Chinese-CLIP ViT-B/16 fine-tuned on MUGE as the repository's script does it: 8 GPUs of 128 pairs, 3 epochs.

    jclip convert hf://OFA-Sys/chinese-clip-vit-base-patch16 bundles/chinese-clip-vit-b-16
    jclip data import muge downloads data/muge
    jclip train configs/chinese_clip/finetune/muge_vit_b_16_8_gpus.py

The repository's table has 58.4/83.6/90.0 for table 9's batch of 12,800; of this one it publishes its log alone.
"""

from jclip.configs.chinese_clip.recipe import Tuning, finetuning
from jclip.train.configuration import Run


def config() -> Run:
    return finetuning("vit_b_16", "muge", Tuning(1_024, 5e-5, 3, 100), name="muge-vit-b-16-8-gpus")
