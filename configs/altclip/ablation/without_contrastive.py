"""AltCLIP's ablation, table 4 (Chen et al. 2022): stage 1 alone, on all its text.

    jclip train altclip/ablation/without_contrastive

The run is the first stage of altclip/vit_l_14.
"""

from jclip.configs.altclip.recipe import altclip, teacher_learning
from jclip.data.sources.folders import ParallelFolder
from jclip.train.configuration import Run


def config() -> Run:
    """Returns the run."""
    return altclip("altclip-without-contrastive", teacher_learning(ParallelFolder("data/altclip-parallel")))
