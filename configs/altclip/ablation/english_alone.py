"""AltCLIP's ablation, table 4 (Chen et al. 2022): stage 1 on English alone.

    jclip train altclip/ablation/english_alone

Student and teacher read the same English sentences. The translations are not used.
"""

from jclip.configs.altclip.recipe import altclip, teacher_learning
from jclip.data.sources.folders import ParallelFolder
from jclip.train.configuration import Run


def config() -> Run:
    """Returns the run."""
    return altclip(
        "altclip-english-alone", teacher_learning(ParallelFolder("data/altclip-parallel-machine", english_share=1.0))
    )
