"""Chinese-CLIP ViT-B/16, both pre-training stages (Yang et al. 2022, section 2.2, tables 7 and 8).

    jclip plan chinese_clip/vit_b_16
    jclip train chinese_clip/vit_b_16 --reduced      # two small steps a stage, on this machine
    jclip train chinese_clip/vit_b_16 --workdir runs/chinese-clip-vit-b-16

The run starts from CLIP's image tower and logit scale, Chinese RoBERTa-wwm, and a new text projection:

    jclip convert --image hf://openai/clip-vit-base-patch16 --text hf://hfl/chinese-roberta-wwm-ext \
        bundles/clip-b16-with-roberta-wwm

recipe.py lists the choices where the paper says nothing.
"""

from jclip.configs.chinese_clip.recipe import pretraining
from jclip.train.configuration import Run


def config() -> Run:
    """Returns the run."""
    return pretraining("vit_b_16")
