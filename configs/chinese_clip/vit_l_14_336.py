"""Chinese-CLIP ViT-L/14 at 336 pixels: two more epochs of stage 2 (Yang et al. 2022, section 2.2, table 7).

    jclip plan  configs/chinese_clip/vit_l_14_336.py
    jclip train configs/chinese_clip/vit_l_14_336.py --reduced      two small steps, here and now
    jclip train configs/chinese_clip/vit_l_14_336.py --workdir runs/chinese-clip-vit-l-14-336

It goes on from L/14, its position embeddings interpolated as cn_clip does it:

    jclip convert runs/chinese-clip-vit-l-14/2-everything l14.pt --to cn-clip
    jclip convert l14.pt bundles/chinese-clip-l14-at-336 --family cn-clip --image-size 336

Expected on the authors' 200M pairs: MUGE zero-shot R@1/5/10 59.0/81.4/87.8. What was chosen where the paper is silent:
recipe.py.
"""

from jclip.configs.chinese_clip.recipe import pretraining
from jclip.train.configuration import Run


def config() -> Run:
    return pretraining("vit_l_14_336")
