"""The end of a call of `train`."""

from dataclasses import dataclass
from pathlib import Path

from jclip.checkpoint import Position


@dataclass(frozen=True)
class Outcome:
    """End of a call of `train`.

    Attributes:
      finished: whether all stages are done.
      position: where the run stands.
      bundles: of its stages so far.
      best: the bundle of the best model, by `Run.best`; None for none.
      signal: that stopped it, on whichever process it came; None for none.
    """

    finished: bool
    position: Position
    bundles: tuple[Path, ...]
    signal: int | None = None
    best: Path | None = None
