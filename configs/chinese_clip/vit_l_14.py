"""Chinese-CLIP ViT-L/14, both pre-training stages (Yang et al. 2022, section 2.2, tables 7 and 8).

    jclip plan  configs/chinese_clip/vit_l_14.py
    jclip train configs/chinese_clip/vit_l_14.py --reduced      two small steps a stage, here and now
    jclip train configs/chinese_clip/vit_l_14.py --workdir runs/chinese-clip-vit-l-14

It starts from CLIP's image tower and logit scale, Chinese RoBERTa-wwm, and a new text projection:

    jclip convert --image hf://openai/clip-vit-large-patch14 --text hf://hfl/chinese-roberta-wwm-ext \
        bundles/clip-l14-with-roberta-wwm

Expected after stage 2 on the authors' 200M pairs: MUGE zero-shot R@1/5/10 56.3/79.8/86.2.
What was chosen where the paper is silent: recipe.py.
"""

from jclip.configs.chinese_clip.recipe import pretraining
from jclip.train.configuration import Run


def config() -> Run:
    return pretraining("vit_l_14")
