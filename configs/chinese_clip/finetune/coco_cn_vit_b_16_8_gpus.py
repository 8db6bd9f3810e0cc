"""Chinese-CLIP ViT-B/16 fine-tuned on COCO-CN as the repository's script does it: 8 GPUs of 1024 pairs, 20 epochs.

    jclip convert hf://OFA-Sys/chinese-clip-vit-base-patch16 bundles/chinese-clip-vit-b-16
    jclip data import coco-cn downloads data/coco-cn
    jclip train configs/chinese_clip/finetune/coco_cn_vit_b_16_8_gpus.py

No figure is published for it. It recomputes, as the script's --grad-checkpointing.
"""

from dataclasses import replace

from jclip.configs.chinese_clip.recipe import Tuning, finetuning
from jclip.train.configuration import Run


def config() -> Run:
    run = finetuning("vit_b_16", "coco_cn", Tuning(8_192, 3e-5, 20, 6), name="coco-cn-vit-b-16-8-gpus")
    return replace(run, remat="layers")
