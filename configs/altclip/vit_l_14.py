"""AltCLIP, bilingual, both stages (Chen et al. 2022, section 3, table 6).

    jclip plan altclip/vit_l_14
    jclip train altclip/vit_l_14 --reduced      # two small steps a stage, on this machine
    jclip train altclip/vit_l_14 --workdir runs/altclip

The teacher is OpenAI's CLIP ViT-L/14. The student starts with the teacher's image tower, text projection and logit
scale, and with XLM-R-large under a new head:

    jclip convert hf://openai/clip-vit-large-patch14 bundles/clip-vit-l-14
    jclip convert --image hf://openai/clip-vit-large-patch14 --text hf://FacebookAI/xlm-roberta-large \
        bundles/clip-l14-with-xlm-r-large

data/altclip-parallel holds English-Chinese sentence pairs: machine translations of captions of CC3M and LAION-400M
(31M), and human translations (TSL2019, 5M). data/altclip-pairs holds 2M images with an aesthetic score above 5.5
(Wudao-MM, Chinese) or 6 (LAION-5B, English). recipe.py lists the choices where the paper says nothing.
"""

from jclip.configs.altclip.recipe import altclip, contrastive, teacher_learning
from jclip.data.sources.folders import PairFolder, ParallelFolder
from jclip.train.configuration import Run


def config() -> Run:
    """Returns the run."""
    stages = teacher_learning(ParallelFolder("data/altclip-parallel")), contrastive(PairFolder("data/altclip-pairs"))
    return altclip("altclip", *stages)
