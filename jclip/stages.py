"""A stage as data, and what it turns into: which parameters train, and which optimizer slots carry over.

A run is a list of stages over one model. AltCLIP (Chen et al. 2022, section 3) teaches the text tower by CLIP's,
then trains it contrastively with the image tower frozen; Chinese-CLIP (Yang et al. 2022, section 2.2) trains
contrastively with the image tower frozen, then everything. All four are a `Stage` each.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from jclip import rules
from jclip.data.batches.sampling import Captions
from jclip.data.sources import folders, synthetic  # noqa: F401  (register their sources)
from jclip.data.sources.source import Source
from jclip.errors import JclipError
from jclip.images.on_device import Augmentation
from jclip.images.on_host import HostAugmentation
from jclip.losses.contrastive import ContrastiveLoss
from jclip.optimizer import Optimizer

Objective = Literal["contrastive", "teacher"]


@dataclass(frozen=True)
class Budget:
    """How long a stage lasts: exactly one of the three is set; epochs and examples round up to whole batches."""

    steps: int | None = None
    epochs: float | None = None
    examples: int | None = None

    def in_steps(self, batch_size: int, examples_per_epoch: int) -> int:
        """The number of optimizer steps, at least 1.

        Raises:
          JclipError: none or several of the three are set, or the result is no step at all.
        """
        given = [f.name for f in dataclasses.fields(self) if getattr(self, f.name) is not None]
        if len(given) != 1:
            raise JclipError(f"a budget is steps, epochs or examples, exactly one; given: {', '.join(given) or 'none'}")
        if self.steps is not None:
            steps = self.steps
        else:
            examples = self.examples if self.examples is not None else (self.epochs or 0) * examples_per_epoch
            steps = -int(-examples // batch_size)
        if steps < 1:
            raise JclipError(f"a budget of {given[0]}={getattr(self, given[0])} is no step at all: raise it")
        return steps


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
      name: a word for logs and folders.
      objective: "contrastive" over the global batch, or "teacher": mean squared error to a frozen teacher's
        text state.
      data: sources, mixed with their weights; paired ones for "contrastive", parallel text for "teacher".
      batch_size: pairs per step over all devices.
      budget: how long.
      optimizer: update rule, schedule, decay.
      trains: ordered (path regex, bool); the first match wins and every parameter must be matched.
      last_layers: (tower, n), such as ("image", 4): of what `trains` says about this tower's layers, only the last n
        do; the layers below are frozen. The parts around the layers go by `trains` alone.
      frozen_dtype: in which frozen matrices and embeddings are kept; "bfloat16" halves their memory and their share of
        a checkpoint, and costs their last digits: no later stage may train them.
      carries: ordered (path regex, bool): which optimizer slots go on from the stage before; none by default.
      loss: of a contrastive stage: kind, form, and what duplicates are.
      host_augmentation: what is done to training pictures while they are decoded: crop, mirror image, AutoAugment.
      augmentation: what is done to them after that, on the device.
      captions: "one": an example is a record, with one of its captions drawn; "all": each picture with each of its
        captions is an example, as in cn_clip, for which all records are looked through once, at the beginning.
      language_temperature: T: a language comes in proportion to n^(1/T), n being how much there is of it in all data,
        as weighted: 1, the least, as it comes, 5 and more nearly all alike. None: not by language, sources by their
        weights alone.
      context_length: tokens, special ones included.
      buckets: shorter lengths to which a batch may be padded instead, ascending.
      bucket_window: so many steps' examples are sorted into buckets together, so that most batches are short; 1 for no
        sorting. Each process reads all records of a window, so it is for parallel text and for small pictures.
      dropout: whether the text tower's dropout acts.
      patch_dropout: share of each picture's patches that a ViT leaves out (Li et al. 2022, FLIP): 0.5 halves its work.
      micro_batches: in so many parts, one after another, the towers read a batch. The loss is of the whole batch and
        the gradients are the same; the memory of one part is enough, for one more forward pass.
      max_unreadable: so many records and pictures that cannot be read, of all hosts together, are noted and replaced;
        one more is an error. With buckets each host then reads all pictures of a batch, for what replaces one has
        another text.
      cache: a folder for what the frozen tower makes of the data, written once and read instead of running it: the
        teacher's text states (bytes: 4 x width a text), or the image tower's embeddings, which must not train and whose
        pictures must not be augmented. It is keyed by weights, preprocessing and data. Empty for none.
      workers: processes that read, decode and tokenise, on each host; 0 for a thread beside training.
    """

    name: str
    objective: Objective
    data: tuple[Source, ...]
    batch_size: int
    budget: Budget
    optimizer: Optimizer
    trains: tuple[tuple[str, bool], ...] = ((r".*", True),)
    last_layers: tuple[tuple[str, int], ...] = ()
    frozen_dtype: Literal["float32", "bfloat16"] = "float32"
    carries: tuple[tuple[str, bool], ...] = ((r".*", False),)
    loss: ContrastiveLoss = ContrastiveLoss()
    host_augmentation: HostAugmentation = HostAugmentation()
    augmentation: Augmentation = Augmentation()
    captions: Captions = "one"
    language_temperature: float | None = None
    context_length: int = 52
    buckets: tuple[int, ...] = ()
    bucket_window: int = 1
    dropout: bool = True
    patch_dropout: float = 0.0
    micro_batches: int = 1
    max_unreadable: int = 0
    cache: str = ""
    workers: int = 0


def trainable_paths(stage: Stage, paths: Iterable[str]) -> frozenset[str]:
    """The parameters of which a stage trains all layers or some.

    Raises:
      JclipError: a misspelt rule (it matches nothing), a parameter without a rule, or a stage that trains nothing.
    """
    verdict = rules.match(stage.trains, paths, what=f"stage {stage.name!r}: trains")
    chosen = frozenset(path for path, trains in verdict.items() if trains)
    if not chosen:
        raise JclipError(f"stage {stage.name!r} trains nothing: give `trains` a rule whose value is True")
    return chosen


def carried_paths(stage: Stage, paths: Iterable[str]) -> frozenset[str]:
    """The parameters whose optimizer slots a stage would take over from the stage before, trained or not.

    Raises:
      JclipError: a misspelt rule (it matches nothing), or a parameter without a rule.
    """
    verdict = rules.match(stage.carries, paths, what=f"stage {stage.name!r}: carries")
    return frozenset(path for path, goes_on in verdict.items() if goes_on)


def split(params: dict[str, Any], chosen: frozenset[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(trainable, frozen) subtrees of nested parameters.

    Only the first is ever differentiated. A mask inside the optimizer would do for the update, but one global norm
    over all gradients brings the frozen tower's backward pass back (measured: 16 to 29 GFLOP a step).
    """
    leaves = rules.paths_of(params)
    trainable = {path: leaf for path, leaf in leaves.items() if path in chosen}
    frozen = {path: leaf for path, leaf in leaves.items() if path not in chosen}
    return rules.tree_from_paths(trainable), rules.tree_from_paths(frozen)


def merge(trainable: dict[str, Any], frozen: dict[str, Any]) -> dict[str, Any]:
    """The whole parameter tree from its two parts."""
    return rules.tree_from_paths({**rules.paths_of(trainable), **rules.paths_of(frozen)})
