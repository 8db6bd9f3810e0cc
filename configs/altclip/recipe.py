"""AltCLIP's hyper-parameters, and the runs that use them (Chen et al. 2022, section 3, table 6).

Choices where the paper is silent or doubtful, or differs from its author's code (jongjyh/multi-clip):

- beta1 is 0.9. The paper's 0.99 is probably a misprint: its eps, clipping and beta2 are the defaults of the trainer
  that the code uses. That trainer's beta1 is 0.9, and no script overrides it.
- After the warm-up the learning rate decays linearly to 0, that trainer's default. The paper gives no schedule.
- Norms and biases have no weight decay, as in that trainer. The logit scale has none either, although that trainer
  decays it. Stage 1 has the paper's 0.1; the scripts have 0.2.
- Stage 1 has 238,620 steps of 1,024 pairs, as in table 6. The paper's 10 epochs of 36M pairs would be more. A script
  from the time of the paper has batches of 6,144, twenty epochs and every pair twice, which gives exactly these steps.
  The true budget may thus be six times that of the table: set `--stages.0.batch-size 6144`.
- Half of the student's sentences are the English ones themselves (`english_share`).
- Stage 1 has no dropout, as in the code. Nothing is said about stage 2; it has none here either.
- Texts have 77 tokens. The scripts from the time of the paper have 75 and 70, and fewer in experiments.
- Stage 2 is all warm-up: 2,000 steps with a warm-up of 2,000, to 2e-6. (A summary that is often copied has 2e-4.)
- Stage 2 trains the text tower with its projection, and the logit scale. The paper says "the text encoder".
- There is no augmentation: the code resizes and crops the centre.
"""

from jclip.data.sources.folders import PairFolder, ParallelFolder
from jclip.images.preprocess import CLIP_MEAN, CLIP_STD, Preprocessing
from jclip.models import zoo
from jclip.train import Budget, Contrastive, Optimizer, Run, Stage, TeacherLearning

CONTEXT = 77
START = "bundles/clip-l14-with-xlm-r-large"
BY_CLIP = TeacherLearning("bundles/clip-vit-l-14", zoo.get_config("clip-vit-l-14"))


def teacher_learning(*parallel: ParallelFolder, steps: int = 238_620, objective: TeacherLearning = BY_CLIP) -> Stage:
    """Returns stage 1: the text tower learns the teacher's text state, which enters the text projection."""
    return Stage(
        name="teacher",
        objective=objective,
        data=parallel,
        batch_size=1024,
        budget=Budget(steps=steps),
        optimizer=_optimizer(learning_rate=1e-4, warmup_steps=500, weight_decay=0.1, clip_norm=1.0),
        trains=((r"text/projection/.*", False), (r"text/.*", True), (r"image/.*|logit_scale", False)),
        context_length=CONTEXT,
        dropout=False,
    )


def contrastive(*pairs: PairFolder, steps: int = 2000) -> Stage:
    """Returns stage 2: the text tower learns from image-text pairs, with the image tower frozen."""
    return Stage(
        name="contrastive",
        objective=Contrastive(),
        data=pairs,
        batch_size=1024,
        budget=Budget(steps=steps),
        optimizer=_optimizer(learning_rate=2e-6, warmup_steps=2000, weight_decay=0.05, clip_norm=5.0),
        trains=((r"image/.*", False), (r"text/.*|logit_scale", True)),
        context_length=CONTEXT,
        dropout=False,
    )


def altclip(
    name: str,
    *stages: Stage,
    model: str = "altclip",
    start: str = START,
) -> Run:
    """Returns a run of these stages.

    Args:
      name: the run's name.
      stages: the stages, in order.
      model: the model's name in the zoo.
      start: the bundle with the initial parameters.
    """
    return Run(
        name=name,
        model=zoo.get_config(model),
        tokenizer=f"{start}/tokenizer",
        preprocessing=Preprocessing(size=224, mean=CLIP_MEAN, std=CLIP_STD, resize="crop"),
        stages=stages,
        starts_from=((r".*", start),),
        dtype="bfloat16",
    )


def _optimizer(learning_rate: float, warmup_steps: int, weight_decay: float, clip_norm: float) -> Optimizer:
    return Optimizer(
        learning_rate=learning_rate,
        warmup_steps=warmup_steps,
        schedule="linear",
        beta1=0.9,
        beta2=0.999,
        eps=1e-8,
        weight_decay=weight_decay,
        clip_norm=clip_norm,
    )
