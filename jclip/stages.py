"""Configuration of a stage, and the base class of objectives.

A run is a list of stages over one model. AltCLIP (Chen et al. 2022, section 3) distils CLIP's text tower into a new
one, then trains that contrastively with the image tower frozen. Chinese-CLIP (Yang et al. 2022, section 2.2) trains
contrastively with the image tower frozen, then trains both towers. Each of these four is a `Stage`.

jclip has two objectives, in `jclip.train.objectives`. Another package adds one by subclassing `Objective` with a frozen
dataclass and decorating it with `@kind_of(Objective)`.

Axes: b global batch.
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jax
import numpy as np

from jclip.data.batches.loader import Batches
from jclip.data.batches.opened import OpenSources
from jclip.data.inspecting.reading import SourceFacts
from jclip.data.sources import folders, synthetic  # noqa: F401  (register their sources)
from jclip.data.sources.records import Record
from jclip.data.sources.source import Source
from jclip.errors import JclipError
from jclip.images.preprocess import Preprocessing
from jclip.marks import Free
from jclip.models.dual_encoder import DualEncoder, DualEncoderConfig
from jclip.optimizer import Optimizer
from jclip.parallel.sharding import batch_sharding
from jclip.ranges import AtLeastOne, Count, Positive, Range

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
Constants = dict[str, Any]
"""Arrays that a step only reads, such as a teacher's parameters. In a closure, XLA would compile them as literals."""
Loss = Callable[[dict[str, Any], dict[str, Any], Constants, Batch, jax.Array], tuple[jax.Array, tuple[Metrics, Any]]]
"""(params, statistics, constants, batch, key) -> loss, (metrics, new statistics)."""
Figure = tuple[str, str, str]
"""Metric, its short name in progress, and its format: ("cosine", "cosine", ".3f")."""
TextLength = Annotated[int, Range(3, math.inf, words="3 or more: two are for the special tokens")]
_Temperature = Annotated[float, Range(1, math.inf, words="1 or more: below 1 rare languages would be rarer still")]
MakeBatches = Callable[..., Batches]
"""make(examples, **options): `Batches` with the stage's own arguments filled in.

`examples(sources, decoder)` returns the objective's `Examples`; `decoder(host_augmentation)` returns
a `Decoder` of the stage."""


@dataclass(frozen=True)
class Program:
    """Computation of an objective in one stage on one mesh.

    Attributes:
      loss: pure function that a step differentiates.
      batch: {name: shape, dtype and sharding} of a full-length batch.
      constants: nested shapes, dtypes and shardings of the constants.
    """

    loss: Loss
    batch: dict[str, jax.ShapeDtypeStruct]
    constants: Constants = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class FrozenTower:
    """A frozen tower whose outputs can be cached.

    Attributes:
      name: prefix of the cache's folder.
      variables: parameters and statistics, on the mesh.
      apply: (variables, rows (b, ...)) -> features (b, d).
      read: (open sources, indices of source, record and image) -> one row; raises JclipError if it is unreadable.
      blank: row that replaces an unreadable one.
      description: JSON-ready facts on which the features depend, besides weights and data.
    """

    name: str
    variables: Any
    apply: Callable[[Any, jax.Array], jax.Array]
    read: Callable[[OpenSources, int, int, int], np.ndarray]
    blank: np.ndarray
    description: dict[str, Any]


class Objective(ABC):
    """Objective of a stage: its data, its checks and its loss.

    Implementations are frozen dataclasses decorated with `@kind_of(Objective)`. They need `title`, `reads`, `program`
    and `batches`; the other methods have defaults.

    Attributes:
      title: short name for tables and charts.
      reads: class of the records that the stage's sources must have: `Pair`, `Translation`, or another `Record`.
      caches: True if it has a `frozen_tower`, so that `Stage.cache` may be set.
      figures: those of its metrics that progress shows.
    """

    title: ClassVar[str]
    reads: ClassVar[type[Record]]
    caches: ClassVar[bool] = False
    figures: ClassVar[tuple[Figure, ...]] = ()

    @abstractmethod
    def program(self, context: "Context") -> Program:
        """Builds the loss and the shapes of its inputs. Reads no files: a plan calls this too.

        The loss itself applies `stage.micro_batches` (`jclip.train.in_micro_batches`) and `stage.dropout`.
        """

    def check(  # noqa: B027 (no check by default)
        self, stage: "Stage", model: DualEncoderConfig, trains: frozenset[str]
    ) -> None:
        """Checks the stage against the model; `trains` has the paths of the parameters that train.

        Raises JclipError if the stage cannot run. The message names the field and the correction.
        """

    def check_data(self, stage: "Stage", facts: Sequence[SourceFacts]) -> list[str]:
        """Checks a sample of each source and returns warnings. Raises JclipError if nothing can be learned from it."""
        return []

    def open(self) -> Any:
        """Loads the objective's own files, such as a teacher's bundle. Every process calls it once.

        Raises JclipError if a file is missing or does not fit.
        """
        return None

    @abstractmethod
    def batches(self, make: MakeBatches, opened: Any) -> Batches:
        """Builds the stage's batches; `opened` is the result of `open`."""

    def constants(self, opened: Any, program: Program) -> Constants:
        """Returns the arrays of `program.constants`, placed on the mesh."""
        return {}

    def frozen_tower(
        self, context: "Context", opened: Any, params: dict[str, Any], stats: dict[str, Any]
    ) -> FrozenTower:
        """Returns the tower whose outputs `Stage.cache` keeps; `params` and `stats` are the model's, on the mesh."""
        raise NotImplementedError(f"{type(self).__name__} has caches=True, but no frozen_tower")

    def reduced(self, folder: Path) -> "Objective":
        """Returns this objective for the small towers of `--reduced`; it may write files into `folder`."""
        return self


@dataclass(frozen=True)
class Budget:
    """Length of a stage: set exactly one of the three. Epochs and examples are rounded up to whole batches.

    Attributes:
      steps: number of optimizer steps.
      epochs: passes over the data.
      examples: number of examples.
    """

    steps: AtLeastOne | None = None
    epochs: Positive | None = None
    examples: AtLeastOne | None = None

    def in_steps(self, batch_size: int, examples_per_epoch: int) -> int:
        """Returns the number of optimizer steps. Raises JclipError if not exactly one of the three is set."""
        given = [f.name for f in dataclasses.fields(self) if getattr(self, f.name) is not None]
        if len(given) != 1:
            raise JclipError(
                f"budget: give exactly one of steps, epochs and examples, not {', '.join(given) or 'none'}"
            )
        if self.steps is not None:
            return self.steps
        examples = self.examples if self.examples is not None else (self.epochs or 0) * examples_per_epoch
        return -int(-examples // batch_size)


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
      name: name in logs and folders.
      objective: `Contrastive`, `TeacherLearning`, or one of your own.
      data: sources, mixed by their weights: images with captions or parallel text, depending on the objective.
      batch_size: pairs per step over all devices.
      trains: ordered (path regex, bool); the first match wins and every parameter must be matched.
      last_layers: (tower, n), such as ("image", 4): trains only the last n layers of the tower. All other parameters
        follow `trains`.
      language_temperature: T of temperature sampling: a language of n examples has a share proportional to n^(1/T).
        1 keeps the languages' own shares; 5 and more makes them nearly equal. None: sources by their weights alone.
      context_length: maximum number of tokens, special ones included.
      buckets: shorter lengths to which a batch may be padded instead, ascending.
      bucket_window: number of steps whose examples are sorted into buckets together, so that most batches are short; 1
        for no sorting. Each process then reads all records of a window, so use it with parallel text or small images.
      dropout: enables the text tower's dropout.
      micro_batches: number of parts in which the towers encode a batch. The loss is over the whole batch and gradients
        are exact. Memory holds the activations of one part at a time; the cost is a second forward pass.
      max_unreadable: maximum number of unreadable records, over all hosts. They are logged and replaced; one more
        raises an error. With buckets each host then reads all images of a batch, as a replacement changes the text.
      cache: folder for the outputs of the objective's frozen tower: written once, then read instead of running it.
        Keyed by weights, preprocessing and data. Empty for none.
      workers: number of processes on each host that read, decode and tokenise; 0 for a thread of the training process.
    """

    name: str
    objective: Objective
    data: tuple[Source, ...]
    batch_size: Annotated[int, Range(2, math.inf, words="2 or more: a pair alone has no negatives")]
    budget: Budget
    optimizer: Optimizer
    trains: tuple[tuple[str, bool], ...] = ((r".*", True),)
    last_layers: tuple[tuple[str, int], ...] = ()
    language_temperature: _Temperature | None = None
    context_length: TextLength = 52
    buckets: tuple[AtLeastOne, ...] = ()
    bucket_window: AtLeastOne = 1
    dropout: bool = True
    micro_batches: Free[AtLeastOne] = 1
    max_unreadable: Free[Count] = 0
    cache: Free[str] = ""
    workers: Free[Count] = 0


@dataclass(frozen=True)
class Context:
    """Facts about a stage from which an objective builds its program.

    Attributes:
      towers: module of the model, in the run's dtype.
      trains: paths of the parameters that train, as the stage holds them.
    """

    stage: Stage
    towers: DualEncoder
    preprocessing: Preprocessing
    trains: frozenset[str]
    mesh: jax.sharding.Mesh

    def rows(self, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        """Returns the shape (b, *shape) of one array of a batch, split over the mesh."""
        return jax.ShapeDtypeStruct((self.stage.batch_size, *shape), dtype, sharding=batch_sharding(self.mesh))
