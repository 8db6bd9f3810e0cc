"""Groups tests by the place for which they compile. One worker runs a group, so only it starts the place's compiler."""

from typing import Any

import pytest


def at(place: str, *values: Any) -> Any:
    """Returns values for `pytest.mark.parametrize`, by default the place's name. Their tests are of its group."""
    return pytest.param(*(values or (place,)), marks=pytest.mark.xdist_group(place))
