"""XTD (Aggarwal and Kale 2020): 1,000 of COCO's images with a caption in each of 11 languages.

    Cross-lingual-Test-Dataset-XTD10/    or .zip; the repository of that name, also as …-main
      XTD10/test_image_names.txt         COCO_val2014_000000000042.jpg in each line
      XTD10/test_1kcaptions_{en,es,it,ko,pl,ru,tr,zh}.txt, MIC/…_{de,fr}.txt, STAIR/…_jp.txt: one caption per line
    train2014/, val2014/                 COCO's images, or their archives

An image becomes a record with its captions in all available languages; "jp" becomes "ja".
"""

from collections.abc import Mapping
from pathlib import Path

from jclip.data.importing.downloads import Packed, find_download, folder_with
from jclip.data.importing.lines import Line, scan, text_of
from jclip.data.importing.listed import Entry, ListedReader, listed
from jclip.data.importing.named.coco import PARTS, coco_file, coco_pictures
from jclip.data.importing.parts import Reading
from jclip.data.importing.splits import choose_splits
from jclip.data.sources.kinds import PAIRS
from jclip.errors import JclipError

_CODES = {"jp": "ja"}
_STEM = "test_1kcaptions_"


def open_xtd(downloads: Path, reading: Reading) -> Packed:
    """Opens the three downloads. Raises JclipError if one is missing."""
    name = "Cross-lingual-Test-Dataset-XTD10"
    main = [f"{name}-main"] if any(downloads.glob(f"{name}-main*")) else [name]
    lists = find_download(downloads, main[0], "the repository adobe-research/Cross-lingual-Test-Dataset-XTD10")
    choose_splits(lists, ["test"], reading)

    def make(folder: Path, *folders: Path) -> ListedReader:
        return listed({"test": _entries(folder, dict(zip(PARTS, folders, strict=True)))})

    return Packed(PAIRS, (lists, *coco_pictures(downloads)), True, (), make)


def _entries(folder: Path, coco: Mapping[str, Path]) -> list[Entry]:
    file = folder_with(folder, "test_image_names.txt") / "test_image_names.txt"
    names = list(scan(file))
    captions: dict[str, list[tuple[Line, Path]]] = {}
    for texts in sorted(folder.rglob(f"{_STEM}*.txt")):
        code = texts.stem.removeprefix(_STEM)
        found = list(scan(texts))
        if len(found) != len(names):
            raise JclipError(f"{texts} has {len(found)} captions, {file.name} {len(names)} images: fetch it again")
        captions[_CODES.get(code, code)] = [(line, texts) for line in found]
    languages = sorted(captions)
    entries = []
    for number, line in enumerate(names):
        texts_of = tuple(text_of(texts, found) for found, texts in (captions[each][number] for each in languages))
        name, place = text_of(file, line).strip(), f"{file.name}, line {line.number}"
        ids = tuple(number * len(languages) + rank for rank in range(len(languages)))
        entries.append(Entry(place, coco_file(name, coco), number, texts_of, ids, tuple(languages)))
    return entries
