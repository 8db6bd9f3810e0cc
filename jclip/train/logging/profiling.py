"""A profile of chosen steps, for XProf, TensorBoard and Perfetto."""

from pathlib import Path

import jax


class Profiler:
    """Records `count` steps from the run's step `first` on, into WORKDIR/profile; nothing when count is 0."""

    def __init__(self, folder: Path, first: int, count: int):
        self._folder, self._first, self._last = folder, first, first + count
        self._running = False

    def before(self, total: int) -> None:
        """Called before a step, `total` steps being done."""
        if self._last > self._first == total:
            self._folder.mkdir(parents=True, exist_ok=True)
            jax.profiler.start_trace(str(self._folder))
            self._running = True

    def after(self, total: int, result: jax.Array) -> None:
        """Called after a step, with something that it computed: the profile is not closed before that is there."""
        if self._running and total == self._last:
            jax.block_until_ready(result)
            self.close()

    def close(self) -> None:
        """Ends a profile that is under way."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
