"""AltCLIP-m9: English, Chinese, Spanish, French, Russian, Arabic, Japanese, Korean, Italian (Chen et al. 2022, 4.2).

    jclip plan  configs/altclip/vit_l_14_m9.py
    jclip train configs/altclip/vit_l_14_m9.py --reduced      two small steps a stage, here and now
    jclip train configs/altclip/vit_l_14_m9.py --workdir runs/altclip-m9

Expected: XTD image-to-text R@10 95.4 en, 94.1 es, 92.9 fr, 95.1 zh, 94.2 it, 94.4 ko, 91.8 ru, 91.7 ja.

Teacher and start are those of vit_l_14.py. For each language data/altclip-parallel-LANGUAGE is 13M captions translated
by machine and 5M sentence pairs of OPUS, in equal parts of the mixture. The paper has 100M pairs of pictures for stage
2, the model's card about 6M a language: here they are what data/altclip-pairs-m9 holds, for as many steps as the
bilingual stage, for no number is given. The model has no dropout, as its released configuration.
"""

from jclip.configs.altclip.recipe import altclip, contrastive, teacher_learning
from jclip.data.sources.folders import PairFolder, ParallelFolder
from jclip.train.run import Run

LANGUAGES = ("zh", "es", "fr", "ru", "ar", "ja", "ko", "it")


def config() -> Run:
    """The run."""
    parallel = [ParallelFolder(f"data/altclip-parallel-{language}") for language in LANGUAGES]
    stages = teacher_learning(*parallel), contrastive(PairFolder("data/altclip-pairs-m9"))
    return altclip("altclip-m9", *stages, model="altclip-m9")
