"""Crossmodal-3600 (Thapliyal et al. 2022): 3,600 images with captions in 36 languages.

    captions.zip with captions.jsonl, or captions.jsonl    lines of {"image/key": …, "zh": {"caption": ["…", …], …}, …}
    images.tgz, or a folder images                          KEY.jpg

An image becomes a record with its captions in all languages.
"""

from pathlib import Path
from typing import Any

from jclip.data.importing.downloads import Packed, find_download, folder_with
from jclip.data.importing.lines import object_of, scan
from jclip.data.importing.listed import Entry, ListedReader, listed
from jclip.data.importing.parts import Reading
from jclip.data.importing.splits import choose_splits
from jclip.data.sources.kinds import PAIRS
from jclip.errors import JclipError

_FROM = "google.github.io/crossmodal-3600"


def open_crossmodal(downloads: Path, reading: Reading) -> Packed:
    """Opens the two downloads. Raises JclipError if one is missing."""
    plain = downloads / "captions.jsonl"
    captions = plain if plain.is_file() else find_download(downloads, "captions", _FROM)
    pictures = find_download(downloads, "images", _FROM)
    choose_splits(downloads, ["test"], reading)

    def make(lists: Path, folder: Path) -> ListedReader:
        file = lists if lists.is_file() else folder_with(lists, "captions.jsonl") / "captions.jsonl"
        return listed({"test": _entries(file, folder)})

    return Packed(PAIRS, (captions, pictures), True, (), make)


def _entries(file: Path, folder: Path) -> list[Entry]:
    entries: list[Entry] = []
    first: dict[str, int] = {}
    root = None
    texts = 0
    for line in scan(file):
        fields, place = object_of(file, line, ("image/key",)), f"{file.name}, line {line.number}"
        key = fields["image/key"]
        if not isinstance(key, str) or first.setdefault(key, line.number) != line.number:
            wrong = f"{key[:40]!r} is in line {first[key]} too" if isinstance(key, str) else "is not a string"
            raise JclipError(f"{place}: image/key {wrong}: fetch the file again")
        name = f"{key}.jpg"
        root = root or folder_with(folder, name)
        found = [
            (language, caption)
            for language, value in sorted(fields.items())
            if isinstance(value, dict)
            for caption in _captions(value, f"{place}, {language!r}")
        ]
        ids = tuple(range(texts, texts + len(found)))
        texts += len(found)
        captions, languages = tuple(caption for _, caption in found), tuple(language for language, _ in found)
        entries.append(Entry(place, root / name, len(entries), captions, ids, languages))
    return entries


def _captions(value: dict[str, Any], place: str) -> list[str]:
    captions = value.get("caption", [])
    # Iterating over a string would make each letter a caption.
    if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        raise JclipError(f'{place}: "caption" must be a list of strings: fetch the file again')
    return captions
