"""AltCLIP-m18, eighteen languages and ViT-H/14 (FlagAI, examples/AltCLIP-m18, 2023; no paper).

    jclip plan altclip/vit_h_14_m18
    jclip train altclip/vit_h_14_m18 --reduced      # two small steps a stage, on this machine
    jclip train altclip/vit_h_14_m18 --workdir runs/altclip-m18

No figure is published for it. Its page lists the data (machine translations of LAION-400M captions, CCAligned,
CCMatrix, WikiMatrix and others for each language; LAION-Aesthetics and Wudao-MM for the images) but no
hyper-parameters, so the run has those of AltCLIP's table 6. The teacher is not named either. LAION's ViT-H/14 has the
right sizes, and a comment in the author's code mentions it.

    jclip convert hf://laion/CLIP-ViT-H-14-laion2B-s32B-b79K bundles/clip-vit-h-14
    jclip convert --image hf://laion/CLIP-ViT-H-14-laion2B-s32B-b79K --text hf://FacebookAI/xlm-roberta-large \
        bundles/clip-h14-with-xlm-r-large
"""

from dataclasses import replace

from jclip.configs.altclip.recipe import altclip, contrastive, teacher_learning
from jclip.data.sources.folders import PairFolder, ParallelFolder
from jclip.models import zoo
from jclip.train import Run, TeacherLearning

LANGUAGES = (
    "zh", "ja", "th", "ko", "hi", "uk", "ar", "tr", "vi", "pl", "nl", "pt", "it", "es", "de", "fr", "ru",
)  # fmt: skip


def config() -> Run:
    """Returns the run."""
    parallel = [ParallelFolder(f"data/altclip-parallel-{language}") for language in LANGUAGES]
    teacher = TeacherLearning("bundles/clip-vit-h-14", zoo.get_config("clip-vit-h-14"))
    run = altclip(
        "altclip-m18",
        teacher_learning(*parallel, objective=teacher),
        contrastive(PairFolder("data/altclip-pairs-m18")),
        model="altclip-m18",
        start="bundles/clip-h14-with-xlm-r-large",
    )
    # Its image tower is the teacher's, which was trained with exact GELU.
    return replace(run, model=replace(run.model, image=zoo.get_config("clip-vit-h-14").image))
