"""Chinese-CLIP RN50, both pre-training stages (Yang et al. 2022, section 2.2, tables 7 and 8).

    jclip plan chinese_clip/rn50
    jclip train chinese_clip/rn50 --reduced      # two small steps a stage, on this machine
    jclip train chinese_clip/rn50 --workdir runs/chinese-clip-rn50

The run starts from OpenAI's RN50.pt, and the three-layer RBT3:

    jclip convert --image RN50.pt --text hf://hfl/rbt3 bundles/clip-rn50-with-rbt3

recipe.py lists the choices where the paper says nothing.
"""

from jclip.configs.chinese_clip.recipe import pretraining
from jclip.train.configuration import Run


def config() -> Run:
    """Returns the run."""
    return pretraining("rn50")
