"""Data folders of `jclip data import` as containers."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from jclip.data.sources.folders import open_folder, read_split
from jclip.data.sources.kinds import kind_by_features
from jclip.data.sources.records import Labelled, Pair, Translation
from jclip.errors import JclipError
from jclip.images.opening import UNDECODABLE
from jclip.search.entries import TEXT
from jclip.search.sources.items import Container, Content, Item, Lost, Reader, folder_stamp

_MARK = "dataset_info.json"


class DataFolder(Container):
    """Data folder: the images of its pairs or classes, or the texts of its translations, of all splits.

    An item's name is SPLIT/NUMBER, with "english" or "other" for the texts of a translation. Its position counts the
    records of all splits.
    """

    kind: ClassVar[str] = "data"

    @staticmethod
    def recognises(place: Path) -> bool:
        """Returns True for a folder with a dataset_info.json."""
        return (place / _MARK).is_file()

    def stamp(self) -> bytes:
        """Returns a digest of the sizes and times of its files."""
        return folder_stamp(self.place, (file for file in self.place.iterdir() if file.is_file()))

    def items(self) -> Iterator[Item | Lost]:
        """Yields its items. A record that cannot be read is `Lost`. Raises JclipError if the folder is damaged."""
        stamp, mtime_ns = self.stamp(), (self.place / _MARK).stat().st_mtime_ns
        container = self.kind, os.fsencode(self.place)
        position = 0
        splits, classes = self._splits()
        for split, records in splits.items():
            for number in range(len(records)):
                name = f"{split}/{number}"
                try:
                    for end, facts in _facts(records[number], classes):
                        meta = {"split": split, **facts.pop("meta", {})}
                        facts = {"mtime_ns": mtime_ns, "position": position, **facts}
                        yield Item(self.member(name + end), stamp, meta=meta, container=container, **facts)
                except JclipError as error:
                    yield Lost(self.member(name), UNDECODABLE, str(error))
                position += 1

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """Yields the reader of its images, by position."""
        splits, _ = self._splits()

        def content(position: int, size: int) -> Content:
            for records in splits.values():
                if position < len(records):
                    image = _image(records[position])
                    if image is not None:
                        return image
                    break
                position -= len(records)
            raise JclipError(f"{self.place} has no such image any more: run jclip embed with --update")

        yield content

    def _splits(self) -> tuple[Mapping[str, Sequence[Any]], Sequence[str]]:
        """Returns the records of each split, and the names of classes, if there are any."""
        info = open_folder(self.place).info
        kind = kind_by_features(info.features)
        if kind is None:
            raise JclipError(f"{self.place} holds no pairs, parallel text or labelled images: name another folder")
        labels = info.features["labels"].feature.names if "labels" in info.features else ()
        return {split: read_split(self.place, split, kind) for split in info.splits}, labels


def _facts(record: Any, classes: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the end of the name and the facts of each item of a record."""
    if isinstance(record, Translation):
        for name, text, language in (("english", record.english, "en"), ("other", record.other, record.language)):
            if text.strip():
                facts = {"kind": TEXT, "text": text, "size": len(text.encode())}
                yield f"/{name}", {**facts, "meta": {"language": language} if language else {}}
        return
    size = len(image) if (image := _image(record)) is not None else None
    if isinstance(record, Labelled):
        names = [classes[label] for label in record.labels if 0 <= label < len(classes)]
        yield "", {"size": size, "meta": {"classes": names}}
    elif isinstance(record, Pair):
        more = {"captions": list(record.captions)} if len(record.captions) > 1 else {}
        yield "", {"size": size, "text": record.captions[0] if record.captions else None, "meta": more}


def _image(record: Any) -> bytes | None:
    if isinstance(record, Pair):
        found: Any = record.pictures[0]
    else:
        found = record.picture if isinstance(record, Labelled) else None
    return found if isinstance(found, bytes) else None
