"""Chooses the splits to import: those asked for, or all that can train or test."""

from collections.abc import Callable, Sequence
from pathlib import Path

from jclip.data.importing.parts import Reading
from jclip.errors import JclipError

USUAL = ("train", "valid", "val", "test")

LeftOut = tuple[tuple[str, str], ...]
"""Splits and files that are not imported, each with the reason."""


def choose_splits(source: Path, present: Sequence[str], reading: Reading) -> tuple[str, ...]:
    """Returns the splits that were asked for, or all: train, valid, test, then others by name.

    Raises JclipError if one does not exist.
    """
    for split in reading.splits or ():
        if split not in present:
            raise JclipError(f"{source} has no split {split!r}: choose --splits from {', '.join(present)}")
    ranked = sorted(present, key=lambda split: (USUAL.index(split) if split in USUAL else len(USUAL), split))
    return reading.splits or tuple(ranked)


def others(source: Path, taken: Sequence[Path], reason: str) -> LeftOut:
    """Returns a single entry for the files of a folder that are not `taken`, hidden ones included; () without such."""
    known = set(taken)
    left = sorted(each.name for each in source.iterdir() if each not in known)
    if not left:
        return ()
    shown = f"{', '.join(left[:3])}{', …' if len(left) > 3 else ''}"
    return ((f"{len(left):,} other(s) in {source.name}", f"{reason}: {shown}"),)


def choose_labelled(
    source: Path,
    present: Sequence[str],
    reading: Reading,
    files: Callable[[str], Sequence[Path]],
    is_unlabelled: Callable[[str], bool],
) -> tuple[tuple[str, ...], tuple[Path, ...], LeftOut]:
    """Chooses splits as `choose_splits` does, and leaves out those without labels, such as MUGE's test split.

    Returns the chosen splits, their files, and the splits left out. Raises JclipError if a file is missing, a requested
    split has no labels, or no split has labels.

    Args:
      source, present, reading: as for `choose_splits`.
      files: returns the files of a split.
      is_unlabelled: returns True for a split whose texts name no images.
    """
    splits = choose_splits(source, present, reading)
    for file in (file for split in splits for file in files(split)):
        if not file.is_file():
            raise JclipError(f"{file} is missing: fetch it, or choose --splits from {', '.join(present)}")
    unlabelled = [split for split in splits if is_unlabelled(split)]
    left = tuple(split for split in splits if split not in unlabelled)
    if unlabelled and (reading.splits or not left):
        remedy = f"omit it, with --splits {','.join(left)}" if left else "choose another split"
        raise JclipError(f"{source}: no text of split {unlabelled[0]!r} names its images: {remedy}")
    left_out = tuple((split, "none of its texts names its images") for split in unlabelled)
    return left, tuple(file for split in left for file in files(split)), left_out
