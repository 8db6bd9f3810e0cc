"""Chooses the splits to import: those asked for, or all that can train or test."""

from collections.abc import Callable, Sequence
from pathlib import Path

from jclip.data.importing.parts import Reading
from jclip.errors import JclipError

USUAL = ("train", "valid", "val", "test")

LeftOut = tuple[tuple[str, str], ...]
"""Splits and files that are not imported, each with the reason."""


def choose_splits(source: Path, there: Sequence[str], reading: Reading) -> tuple[str, ...]:
    """Returns the splits that were asked for, or all: train, valid, test, then others by name.

    Raises:
      JclipError: one does not exist.
    """
    for split in reading.splits or ():
        if split not in there:
            raise JclipError(f"{source} has no split {split!r}: choose --splits from {', '.join(there)}")
    ranked = sorted(there, key=lambda split: (USUAL.index(split) if split in USUAL else len(USUAL), split))
    return reading.splits or tuple(ranked)


def others(source: Path, taken: Sequence[Path], reason: str) -> LeftOut:
    """Returns the files of a folder that are not read, hidden ones included, as one entry.

    Args:
      source: the folder.
      taken: files that are read.
      reason: short reason why the others are not.
    """
    known = set(taken)
    left = sorted(each.name for each in source.iterdir() if each not in known)
    if not left:
        return ()
    shown = f"{', '.join(left[:3])}{', …' if len(left) > 3 else ''}"
    return ((f"{len(left):,} other(s) in {source.name}", f"{reason}: {shown}"),)


def leave_out_blind(
    source: Path, splits: tuple[str, ...], reading: Reading, blind: Callable[[str], bool]
) -> tuple[tuple[str, ...], LeftOut]:
    """Leaves out splits without labels. MUGE's test split does not say which texts belong to which pictures.

    Args:
      source: for the message.
      splits: chosen splits.
      reading: the user's options.
      blind: returns True for a split without labels.

    Returns:
      The splits that stay, and those that are left out.

    Raises:
      JclipError: a split that was asked for has no labels, or all lack them.
    """
    dark = [split for split in splits if blind(split)]
    left = tuple(split for split in splits if split not in dark)
    if dark and (reading.splits or not left):
        mend = f"leave it out, with --splits {','.join(left)}" if left else "choose another split"
        raise JclipError(f"{source}: no text of split {dark[0]!r} says which pictures it belongs to: {mend}")
    return left, tuple((split, "none of its texts says which pictures it belongs to") for split in dark)
