"""Chinese-CLIP ViT-H/14, both pre-training stages (Yang et al. 2022, section 2.2, tables 7 and 8).

    jclip plan  configs/chinese_clip/vit_h_14.py
    jclip train configs/chinese_clip/vit_h_14.py --reduced      two small steps a stage, here and now
    jclip train configs/chinese_clip/vit_h_14.py --workdir runs/chinese-clip-vit-h-14

It starts from LAION's image tower and logit scale, the large Chinese RoBERTa-wwm, and a new text projection:

    jclip convert --image hf://laion/CLIP-ViT-H-14-laion2B-s32B-b79K --text hf://hfl/chinese-roberta-wwm-ext-large \
        bundles/clip-h14-with-roberta-wwm-large

Expected after stage 2 on the authors' 200M pairs: MUGE zero-shot R@1/5/10 63.0/84.1/89.2.
What was chosen where the paper is silent: recipe.py.
"""

from jclip.configs.chinese_clip.recipe import pretraining
from jclip.train.configuration import Run


def config() -> Run:
    return pretraining("vit_h_14")
