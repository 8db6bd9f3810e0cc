"""Chinese-CLIP ViT-B/16 fine-tuned on Flickr30K-CN as the repository's script does it: 8 GPUs of 128 pairs, 3 epochs.

    jclip convert hf://OFA-Sys/chinese-clip-vit-base-patch16 bundles/chinese-clip-vit-b-16
    jclip data import flickr30k-cn downloads data/flickr30k-cn
    jclip train configs/chinese_clip/finetune/flickr30k_cn_vit_b_16_8_gpus.py

No figure is published for it.
"""

from jclip.configs.chinese_clip.recipe import Tuning, finetuning
from jclip.train.configuration import Run


def config() -> Run:
    return finetuning("vit_b_16", "flickr30k_cn", Tuning(1_024, 5e-5, 3, 100), name="flickr30k-cn-vit-b-16-8-gpus")
