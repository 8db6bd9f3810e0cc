"""What a run is: the model, where its parameters begin, its stages, and how often it looks around."""

from dataclasses import dataclass, field

from jclip.data.images import Preprocessing
from jclip.errors import JclipError
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.parallel.mesh import MeshShape
from jclip.parallel.sharding import FSDP, Placement
from jclip.stages import Stage


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
      remat: whether the backward pass computes the towers' layers again instead of keeping their insides: a third more
        arithmetic, and much less memory.
      mesh: the devices as a grid.
      sharding: ordered (path regex, placement), see `parallel.sharding.Placement`: how parameters, and with them their
        optimizer slots, lie on the mesh. By default each is split over "fsdp" along its largest dimension.
      log_every, checkpoint_every, evaluate_every: in steps; 0 means only at the end of a stage.
      keep_checkpoints: the newest so many stay on disk.
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
    remat: bool = False
    mesh: MeshShape = field(default_factory=MeshShape)
    sharding: tuple[tuple[str, Placement], ...] = FSDP
    log_every: int = 10
    checkpoint_every: int = 1000
    evaluate_every: int = 0
    keep_checkpoints: int = 2


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
    if run.dtype not in ("float32", "bfloat16"):
        raise JclipError(f"dtype {run.dtype!r} is not possible: choose float32 or bfloat16")
