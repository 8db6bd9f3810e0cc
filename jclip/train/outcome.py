"""Result of training."""

from dataclasses import dataclass
from pathlib import Path

from jclip.checkpoint import Position


@dataclass(frozen=True)
class Outcome:
    """Result of `train`.

    Attributes:
      finished: True if all stages are done.
      position: position after the last step.
      bundles: folders of the finished stages' bundles.
      signal: signal that stopped the run, received by any process.
      best: folder of the best model's bundle, see `Run.best`.
    """

    finished: bool
    position: Position
    bundles: tuple[Path, ...]
    signal: int | None = None
    best: Path | None = None
