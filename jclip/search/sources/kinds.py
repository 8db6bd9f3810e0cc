"""Kinds of containers."""

from pathlib import Path

from jclip.search.sources.clip_retrieval import ClipRetrieval
from jclip.search.sources.data_folders import DataFolder
from jclip.search.sources.indexes import IndexFolder
from jclip.search.sources.items import Container
from jclip.search.sources.tars import Tar
from jclip.search.sources.text_files import TextFile

KINDS: tuple[type[Container], ...] = (IndexFolder, ClipRetrieval, DataFolder, Tar, TextFile)


def container_at(place: Path, *, nested: bool = False) -> Container | None:
    """Returns the container at a path; None if it is another file or folder.

    With `nested`, only one of a kind that is read within folders.
    """
    try:
        return next((kind(place) for kind in KINDS if (kind.nested or not nested) and kind.recognises(place)), None)
    except OSError:  # a folder whose files may not be looked at; whoever lists it says so
        return None


def container_of(kind: str, place: Path) -> Container | None:
    """Returns the container of a kind by name; None if there is no such kind."""
    return next((each(place) for each in KINDS if each.kind == kind), None)
