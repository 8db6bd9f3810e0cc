"""Limits of folders of the cache. The least recently used files are removed first."""

from contextlib import suppress
from pathlib import Path


def files_by_use(folder: Path) -> list[tuple[float, int, Path]]:
    """Returns (time of the last use, size, file) of all files in a folder, at any depth, sorted."""
    found = []
    for file in folder.rglob("*"):
        with suppress(OSError):  # another process has removed it
            status = file.stat()
            if file.is_file():
                found.append((max(status.st_atime, status.st_mtime), status.st_size, file))
    return sorted(found)


def limit(folder: Path, largest: int, most: int) -> None:
    """Removes the least recently used files until at most `most` files remain, with at most `largest` bytes."""
    found = files_by_use(folder)
    total, count = sum(size for _, size, _ in found), len(found)
    for _, size, file in found:
        if total <= largest and count <= most:
            return
        with suppress(OSError):
            file.unlink()
        total, count = total - size, count - 1
