"""AltCLIP-m9: English, Chinese, Spanish, French, Russian, Arabic, Japanese, Korean, Italian (Chen et al. 2022, 4.2).

    jclip plan altclip/vit_l_14_m9
    jclip train altclip/vit_l_14_m9 --reduced      # two small steps a stage, on this machine
    jclip train altclip/vit_l_14_m9 --workdir runs/altclip-m9

Teacher and starting bundle are those of vit_l_14.py. For each language, data/altclip-parallel-LANGUAGE holds 13M
machine-translated captions and 5M sentence pairs of OPUS, in equal parts. For stage 2 the paper has 100M image-text
pairs, the model card about 6M a language; here data/altclip-pairs-m9 decides. No number of steps is given, so stage 2
has that of the bilingual run. The model has no dropout, like its released configuration.
"""

from jclip.configs.altclip.recipe import altclip, contrastive, teacher_learning
from jclip.data.sources.folders import PairFolder, ParallelFolder
from jclip.train.configuration import Run

LANGUAGES = ("zh", "es", "fr", "ru", "ar", "ja", "ko", "it")


def config() -> Run:
    """Returns the run."""
    parallel = [ParallelFolder(f"data/altclip-parallel-{language}") for language in LANGUAGES]
    stages = teacher_learning(*parallel), contrastive(PairFolder("data/altclip-pairs-m9"))
    return altclip("altclip-m9", *stages, model="altclip-m9")
