"""Chinese-CLIP ViT-L/14, both pre-training stages (Yang et al. 2022, section 2.2, tables 7 and 8).

    jclip plan chinese_clip/vit_l_14
    jclip train chinese_clip/vit_l_14 --reduced      # two small steps a stage, on this machine
    jclip train chinese_clip/vit_l_14 --workdir runs/chinese-clip-vit-l-14

The run starts from CLIP's image tower and logit scale, Chinese RoBERTa-wwm, and a new text projection:

    jclip convert --image hf://openai/clip-vit-large-patch14 --text hf://hfl/chinese-roberta-wwm-ext \
        bundles/clip-l14-with-roberta-wwm

recipe.py lists the choices where the paper says nothing.
"""

from jclip.configs.chinese_clip.recipe import pretraining
from jclip.train.configuration import Run


def config() -> Run:
    """Returns the run."""
    return pretraining("vit_l_14")
