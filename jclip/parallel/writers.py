"""A barrier for background writers that a failed writer can break.

Orbax's own barrier waits 20 minutes for a process whose disk is full.
"""

import itertools
import time

import jax

from jclip.errors import JclipError
from jclip.internals import coordination_client, process_count, process_index
from jclip.parallel.processes import is_single_process

_ROOT = "jclip/saving"
_POLL_SECONDS = 1.0
_numbers = itertools.count()
_prefixes: list[str] = []  # barriers whose keys are not deleted yet, the newest last


def writers_barrier(*, key: str, timeout_ms: int) -> None:
    """Waits for the writers of all processes: orbax's `BarrierSyncFn`, called by one thread of each process.

    Raises JclipError if a writer failed, and TimeoutError if a process did not arrive in time.
    """
    if is_single_process():
        return
    prefix = f"{_ROOT}/{next(_numbers)}"
    _prefixes.append(prefix)
    until = time.monotonic() + timeout_ms / 1000
    coordination_client().key_value_set(f"{prefix}/here/{process_index():06}", "")
    while not _is_complete(prefix):
        if failed := [words for _, words in coordination_client().key_value_dir_get(f"{_ROOT}/failed/")]:
            raise JclipError(failed[0])
        if time.monotonic() > until:
            raise TimeoutError(f"not all processes have reached {key}")
    if process_index() == 0:
        coordination_client().key_value_set(f"{prefix}/all", "")
        while len(_prefixes) > 2:  # all processes have passed the older barriers
            coordination_client().key_value_delete(f"{_prefixes.pop(0)}/")


def break_barriers(words: str) -> None:
    """Reports that this process cannot write its share, so that the other processes' barriers raise `words`."""
    if not is_single_process():
        coordination_client().key_value_set(f"{_ROOT}/failed/{process_index():06}", words, allow_overwrite=True)


def _is_complete(prefix: str) -> bool:
    """Returns whether all processes have arrived, after waiting for at most `_POLL_SECONDS`."""
    client = coordination_client()
    if process_index() == 0:
        if len(client.key_value_dir_get(f"{prefix}/here/")) == process_count():
            return True
        time.sleep(_POLL_SECONDS / 20)
        return False
    try:
        client.blocking_key_value_get(f"{prefix}/all", int(1000 * _POLL_SECONDS))
    except jax.errors.JaxRuntimeError as error:
        if "DEADLINE_EXCEEDED" not in str(error):
            raise
        return False
    return True
