"""AltCLIP's ablation, table 4 (Chen et al. 2022): stage 1 on machine translations alone.

    jclip train altclip/ablation/translations_alone

The student reads no English, and its English gets much worse.
"""

from jclip.configs.altclip.recipe import altclip, teacher_learning
from jclip.data.sources.folders import ParallelFolder
from jclip.train.configuration import Run


def config() -> Run:
    """Returns the run."""
    return altclip(
        "altclip-translations-alone",
        teacher_learning(ParallelFolder("data/altclip-parallel-machine", english_share=0.0)),
    )
