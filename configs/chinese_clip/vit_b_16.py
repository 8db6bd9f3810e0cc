"""Chinese-CLIP ViT-B/16, both pre-training stages (Yang et al. 2022, section 2.2, tables 7 and 8).

    jclip plan  configs/chinese_clip/vit_b_16.py
    jclip train configs/chinese_clip/vit_b_16.py --reduced      two small steps a stage, here and now
    jclip train configs/chinese_clip/vit_b_16.py --workdir runs/chinese-clip-vit-b-16

It starts from CLIP's image tower and logit scale, Chinese RoBERTa-wwm, and a new text projection:

    jclip convert --image hf://openai/clip-vit-base-patch16 --text hf://hfl/chinese-roberta-wwm-ext \
        bundles/clip-b16-with-roberta-wwm

Expected after stage 2 on the authors' 200M pairs: MUGE zero-shot R@1/5/10 52.1/76.7/84.4.
What was chosen where the paper is silent: recipe.py.
"""

from jclip.configs.chinese_clip.recipe import pretraining
from jclip.train.configuration import Run


def config() -> Run:
    return pretraining("vit_b_16")
