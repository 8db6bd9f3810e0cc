"""What a run is: the model, where its parameters begin, its stages, and how often it looks around."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jclip import rules
from jclip.bundle import open_bundle
from jclip.config import check_types, leaves, to_json
from jclip.data.sources.records import Pair, Translation, called
from jclip.errors import JclipError
from jclip.images.on_device import Augmentation
from jclip.images.preprocess import Preprocessing
from jclip.models.attention import Implementation
from jclip.models.bert import BertConfig
from jclip.models.build import shapes
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.remat import Remat
from jclip.models.resnet import ResNetConfig
from jclip.names import check_name
from jclip.parallel.mesh import MeshShape
from jclip.parallel.sharding import Placement
from jclip.stages import Stage, carried_paths
from jclip.train.evaluations import Evaluation
from jclip.train.layout import check_rounding, layout, whole_path


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
      patience: a stage ends early after so many evaluations in it without a better `best`; 0 for never.
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
    dtype: Literal["float32", "bfloat16"] = "float32"
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
    patience: int = 0
    monitor: Monitor = Monitor()


_Range = tuple[Callable[[float], bool], str]
"""Whether a number has a sense, and what to give instead of one that has none."""

_COUNT: _Range = (lambda x: 0 <= x < math.inf, "0 or more")
_ONE_OR_MORE: _Range = (lambda x: 1 <= x < math.inf, "1 or more")
_ABOVE_0: _Range = (lambda x: 0 < x < math.inf, "a number above 0")
_SHARE: _Range = (lambda x: 0 <= x <= 1, "a share, 0 to 1")
_BELOW_1: _Range = (lambda x: 0 <= x < 1, "0 or more, and less than 1")

_STAGE, _SOURCE, _OPTIMIZER = r"stages\.\d+\.", r"stages\.\d+\.data\.\d+\.", r"stages\.\d+\.optimizer\."

RANGES: tuple[tuple[str, _Range], ...] = (
    (r"max_replicated", _SHARE),
    (r"(log|checkpoint|evaluate)_every|patience", _COUNT),
    (r"keep_checkpoints", _ONE_OR_MORE),
    (r"monitor\.profile_(from|steps)", _COUNT),
    (r"monitor\.peak_tflops", _ABOVE_0),
    (rf"(teacher\.|{_STAGE})context_length", (lambda x: x >= 3, "3 or more: two are for the special tokens")),
    (rf"{_STAGE}batch_size", (lambda x: x >= 2, "2 or more: a pair alone has no negatives")),
    (rf"{_STAGE}budget\.epochs", _ABOVE_0),
    (rf"{_STAGE}buckets\.\d+", _ONE_OR_MORE),
    (rf"{_STAGE}bucket_window", _ONE_OR_MORE),
    (
        rf"{_STAGE}language_temperature",
        (lambda x: 1 <= x < math.inf, "1 or more: below 1 rare languages would be rarer still"),
    ),
    (rf"{_STAGE}patch_dropout", _BELOW_1),
    (rf"{_STAGE}(max_unreadable|workers)", _COUNT),
    (rf"{_STAGE}loss\.chunk", _ONE_OR_MORE),
    (rf"{_STAGE}(host_)?augmentation\.flip", _SHARE),
    (rf"{_STAGE}host_augmentation\.crop_scale\.\d", (lambda x: 0 < x <= 1, "a share above 0, 1 at most")),
    (rf"{_STAGE}host_augmentation\.crop_ratio\.\d", _ABOVE_0),
    (rf"{_STAGE}augmentation\..*", _COUNT),
    (rf"{_SOURCE}weight", _ABOVE_0),
    (rf"{_SOURCE}english_share", _SHARE),
    (rf"{_SOURCE}(count|size)", _ONE_OR_MORE),
    (rf"{_OPTIMIZER}(learning_rate|warmup_steps|weight_decay|multipliers\.\d+\.1)", _COUNT),
    (rf"{_OPTIMIZER}beta\d", _BELOW_1),
    (rf"{_OPTIMIZER}eps", _ABOVE_0),
    (rf"{_OPTIMIZER}clip_norm", (_ABOVE_0[0], "a number above 0, or None for no clipping")),
)
"""Ordered (regex over dotted names, range), of numbers for which nothing else says what they may be."""


def check_names(run: Run) -> None:
    """Checks the names that become folders or parts of figures' names: of the run, its stages and its evaluations.

    Raises:
      JclipError: a name is not one folder's name; the field is named.
    """
    check_name("name", run.name)
    for kind, named in (("stages", run.stages), ("evaluations", run.evaluations)):
        for number, one in enumerate(named):
            check_name(f"{kind}.{number}.name", one.name)


def check(run: Run) -> None:
    """Finds what is wrong with a run before anything is built or read: words, numbers, rules.

    Raises:
      JclipError: the field and the mend.
    """
    check_types(run)
    check_names(run)
    _check_numbers(run)
    if not run.stages:
        raise JclipError(f"run {run.name!r} has no stages: give it at least one")
    names = [stage.name for stage in run.stages]
    for name in names:
        if names.count(name) > 1:
            raise JclipError(f"run {run.name!r} has two stages named {name!r}: names must differ")
    for stage in run.stages:
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
        if stage.bucket_window > 1 and not stage.buckets:
            raise JclipError(
                f"stage {stage.name!r}: bucket_window sorts texts into buckets: set buckets, or leave it 1"
            )
        if above := [bucket for bucket in stage.buckets if bucket > stage.context_length]:
            raise JclipError(
                f"stage {stage.name!r}: buckets has {above[0]}, but no text is longer than context_length, "
                f"{stage.context_length}: give shorter lengths"
            )
        _check_inputs(run, stage)
    evaluations = [one.name for one in run.evaluations]
    for name in evaluations:
        if evaluations.count(name) > 1:
            raise JclipError(f"run {run.name!r} has two evaluations named {name!r}: names must differ")
    if run.best and evaluations and run.best.partition("/")[0] not in evaluations:
        raise JclipError(
            f"best is {run.best!r}, but the evaluations are {', '.join(evaluations)}: name a figure of one"
        )
    if run.patience and not (run.best and run.evaluate_every):
        raise JclipError(
            f"patience is {run.patience}, but nothing is compared during a stage: set best and evaluate_every, or "
            "leave patience 0"
        )
    _check_parameters(run)


def check_starting_points(run: Run) -> None:
    """Holds the bundles from which a run begins against its model; no parameter is read.

    Not for a run that resumes, whose starting points may be gone, nor for a plan.

    Raises:
      JclipError: a bundle is not there or is damaged, or it lacks a parameter, or has it in another shape.
    """
    wanted = _parameters(run)
    sources = rules.match(run.starts_from, wanted, what="starts_from")
    for folder in dict.fromkeys(folder for folder in sources.values() if folder):
        if not Path(folder).is_dir():
            raise JclipError(f"starts_from: there is no bundle {folder}: make it first, or start from elsewhere or ''")
        try:
            there = rules.paths_of(open_bundle(folder).params)
        except JclipError as error:
            raise JclipError(f"starts_from: {error}") from None
        for path in (path for path, source in sources.items() if source == folder):
            if path not in there:
                raise JclipError(f"starts_from: {folder} has no parameter {path}: start it from elsewhere, or from ''")
            if there[path].shape != wanted[path].shape:
                raise JclipError(
                    f"starts_from: {folder}: {path} has shape {there[path].shape}, but this model needs "
                    f"{wanted[path].shape}: start it from elsewhere, or from ''"
                )


def _check_numbers(run: Run) -> None:
    for name, value in leaves(to_json(run)):
        if isinstance(value, int | float) and not isinstance(value, bool):
            makes_sense, mend = next((found for regex, found in RANGES if re.fullmatch(regex, name)), (None, ""))
            if makes_sense and not makes_sense(value):
                raise JclipError(f"{name} is {value}: give {mend}")


def _check_inputs(run: Run, stage: Stage) -> None:
    """Holds what a stage reads against the towers that read it."""
    readers = [("context_length", stage.context_length, run.model)]
    if stage.objective == "teacher" and run.teacher:
        readers.append(("the teacher's context_length", run.teacher.context_length, run.teacher.model))
    for name, length, model in readers:
        longest = model.text.longest if isinstance(model.text, BertConfig) else model.text.context_length
        if length > longest:
            raise JclipError(
                f"stage {stage.name!r}: {name} is {length}, but the text tower reads {longest} tokens at most: lower it"
            )
    if run.preprocessing.size != run.model.image.image_size:  # the bundle of any stage holds both
        raise JclipError(
            f"preprocessing.size is {run.preprocessing.size}, but the image tower reads pictures of "
            f"{run.model.image.image_size}: they must be equal"
        )
    wanted = Translation if stage.objective == "teacher" else Pair
    for source in stage.data:
        if source.gives is not wanted:
            raise JclipError(
                f"stage {stage.name!r} ({stage.objective}) reads {called(wanted)}, but {type(source).__name__} is "
                f"{called(source.gives)}"
            )


def _check_cache(stage: Stage, trains: frozenset[str]) -> None:
    """A tower is read from a cache if it says the same of a picture whenever it sees it."""
    if not stage.cache or stage.objective == "teacher":
        return
    trained = any(path.startswith("image/") for path in trains)
    augmented = stage.host_augmentation.changes or stage.augmentation != Augmentation()
    reasons = (
        (trained, "its image tower trains: freeze image/.*"),
        (augmented, "its pictures are augmented: leave augmentation and host_augmentation out"),
        (stage.patch_dropout > 0, "patch_dropout leaves out other patches each time: set it to 0"),
    )
    for met, words in reasons:
        if met:
            raise JclipError(f"stage {stage.name!r}: cache needs image features that stay, but {words}, or the cache")


def _parameters(run: Run) -> dict[str, Any]:
    """Every parameter's path and shape."""
    return rules.paths_of(shapes(run.model)["params"])


def _check_parameters(run: Run) -> None:
    """Holds the run's rules and the stages' against the model's parameters and against each other."""
    parameters = _parameters(run)
    rules.match(run.starts_from, parameters, what="starts_from")
    for stage in run.stages:
        carried_paths(stage, parameters)
        trains = layout(stage, parameters).trains
        _check_cache(stage, trains)
        factors = rules.match(stage.optimizer.multipliers, parameters, what=f"stage {stage.name!r}: multipliers")
        if not stage.optimizer.learning_rate or not any(factors[whole_path(path)] for path in trains):
            raise JclipError(
                f"stage {stage.name!r} learns nothing, for the learning rate of all that trains is 0: raise "
                "optimizer.learning_rate, or the multipliers"
            )
        if stage.objective == "teacher" and not any(path.startswith("text/") for path in trains):
            raise JclipError(
                f"stage {stage.name!r} learns nothing, for a teacher teaches the text tower alone, of which it trains "
                "nothing: let `trains` match text/.*"
            )
        statistics = isinstance(run.model.image, ResNetConfig) and any(path.startswith("image/") for path in trains)
        if stage.micro_batches > 1 and stage.objective == "contrastive" and statistics:
            raise JclipError(
                f"stage {stage.name!r} trains a ResNet, whose batch norm needs the whole batch at once: set "
                "micro_batches to 1, or freeze image/.*"
            )
    check_rounding(run.stages, parameters)
