"""Which splits of a source are imported: those that are asked for, or all that have something to teach or to test."""

from collections.abc import Callable, Sequence
from pathlib import Path

from jclip.data.importing.parts import Reading
from jclip.errors import JclipError

USUAL = ("train", "valid", "val", "test")

LeftOut = tuple[tuple[str, str], ...]
"""Splits and files that are there and are not imported, each with the reason."""


def choose_splits(source: Path, there: Sequence[str], reading: Reading) -> tuple[str, ...]:
    """The splits that are asked for: train, valid, test and then others by name.

    Raises:
      JclipError: one is not there.
    """
    for split in reading.splits or ():
        if split not in there:
            raise JclipError(f"{source} has no split {split!r}: choose --splits from {', '.join(there)}")
    ranked = sorted(there, key=lambda split: (USUAL.index(split) if split in USUAL else len(USUAL), split))
    return reading.splits or tuple(ranked)


def others(source: Path, taken: Sequence[Path], reason: str) -> LeftOut:
    """Returns what a folder has beside the files that are taken, hidden files included, as one entry.

    Args:
      source: the folder.
      taken: files in it.
      reason: why the others are not, in short.
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
    """Takes splits without labels out: MUGE's test split has pictures and texts, but not which belong together.

    Args:
      source: for the message.
      splits: that were chosen.
      reading: what the person said.
      blind: whether a split is.

    Returns:
      The splits that stay, and those that do not.

    Raises:
      JclipError: a split that was asked for is blind, or all are.
    """
    dark = [split for split in splits if blind(split)]
    left = tuple(split for split in splits if split not in dark)
    if dark and (reading.splits or not left):
        mend = f"leave it out, with --splits {','.join(left)}" if left else "choose another split"
        raise JclipError(f"{source}: no text of split {dark[0]!r} says which pictures it belongs to: {mend}")
    return left, tuple((split, "none of its texts says which pictures it belongs to") for split in dark)
