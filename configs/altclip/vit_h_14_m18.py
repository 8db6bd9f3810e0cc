"""AltCLIP-m18: eighteen languages beside a ViT-H/14 (FlagAI, examples/AltCLIP-m18, 2023; no paper).

    jclip plan  configs/altclip/vit_h_14_m18.py
    jclip train configs/altclip/vit_h_14_m18.py --reduced      two small steps a stage, here and now
    jclip train configs/altclip/vit_h_14_m18.py --workdir runs/altclip-m18

No figure is published for it. Its page lists the data (LAION-400M captions translated by machine, CCAligned, CCMatrix,
WikiMatrix and others for each language; LAION-Aesthetics and Wudao-MM for the pictures) and no hyper-parameters, so
these are table 6's. The teacher is nowhere named: LAION's ViT-H/14 has the sizes, and stands in a comment of the
author's code.

    jclip convert hf://laion/CLIP-ViT-H-14-laion2B-s32B-b79K bundles/clip-vit-h-14
    jclip convert --image hf://laion/CLIP-ViT-H-14-laion2B-s32B-b79K --text hf://FacebookAI/xlm-roberta-large \
        bundles/clip-h14-with-xlm-r-large

"""

from dataclasses import replace

from jclip.configs.altclip.recipe import altclip, contrastive, teacher_learning
from jclip.data.sources.folders import PairFolder, ParallelFolder
from jclip.models import zoo
from jclip.train.run import Run

LANGUAGES = (
    "zh", "ja", "th", "ko", "hi", "uk", "ar", "tr", "vi", "pl", "nl", "pt", "it", "es", "de", "fr", "ru",
)  # fmt: skip


def config() -> Run:
    """The run."""
    parallel = [ParallelFolder(f"data/altclip-parallel-{language}") for language in LANGUAGES]
    run = altclip(
        "altclip-m18",
        teacher_learning(*parallel),
        contrastive(PairFolder("data/altclip-pairs-m18")),
        model="altclip-m18",
        start="bundles/clip-h14-with-xlm-r-large",
        teacher="bundles/clip-vit-h-14",
        teacher_model="clip-vit-h-14",
    )
    # Its image tower is the teacher's, which was trained with exact GELU.
    return replace(run, model=replace(run.model, image=zoo.get("clip-vit-h-14").image))
