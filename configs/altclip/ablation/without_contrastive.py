"""AltCLIP's ablation, table 4 (Chen et al. 2022): stage 1 alone, on all its text.

    jclip train configs/altclip/ablation/without_contrastive.py

Expected, English / Chinese: mean recall on Flickr30k 88.3 / 87.2, ImageNet 74.7 / 58.2.

It is the first stage of ../vit_l_14.py.
"""

from jclip.configs.altclip.recipe import altclip, teacher_learning
from jclip.data.sources.folders import ParallelFolder
from jclip.train.run import Run


def config() -> Run:
    """The run."""
    return altclip("altclip-without-contrastive", teacher_learning(ParallelFolder("data/altclip-parallel")))
