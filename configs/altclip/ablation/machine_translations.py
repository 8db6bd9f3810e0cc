"""AltCLIP's ablation, table 4 (Chen et al. 2022): stage 1 on English and machine translations.

    jclip train altclip/ablation/machine_translations

The paper does not say whether this row includes the 28M captions of LAION-400M; this run does.
"""

from jclip.configs.altclip.recipe import altclip, teacher_learning
from jclip.data.sources.folders import ParallelFolder
from jclip.train.configuration import Run


def config() -> Run:
    """Returns the run."""
    return altclip("altclip-machine-translations", teacher_learning(ParallelFolder("data/altclip-parallel-machine")))
