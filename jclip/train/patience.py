"""Early stopping: a stage ends when it has not become better for some evaluations."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def is_spent(patience: int, figure: str, stage: str, total: int, records: Sequence[Mapping[str, Any]]) -> bool:
    """Returns whether a stage was just evaluated, and its last `patience` evaluations are no better than one before.

    Args:
      patience: 0 for never.
      figure: that is compared; higher is better.
      stage: name of the stage that is under way.
      total: steps of the run so far.
      records: of the run's journal, in order.
    """
    if not patience:
        return False
    found = [
        (record["total"], record[figure])
        for record in records
        if (record["kind"], record.get("stage")) == ("evaluation", stage) and figure in record
    ]
    values = [value if np.isfinite(value) else -np.inf for _, value in found]
    now = bool(found) and found[-1][0] == total
    return now and len(values) > patience and max(values[-patience:]) <= max(values[:-patience])
