"""Index of a source's lines or rows, in files that workers map into memory."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

_HEADER = 128  # bytes of a .npy file before its numbers


class Index:
    """Columns of int64 in memory-mapped files, NAME.npy each, of a folder."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._columns: dict[str, np.ndarray] = {}

    @classmethod
    def made(cls, folder: Path, make: Callable[[], dict[str, np.ndarray]]) -> "Index":
        """Opens the index that an interrupted import left in a folder, or makes one of the columns from `make`."""
        if not folder.is_dir():
            partial = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            for name, column in make().items():
                np.save(partial / f"{name}.npy", np.asarray(column, np.int64))
            partial.rename(folder)
        return cls(folder)

    def __getitem__(self, name: str) -> np.ndarray:
        """Returns a column."""
        if name not in self._columns:
            file = self._folder / f"{name}.npy"
            # An empty file cannot be mapped.
            self._columns[name] = np.load(file, mmap_mode="r" if file.stat().st_size > _HEADER else None)
        return self._columns[name]

    def rows(self, name: str, value: int) -> range:
        """Returns the rows with a value in a sorted column."""
        column = self[name]
        return range(int(np.searchsorted(column, value)), int(np.searchsorted(column, value, side="right")))
