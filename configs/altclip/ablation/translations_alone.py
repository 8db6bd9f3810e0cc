"""AltCLIP's ablation, table 4 (Chen et al. 2022): machine translations alone.

    jclip train configs/altclip/ablation/translations_alone.py

Expected, English / Chinese: mean recall on Flickr30k 61.9 / 85.4, ImageNet 15.5 / 42.5.

The student never reads English, and forgets it.
"""

from jclip.configs.altclip.recipe import altclip, teacher_learning
from jclip.data.sources.folders import ParallelFolder
from jclip.train.run import Run


def config() -> Run:
    """The run."""
    return altclip(
        "altclip-translations-alone",
        teacher_learning(ParallelFolder("data/altclip-parallel-machine", english_share=0.0)),
    )
