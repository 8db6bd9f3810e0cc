"""AltCLIP's ablation, table 4 (Chen et al. 2022): English with English alone.

    jclip train configs/altclip/ablation/english_alone.py

Expected, English / Chinese: mean recall on Flickr30k 86.6 / 53.9, ImageNet 53.8 / 12.8.

The student reads what the teacher reads: the translations are never looked at.
"""

from jclip.configs.altclip.recipe import altclip, teacher_learning
from jclip.data.sources.folders import ParallelFolder
from jclip.train.run import Run


def config() -> Run:
    """The run."""
    return altclip(
        "altclip-english-alone", teacher_learning(ParallelFolder("data/altclip-parallel-machine", english_share=1.0))
    )
