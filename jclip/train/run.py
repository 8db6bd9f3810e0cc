"""What a run is: the model, where its parameters begin, its stages, and how often it looks around."""

from dataclasses import dataclass, field

from jclip import rules
from jclip.data.images import Preprocessing
from jclip.errors import JclipError
from jclip.models.attention import Implementation
from jclip.models.build import shapes
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.remat import Remat
from jclip.models.resnet import ResNetConfig
from jclip.parallel.mesh import MeshShape
from jclip.parallel.sharding import Placement
from jclip.stages import Stage
from jclip.train.evaluations import Evaluation
from jclip.train.layout import check_rounding, layout


@dataclass(frozen=True)
class Teacher:
    """A frozen teacher.

    Attributes:
      bundle: folder with its weights.
      model: its towers; the bundle must have the same.
      context_length: of its text tower.
    """

    bundle: str
    model: DualEncoderConfig
    context_length: int = 77


@dataclass(frozen=True)
class Monitor:
    """What is watched beside metrics.jsonl and TensorBoard's files, which every run writes.

    Attributes:
      wandb: the project of Weights & Biases to log to; "" for none.
      profile_from, profile_steps: so many steps of the run are profiled from that one on; 0 steps for no profile.
      peak_tflops: of one device, for MFU, where jclip does not know it.
    """

    wandb: str = ""
    profile_from: int = 10
    profile_steps: int = 0
    peak_tflops: float | None = None


@dataclass(frozen=True)
class Run:
    """A run of one model through its stages.

    Attributes:
      name: for logs and bundles.
      model: the towers.
      tokenizer: folder of the text tower's tokenizer.
      preprocessing: how pictures become arrays; travels with the weights.
      stages: in order; names must differ.
      starts_from: ordered (path regex, bundle folder): where parameters begin; "" means freshly initialised. The first
        match wins and every parameter must be matched.
      teacher: for stages that learn from one.
      seed: of the initialisation, the data order, augmentation and dropout.
      dtype: of the towers' computation; parameters and losses are float32.
      remat: what the backward pass computes again instead of keeping it. "none": nothing. "dots": what is cheap (norms,
        activations, attention). "layers": all of a layer, for a third more arithmetic and the least memory.
      attention: what computes it: "auto" takes cuDNN where that can (NVIDIA, bfloat16, no dropout on the
        probabilities) and XLA elsewhere; or one of "xla", "cudnn" and "tokamax", or an error that says why not.
      mesh: the devices as a grid.
      sharding: ordered (path regex, placement), see `parallel.sharding.Placement`: how parameters, and with them their
        optimizer slots, lie on the mesh. Without rules, by the towers' own tables, see `parallel.tables`.
      max_replicated: the share of the parameters' bytes that may stay in copies on the devices of "fsdp" and "tensor",
        which should split them, see `parallel.replication`.
      log_every, checkpoint_every, evaluate_every: in steps; 0 means only at the end of a stage.
      evaluations: what is evaluated then, on all processes, and before the first stage.
      keep_checkpoints: the newest so many stay on disk.
      best: an evaluation's figure, such as "T1/t2i_r1": the checkpoint where it was highest stays too, and becomes the
        bundle WORKDIR/best in the end. "" for none.
      monitor: Weights & Biases, profiles.
    """

    name: str
    model: DualEncoderConfig
    tokenizer: str
    preprocessing: Preprocessing
    stages: tuple[Stage, ...]
    starts_from: tuple[tuple[str, str], ...] = ((r".*", ""),)
    teacher: Teacher | None = None
    seed: int = 0
    dtype: str = "float32"
    remat: Remat = "none"
    attention: Implementation = "auto"
    mesh: MeshShape = field(default_factory=MeshShape)
    sharding: tuple[tuple[str, Placement], ...] = ()
    max_replicated: float = 0.05
    log_every: int = 10
    checkpoint_every: int = 1000
    evaluate_every: int = 0
    evaluations: tuple[Evaluation, ...] = ()
    keep_checkpoints: int = 2
    best: str = ""
    monitor: Monitor = Monitor()


def check(run: Run) -> None:
    """Finds what is wrong with a run before anything is built.

    Raises:
      JclipError: the field and the mend.
    """
    if not run.stages:
        raise JclipError(f"run {run.name!r} has no stages: give it at least one")
    names = [stage.name for stage in run.stages]
    for name in names:
        if names.count(name) > 1:
            raise JclipError(f"run {run.name!r} has two stages named {name!r}: names must differ")
    for stage in run.stages:
        if stage.batch_size < 2:
            raise JclipError(f"stage {stage.name!r}: a batch of {stage.batch_size} has no negatives: use 2 or more")
        if stage.max_unreadable < 0:
            raise JclipError(f"stage {stage.name!r}: max_unreadable is {stage.max_unreadable}: give 0 or more")
        if not stage.data:
            raise JclipError(f"stage {stage.name!r} has no data: give it at least one source")
        if stage.objective == "teacher" and not run.teacher:
            raise JclipError(f"stage {stage.name!r} learns from a teacher, but the run has none: set `teacher`")
        sigmoid = stage.objective == "contrastive" and stage.loss.kind == "sigmoid"
        if sigmoid and run.model.logit_bias_init is None:
            raise JclipError(
                f"stage {stage.name!r}: loss.kind is sigmoid, but the model has no logit bias: set "
                "model.logit_bias_init (SigLIP: -10.0, with logit_scale_init ln 10), or choose softmax"
            )
        if stage.micro_batches < 1 or stage.batch_size % stage.micro_batches:
            raise JclipError(
                f"stage {stage.name!r}: micro_batches={stage.micro_batches} does not divide a batch of "
                f"{stage.batch_size}: choose one of its divisors"
            )
    evaluations = [one.name for one in run.evaluations]
    for name in evaluations:
        if evaluations.count(name) > 1:
            raise JclipError(f"run {run.name!r} has two evaluations named {name!r}: names must differ")
    if run.best and evaluations and run.best.partition("/")[0] not in evaluations:
        raise JclipError(
            f"best is {run.best!r}, but the evaluations are {', '.join(evaluations)}: name a figure of one"
        )
    if run.dtype not in ("float32", "bfloat16"):
        raise JclipError(f"dtype {run.dtype!r} is not possible: choose float32 or bfloat16")
    _check_parameters(run)


def _check_parameters(run: Run) -> None:
    """Holds the stages' rules against the model's parameters and against each other."""
    leaves = rules.paths_of(shapes(run.model)["params"])
    for stage in run.stages:
        trains = layout(stage, leaves).trains
        statistics = isinstance(run.model.image, ResNetConfig) and any(path.startswith("image/") for path in trains)
        if stage.micro_batches > 1 and stage.objective == "contrastive" and statistics:
            raise JclipError(
                f"stage {stage.name!r} trains a ResNet, whose batch norm needs the whole batch at once: set "
                "micro_batches to 1, or freeze image/.*"
            )
    check_rounding(run.stages, leaves)
