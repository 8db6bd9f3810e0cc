"""AltCLIP, bilingual, both stages (Chen et al. 2022, section 3, table 6).

    jclip plan  configs/altclip/vit_l_14.py
    jclip train configs/altclip/vit_l_14.py --reduced      two small steps a stage, here and now
    jclip train configs/altclip/vit_l_14.py --workdir runs/altclip

Expected: ImageNet zero-shot 74.7 en / 58.2 zh after stage 1, 74.5 / 59.6 after stage 2.

The teacher is OpenAI's CLIP ViT-L/14; the student starts with its image tower, text projection and logit scale, and
with XLM-R-large under a new head:

    jclip convert hf://openai/clip-vit-large-patch14 bundles/clip-vit-l-14
    jclip convert --image hf://openai/clip-vit-large-patch14 --text hf://FacebookAI/xlm-roberta-large \
        bundles/clip-l14-with-xlm-r-large

data/altclip-parallel is English with Chinese: captions of CC3M and of LAION-400M translated by machine (31M), and
TSL2019, translated by people (5M). data/altclip-pairs is 2M pictures of an aesthetic score above 5.5 (Wudao-MM,
Chinese) and 6 (LAION-5B, English). What was chosen where the paper is silent: recipe.py.
"""

from jclip.configs.altclip.recipe import altclip, contrastive, teacher_learning
from jclip.data.sources.folders import PairFolder, ParallelFolder
from jclip.train.run import Run


def config() -> Run:
    """The run."""
    stages = teacher_learning(ParallelFolder("data/altclip-parallel")), contrastive(PairFolder("data/altclip-pairs"))
    return altclip("altclip", *stages)
