"""Open sources of a stage, with their names for messages."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jclip.data.sources.folders import Records
from jclip.data.sources.source import Source
from jclip.errors import JclipError
from jclip.images.preprocess import Picture, Preprocessing


@dataclass(frozen=True)
class OpenSources:
    """Sources of one record kind, as configured, and the records of each."""

    sources: Sequence[Source]
    records: Sequence[Sequence[Any]]

    def picture_name(self, source: int, record: int, picture: Picture) -> str:
        """Returns the name of an image for messages: its file, or its record with shard and index."""
        given, records = self.sources[source], self.records[source]
        if isinstance(picture, str | Path):
            name = str(picture)
        else:
            name = f"the image of record {record}{records.where(record) if isinstance(records, Records) else ''}"
        return f"{getattr(given, 'folder', given)}: {name}"


def open_sources(sources: Sequence[Source], preprocessing: Preprocessing) -> OpenSources:
    """Opens the sources of a stage.

    Raises JclipError if there is none, their kinds differ, or one is empty, cannot be opened or has no weight.
    """
    if not sources:
        raise JclipError("there is no data: give the stage at least one source")
    kinds = list(dict.fromkeys(source.gives for source in sources))
    if len(kinds) > 1:
        raise JclipError(f"{' and '.join(kind.called() for kind in kinds)} do not mix in one stage: make it two stages")
    opened = [source.open(preprocessing) for source in sources]
    for source, records in zip(sources, opened, strict=True):
        if not len(records):
            raise JclipError(f"{source} is empty: name another source or split")
        if not source.weight > 0:
            raise JclipError(f"{source}: weight is {source.weight}; set it above 0, or remove the source")
    return OpenSources(sources, opened)
