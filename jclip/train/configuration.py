"""Configuration of a run: model, initial parameters, stages, logs and checkpoints."""

from dataclasses import dataclass, field
from typing import Literal

from jclip.images.preprocess import Preprocessing
from jclip.marks import BundleFolder, Folder, Free
from jclip.models.compute import Implementation, Remat
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.parallel.mesh import MeshShape
from jclip.ranges import AtLeastOne, Count, Positive, Seed, Share
from jclip.stages import Stage
from jclip.train.evaluations import EvaluationConfig

RematChoice = Literal["auto", Remat]


@dataclass(frozen=True)
class Monitor:
    """Logs besides metrics.jsonl and TensorBoard's files, which every run writes.

    Attributes:
      wandb: project of Weights & Biases; "" for none.
      profile_from: first step that is profiled.
      profile_steps: number of steps that are profiled; 0 for none.
      peak_tflops: peak TFLOP/s of one device, to compute MFU on devices that jclip does not know.
    """

    wandb: str = ""
    profile_from: Count = 10
    profile_steps: Count = 0
    peak_tflops: Positive | None = None


@dataclass(frozen=True)
class Run:
    """A run of one model through its stages.

    Attributes:
      name: name in logs and bundles.
      tokenizer: folder of the text tower's tokenizer.
      preprocessing: preprocessing of images; saved with the weights.
      stages: stages in order; names must differ.
      starts_from: ordered (path regex, bundle): sources of the initial parameters, as for `jclip.load`; "" for random
        ones. The first match wins and every parameter must be matched.
      seed: seed of the initialisation, the data order, augmentation and dropout.
      dtype: dtype of the towers' computation; parameters and losses are float32.
      remat: activations that the backward pass recomputes: "none"; "dots": those that are cheap (norms, activation
        functions, attention); "layers": all of a layer, for up to a third more arithmetic and the least memory. "auto"
        is the first of these with which a stage's step needs at most 95 % of the devices' memory, or "layers" if none
        does. It is "dots" if the devices do not report their memory.
      attention: implementation of attention: "auto" uses cuDNN if it can (NVIDIA, bfloat16, no dropout on the
        probabilities) and XLA otherwise; "xla" or "cudnn" force one.
      mesh: sizes of the grid of devices.
      max_replicated: largest share of the parameters' bytes that may be replicated although the axes "fsdp" and
        "tensor" should split them; a run with a larger share is refused.
      log_every: steps between two lines of metrics; 0 for the end of a stage only.
      checkpoint_every: steps between two checkpoints; 0 for the end of a stage only.
      evaluate_every: steps between two evaluations; 0 for the end of a stage only.
      evaluations: evaluations every `evaluate_every` steps, at the end of each stage, and before the first.
      keep_checkpoints: number of newest checkpoints that are kept.
      best: figure of an evaluation, such as "T1/t2i_r1". The checkpoint with the highest value is kept too, and becomes
        the bundle WORKDIR/best at the end. "" for none.
      patience: number of evaluations without improvement of `best` after which a stage ends early; 0 for never.
    """

    name: str
    model: DualEncoderConfig
    tokenizer: Folder
    preprocessing: Preprocessing
    stages: tuple[Stage, ...]
    starts_from: tuple[tuple[str, BundleFolder], ...] = ((r".*", ""),)
    seed: Seed = 0
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: Free[RematChoice] = "auto"
    attention: Free[Implementation] = "auto"
    mesh: Free[MeshShape] = field(default_factory=MeshShape)
    max_replicated: Free[Share] = 0.05
    log_every: Free[Count] = 10
    checkpoint_every: Free[Count] = 1000
    evaluate_every: Free[Count] = 0
    evaluations: Free[tuple[EvaluationConfig, ...]] = ()
    keep_checkpoints: Free[AtLeastOne] = 2
    best: Free[str] = ""
    patience: Free[Count] = 0
    monitor: Free[Monitor] = Monitor()
