"""A barrier for writers in the background, which one of them that fails can break.

Orbax's own barrier waits 20 minutes for a process whose disk is full.
"""

import itertools
import time

import jax

from jclip.errors import JclipError
from jclip.parallel.processes import alone, client, count, index

_ROOT = "jclip/saving"
_TURN = 1.0  # seconds between two looks at who failed
_numbers = itertools.count()
_places: list[str] = []  # of the barriers so far whose words are still held, the newest last


def barrier(*, key: str, timeout_ms: int) -> None:
    """Waits until all processes have come, as orbax's `BarrierSyncFn`; called in one order by one thread of each.

    Raises:
      JclipError: a process failed instead of coming.
      TimeoutError: not all have come.
    """
    if alone():
        return
    place = f"{_ROOT}/{next(_numbers)}"
    _places.append(place)
    until = time.monotonic() + timeout_ms / 1000
    client().key_value_set(f"{place}/here/{index():06}", "")
    while not _all_here(place):
        if failed := [words for _, words in client().key_value_dir_get(f"{_ROOT}/failed/")]:
            raise JclipError(failed[0])
        if time.monotonic() > until:
            raise TimeoutError(f"not all processes have come to {key}")
    if index() == 0:
        client().key_value_set(f"{place}/all", "")
        while len(_places) > 2:  # all have left those
            client().key_value_delete(f"{_places.pop(0)}/")


def tell_failure(words: str) -> None:
    """Tells the others that this process cannot write its share: their barriers raise."""
    if not alone():
        client().key_value_set(f"{_ROOT}/failed/{index():06}", words, allow_overwrite=True)


def _all_here(place: str) -> bool:
    if index() == 0:
        if len(client().key_value_dir_get(f"{place}/here/")) == count():
            return True
        time.sleep(_TURN / 20)
        return False
    try:
        client().blocking_key_value_get(f"{place}/all", int(1000 * _TURN))
    except jax.errors.JaxRuntimeError as error:
        if "DEADLINE_EXCEEDED" not in str(error):
            raise
        return False
    return True
