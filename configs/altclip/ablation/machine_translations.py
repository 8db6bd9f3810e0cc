"""AltCLIP's ablation, table 4 (Chen et al. 2022): English with English, and machine translations.

    jclip train configs/altclip/ablation/machine_translations.py

Expected, English / Chinese: mean recall on Flickr30k 86.8 / 85.8, ImageNet 51.6 / 41.7.

Whether the 28M captions of LAION-400M belong to this row, the paper does not say; here they do.
"""

from jclip.configs.altclip.recipe import altclip, teacher_learning
from jclip.data.sources.folders import ParallelFolder
from jclip.train.run import Run


def config() -> Run:
    """The run."""
    return altclip("altclip-machine-translations", teacher_learning(ParallelFolder("data/altclip-parallel-machine")))
