"""Chinese-CLIP ViT-L/14 at 336 pixels: two more epochs of stage 2 (Yang et al. 2022, section 2.2, table 7).

    jclip plan chinese_clip/vit_l_14_336
    jclip train chinese_clip/vit_l_14_336 --reduced      # two small steps, on this machine
    jclip train chinese_clip/vit_l_14_336 --workdir runs/chinese-clip-vit-l-14-336

The run continues from L/14. Its position embeddings are interpolated as in cn_clip:

    jclip convert runs/chinese-clip-vit-l-14/2-everything l14.pt --to cn-clip
    jclip convert l14.pt bundles/chinese-clip-l14-at-336 --family cn-clip --image-size 336

recipe.py lists the choices where the paper says nothing.
"""

from jclip.configs.chinese_clip.recipe import pretraining
from jclip.train.configuration import Run


def config() -> Run:
    """Returns the run."""
    return pretraining("vit_l_14_336")
