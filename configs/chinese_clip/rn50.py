"""Chinese-CLIP RN50, both pre-training stages (Yang et al. 2022, section 2.2, tables 7 and 8).

    jclip plan  configs/chinese_clip/rn50.py
    jclip train configs/chinese_clip/rn50.py --reduced      two small steps a stage, here and now
    jclip train configs/chinese_clip/rn50.py --workdir runs/chinese-clip-rn50

It starts from OpenAI's RN50.pt, and the three-layer RBT3:

    jclip convert --image RN50.pt --text hf://hfl/rbt3 bundles/clip-rn50-with-rbt3

Expected after stage 2 on the authors' 200M pairs: MUGE zero-shot R@1/5/10 42.6/68.6/77.9.
What was chosen where the paper is silent: recipe.py.
"""

from jclip.configs.chinese_clip.recipe import pretraining
from jclip.train.configuration import Run


def config() -> Run:
    return pretraining("rn50")
