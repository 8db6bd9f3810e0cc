"""Chinese-CLIP ViT-H/14, both pre-training stages (Yang et al. 2022, section 2.2, tables 7 and 8).

    jclip plan chinese_clip/vit_h_14
    jclip train chinese_clip/vit_h_14 --reduced      # two small steps a stage, on this machine
    jclip train chinese_clip/vit_h_14 --workdir runs/chinese-clip-vit-h-14

The run starts from LAION's image tower and logit scale, the large Chinese RoBERTa-wwm, and a new text projection:

    jclip convert --image hf://laion/CLIP-ViT-H-14-laion2B-s32B-b79K --text hf://hfl/chinese-roberta-wwm-ext-large \
        bundles/clip-h14-with-roberta-wwm-large

recipe.py lists the choices where the paper says nothing.
"""

from jclip.configs.chinese_clip.recipe import pretraining
from jclip.train.configuration import Run


def config() -> Run:
    """Returns the run."""
    return pretraining("vit_h_14")
