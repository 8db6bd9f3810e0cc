"""Chooses how to fine-tune a model on given data and a given machine, with the reasons: a pure function of facts.

The rules combine what is published for Chinese-CLIP (Yang et al. 2022, table 9; the scripts, the notebook and the
answers of its repository) with trials on 300 images and the demo's models (benchmarks/RESULTS.md):

- The learning rate decreases with the size of the model: table 9 does so from B/16 to H/14, and the demo's small
  models need it. For a good start it also decreases with batches below 1,024. The repository uses 5e-5 at 1,024 and
  3e-6 at 48.
- If the starting model is at chance, its rate is not lowered and everything trains: there is nothing to forget. If it
  is small as well, Muon trains it with the demo's settings.
- A good start with few pairs has two stages, image tower frozen and then everything, as in section 2.2 of the paper.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from jclip.errors import JclipError
from jclip.finetune.facts import DataFacts, Machine, ModelFacts, Start
from jclip.units import format_duration, format_size

GOOD, FEW, MANY = 0.25, 5_000, 20_000
"""Lowest skill of a good start; fewer pairs than FEW are few, MANY or more are many."""

_REFERENCE_PARAMETERS, _REFERENCE_RATE, _REFERENCE_BATCH = 188e6, 5e-5, 1_024  # Chinese-CLIP B/16 on MUGE
_LARGEST_RATE, _MUON_RATE = 1e-3, 2e-3
_SMALL = 30e6  # parameters; Muon was tried on models of five million
_LEAST_STEPS_AN_EPOCH = 4
_SMALLEST_GOAL, _LARGEST_BATCH = 256, 8_192
_MOST_EVALUATIONS, _LEAST_EVALUATIONS, _PATIENT = 20, 5, 0.4
_CPU_MINUTES = 60.0


@dataclass(frozen=True)
class Wishes:
    """Settings given by hand; `choose` chooses those that are None."""

    epochs: float | None = None
    minutes: float | None = None
    batch_size: int | None = None


@dataclass(frozen=True)
class Choice:
    """A choice with its value and its reason: a row of the printed table."""

    name: str
    value: str
    why: str


@dataclass(frozen=True)
class StageSettings:
    """A stage of a plan.

    Attributes:
      name: name for logs and folders.
      image: True if the image tower trains.
      epochs: passes over the data.
      learning_rate: peak.
      cached: True if image features are computed once; only with a frozen image tower.
    """

    name: str
    image: bool
    epochs: float
    learning_rate: float
    cached: bool = False

    def steps(self, pairs: int, batch_size: int) -> int:
        """Returns the optimizer steps of the stage."""
        return max(1, math.ceil(self.epochs * pairs / batch_size))


@dataclass(frozen=True)
class Settings:
    """Settings of a fine-tuning.

    Attributes:
      stages: stages in order.
      batch_size: pairs per step over all devices.
      micro_batches: number of parts of a batch, encoded one after another.
      muon: True for Muon, False for AdamW.
      weight_decay: decoupled.
      flip: probability of a horizontal flip.
      policy: True for Chinese-CLIP's augmentation on the host: crops, and AutoAugment.
      auto_augment: True if that includes AutoAugment.
      buckets: sequence lengths to which shorter texts are padded.
      workers: processes that read images.
      dtype: dtype of the computation.
      evaluations: number of evaluations in the run.
      patience: evaluations without improvement after which a stage ends.
      minutes: estimated duration.
      table: the choices with their reasons.
    """

    stages: tuple[StageSettings, ...]
    batch_size: int
    micro_batches: int
    muon: bool
    weight_decay: float
    flip: float
    policy: bool
    auto_augment: bool
    buckets: tuple[int, ...]
    workers: int
    dtype: str
    evaluations: int
    patience: int
    minutes: float
    table: tuple[Choice, ...]


def learning_rate(parameters: int, batch_size: int, skill: float) -> float:
    """Returns the peak learning rate, two digits.

    5e-5 at 188 million parameters, decreasing with the number of parameters to the power of 0.8; at most 1e-3. Below a
    batch of 1,024 it decreases in proportion to the batch for a skill of 0.5 or more, less for lower skills.

    >>> learning_rate(188_000_000, 1_024, 0.6), learning_rate(188_000_000, 48, 0.6)
    (5e-05, 2.3e-06)
    """
    rate = min(_LARGEST_RATE, _REFERENCE_RATE * (_REFERENCE_PARAMETERS / parameters) ** 0.8)
    rate *= min(1.0, batch_size / _REFERENCE_BATCH) ** min(1.0, 2 * skill)
    return float(f"{rate:.1e}")


def epochs_of(pairs: int) -> int:
    """Returns the number of epochs: 20 for 20,000 pairs, falling with their square root, 3 to 60.

    >>> epochs_of(270), epochs_of(20_000), epochs_of(250_000)
    (60, 20, 6)
    """
    return round(min(max(20 * math.sqrt(20_000 / pairs), 3), 60))


def choose(data: DataFacts, model: ModelFacts, machine: Machine, start: Start, wishes: Wishes = Wishes()) -> Settings:
    """Returns the settings for these facts, with the reasons. Raises JclipError if a wish is not possible."""
    _check(wishes, data, machine)
    good, few = start.skill >= GOOD, data.pairs < FEW
    dtype = "float32" if machine.platform == "cpu" else "bfloat16"
    batch, micro, batch_rows = _batch(data, model, machine, wishes, dtype)
    muon = not good and model.parameters <= _SMALL
    rate = _MUON_RATE if muon else learning_rate(model.parameters, batch, start.skill)
    trained = _trained(data, model, machine, start, wishes, rate)
    stages, slow, length = trained.stages, trained.cached, sum(stage.epochs for stage in trained.stages)
    flip, flip_row = _flip(data, cached=slow)
    policy = data.pairs >= MANY and not slow
    auto_augment = policy and data.colours <= 0.1
    workers = min(8, machine.cores - 1) if machine.platform != "cpu" and data.train >= 1_000 else 0
    decay = 1e-3 if good and not few else 0.1
    buckets = _buckets(data, model)
    lengths = (*buckets, model.context_length)
    steps = sum(stage.steps(data.pairs, batch) for stage in stages)
    evaluations = min(_MOST_EVALUATIONS, max(_LEAST_EVALUATIONS, steps // 20))
    patience = math.ceil(_PATIENT * evaluations)
    return Settings(
        stages=stages,
        batch_size=batch,
        micro_batches=micro,
        muon=muon,
        weight_decay=decay,
        flip=flip,
        policy=policy,
        auto_augment=auto_augment,
        buckets=buckets,
        workers=workers,
        dtype=dtype,
        evaluations=evaluations,
        patience=patience,
        minutes=trained.minutes,
        table=(
            trained.what,
            *batch_rows,
            Choice(
                "learning rate",
                " then ".join(f"{stage.learning_rate:g}" for stage in stages),
                _rate_why(model, batch, start) if not muon else "for Muon; ten times as high for the layers' matrices",
            ),
            Choice("optimizer", *(_MUON if muon else _ADAMW)),
            Choice("schedule", "warm-up 10 %, cosine to 0", "as in the paper's fine-tuning"),
            Choice("epochs", f"{length:g}", trained.epochs_why),
            Choice("weight decay", f"{decay:g}", "the paper's" if decay < 0.1 else "few pairs, or a weak start"),
            flip_row,
            *([] if slow else [_augmentation(policy, auto_augment, data)]),
            Choice(
                "text length",
                f"{' or '.join(map(str, lengths))} tokens",
                f"95 % of the captions have at most {data.usual} tokens",
            ),
            Choice(
                "stops early",
                f"after {patience} evaluations without improvement, of {evaluations}",
                "the checkpoint with the best mean recall on the validation split is kept",
            ),
            Choice("arithmetic", dtype, f"for {machine.devices} x {machine.platform}"),
            Choice(
                "time",
                f"about {format_duration(60 * trained.minutes)}",
                f"estimated at {machine.rate / 1e9:,.0f} GFLOP/s, a third of what a matrix product reaches; "
                "compilation and evaluation come on top",
            ),
        ),
    )


class _Trained(NamedTuple):
    """Stages that fit into the time, the choice that explains them, and the reason for their epochs."""

    stages: tuple[StageSettings, ...]
    cached: bool
    what: Choice
    epochs_why: str
    minutes: float


def _trained(
    data: DataFacts, model: ModelFacts, machine: Machine, start: Start, wishes: Wishes, rate: float
) -> _Trained:
    whole, text_alone = _operations(data, model, image=True), _operations(data, model, image=False)
    epochs = wishes.epochs or float(epochs_of(data.pairs))
    limit = wishes.minutes or (_CPU_MINUTES if machine.platform == "cpu" else math.inf)

    def minutes(operations: float, length: float) -> float:
        return operations * length * data.pairs / machine.rate / 60

    good = start.skill >= GOOD
    knows = f"the starting model's mean recall is {start.recall:.1%}, chance {start.chance:.1%}"
    slow = minutes(whole, epochs) > limit and minutes(whole, 3) > limit
    if slow:
        stages = [StageSettings("text-alone", image=False, epochs=epochs, learning_rate=rate, cached=True)]
        what = "text tower; image tower frozen"
        long = format_duration(60 * minutes(whole, 3))
        why = f"three epochs of both towers would take {long}; image features are computed once"
    elif good and data.pairs < FEW:
        stages = [
            StageSettings("image-frozen", image=False, epochs=epochs / 2, learning_rate=rate),
            StageSettings("everything", image=True, epochs=epochs / 2, learning_rate=float(f"{rate / 5:.1e}")),
        ]
        what = "text tower, then everything at a fifth of the rate"
        why = f"{knows}: {data.pairs:,} pairs could harm a good image tower (the paper's two stages)"
    else:
        stages = [StageSettings("everything", image=True, epochs=epochs, learning_rate=rate)]
        what = "everything"
        why = f"{knows}: {'enough pairs to train everything' if good else 'it must learn these images from scratch'}"
    cost = text_alone if slow else whole
    fits = limit / minutes(cost, 1)
    if fits < epochs:
        factor = max(fits, 1.0) / epochs
        stages = [replace(stage, epochs=round(stage.epochs * factor, 2)) for stage in stages]
    if wishes.epochs:
        epochs_why = "as given"
    elif fits < epochs:
        epochs_why = f"fits into {limit:g} minutes; the usual number for {data.pairs:,} pairs is {epochs:g}"
    else:
        epochs_why = f"20 for 20,000 pairs, more for fewer pairs; there are {data.pairs:,}"
    length = sum(stage.epochs for stage in stages)
    return _Trained(tuple(stages), slow, Choice("trains", what, why), epochs_why, minutes(cost, length))


_MUON = (
    "Muon",
    "a small, weak starting model: in trials, mean recall 66 to 81 after 60 epochs; with AdamW 63 to 81 after 100",
)
_ADAMW = ("AdamW", "the paper's")


def _check(wishes: Wishes, data: DataFacts, machine: Machine) -> None:
    for name, value in (("epochs", wishes.epochs), ("minutes", wishes.minutes)):
        if value is not None and not 0 < value < math.inf:
            raise JclipError(f"--{name} {value:g} is not possible: give a number above 0")
    if wishes.batch_size is not None:
        if not 2 <= wishes.batch_size <= data.pairs:
            raise JclipError(
                f"--batch-size {wishes.batch_size} is not possible with {data.pairs:,} pairs to train on: give 2 to "
                f"{data.pairs:,}"
            )
        if wishes.batch_size % machine.devices:
            raise JclipError(
                f"--batch-size {wishes.batch_size} cannot be split over {machine.devices} devices: give a multiple"
            )


def _batch(
    data: DataFacts, model: ModelFacts, machine: Machine, wishes: Wishes, dtype: str
) -> tuple[int, int, list[Choice]]:
    """Returns the batch size, micro-batches, and the choices that explain them.

    The run decides by itself, on its devices, how much it recomputes (`remat` "auto").
    """
    # float32 parameters, gradients and AdamW's two slots, replicated on each device.
    state, times = 16 * model.parameters, 2 if dtype == "float32" else 1
    a_pair = times * (model.image.kept + model.text.kept)
    room = machine.memory - state
    fits, recomputed = int(room // a_pair), False
    if fits < 16 and model.image.layers:
        # With rematerialisation a layer keeps its input, and one layer at a time its activations.
        deepest = max(model.image.layers, model.text.layers)
        a_pair, recomputed = 2 * a_pair // deepest, True
        fits = int(room // a_pair)
    if fits < 1:
        raise JclipError(
            f"the model needs {format_size(state + a_pair)} of memory on each device, which has "
            f"{format_size(machine.memory)} ({machine.memory_from}): use a smaller bundle, or another machine"
        )
    fits = _power_of_two(min(fits, _LARGEST_BATCH))
    by_data = _power_of_two(max(2, data.pairs // _LEAST_STEPS_AN_EPOCH)) // machine.devices * machine.devices
    goal = min(_LARGEST_BATCH, max(_SMALLEST_GOAL, fits * machine.devices))
    if model.has_statistics:
        goal = min(_LARGEST_BATCH, fits * machine.devices)
    batch = max(min(by_data, goal) // machine.devices * machine.devices, machine.devices, 2)
    why = f"the largest with {_LEAST_STEPS_AN_EPOCH} steps per epoch: a larger batch has more negatives"
    if goal < by_data:
        why = "more is not needed" if goal in (_LARGEST_BATCH, _SMALLEST_GOAL) else "the largest that fits into memory"
    if wishes.batch_size:
        batch, why = wishes.batch_size, "as given"
    if batch > data.pairs:
        raise JclipError(
            f"{data.pairs} pairs cannot be split over {machine.devices} devices: add pairs, or use fewer devices"
        )
    micro = 1
    while (
        batch // machine.devices > fits * micro
        and batch % (2 * micro * machine.devices) == 0
        and not model.has_statistics
    ):
        micro *= 2
    memory = Choice(
        "memory",
        f"at most {fits} pairs at once per device" + (f", so {micro} micro-batches" if micro > 1 else ""),
        f"estimated, not measured: {format_size(state)} for parameters and AdamW, {format_size(a_pair)} a pair, of "
        f"{format_size(machine.memory)} ({machine.memory_from})"
        + (", if activations are recomputed" if recomputed else ""),
    )
    return batch, micro, [Choice("batch", f"{batch}", why), memory]


def _operations(data: DataFacts, model: ModelFacts, *, image: bool) -> float:
    """Computes the FLOPs of training on a pair: 6 per parameter and token (Kaplan et al. 2020, section 2.1).

    A cached image tower costs nothing.
    """
    text = min(data.usual, model.context_length)
    return 6.0 * (model.text.worked * text + (model.image.worked * model.image.tokens if image else 0))


def _buckets(data: DataFacts, model: ModelFacts) -> tuple[int, ...]:
    """Returns the lengths, multiples of 8, into which 95 % and all of the texts fit, if below the context length."""
    lengths = {8 * math.ceil(length / 8) for length in (data.usual, data.longest)}
    return tuple(sorted(length for length in lengths if length < model.context_length))


def _flip(data: DataFacts, cached: bool) -> tuple[float, Choice]:
    if cached:
        return 0.0, Choice("augmentation", "none", "image features are computed once")
    if data.one_way > 0.01:
        share = f"{data.one_way:.0%} of the captions mention left, right or writing, which a flip makes wrong"
        return 0.0, Choice("flip", "no", share)
    return 0.5, Choice("flip", "half of the images", "at most 1% of the captions mention left, right or writing")


def _augmentation(policy: bool, auto_augment: bool, data: DataFacts) -> Choice:
    if not policy:
        why = f"{data.pairs:,} pairs are quickly memorised"
        return Choice("augmentation", "slight: scale, shift, rotation, brightness", why)
    if auto_augment:
        return Choice("augmentation", "crop 90 to 100 %, AutoAugment", "Chinese-CLIP's, for many pairs")
    return Choice(
        "augmentation", "crop 90 to 100 %", f"no AutoAugment: {data.colours:.0%} of the captions name a colour"
    )


def _rate_why(model: ModelFacts, batch: int, start: Start) -> str:
    why = f"5e-5 at Chinese-CLIP B/16's 188 million parameters; this has {model.parameters / 1e6:,.3g} million"
    if batch >= _REFERENCE_BATCH:
        return why
    if start.skill >= 0.5:
        return f"{why}; for a batch below 1,024 lowered in proportion, because the starting model is good"
    return f"{why}; for a batch below 1,024 lowered less, because the starting model is weak" if start.skill else why


def _power_of_two(most: int) -> int:
    return 1 << (most.bit_length() - 1)
