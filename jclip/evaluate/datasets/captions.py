"""Reads images with captions, as retrieval tasks.

    pairs.tsv                                   PICTURE<tab>CAPTION lines, paths relative to the file
    FOLDER/test_texts.jsonl, test_imgs.tsv      cn_clip's: {"text_id": 3, "text": "…", "image_ids": [7]}, ID<tab>BASE64
    FOLDER/dataset_info.json, …                 output of `jclip data import`, see `imported`
    table.csv, a.tar, FOLDER/a.jpg, a.txt, …    inputs of `jclip data import`, see `temporary_import`

Captions in several languages are in FOLDER/LANGUAGE, or share one gallery as FOLDER/test_texts.LANGUAGE.jsonl.
"""

import glob
import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import overload

from jclip.data.identity import picture_identity, text_identity
from jclip.data.importing.cn_clip import decode_base64
from jclip.data.importing.lines import LONGEST_PICTURE, Line, integer, scan, text_of
from jclip.errors import JclipError
from jclip.evaluate.cn_clip_files import is_text, json_lines, whole_number, whole_numbers
from jclip.evaluate.datasets.counting import Counted, Counting, Rows
from jclip.evaluate.datasets.duplicates import identities, sizes_of
from jclip.evaluate.datasets.imported import ImportedPairs
from jclip.evaluate.datasets.retrieval_task import RetrievalTask
from jclip.evaluate.datasets.temporary_import import import_temporarily, importable_format
from jclip.evaluate.metrics.positives import Positives
from jclip.images.preprocess import Picture
from jclip.io.reading import TOO_LARGE

_LANGUAGE = re.compile(r"[a-z]{2,3}(-\w+)*")  # BCP 47, simplified


@dataclass(frozen=True)
class Captions:
    """Retrieval tasks of a file or a folder.

    Attributes:
      languages: languages of its captions, sorted; empty if unknown.
      task: returns the task of a language. For "", or a language that the data do not mark: the captions in files
        without a language, or all captions.
    """

    languages: Sequence[str]
    task: Callable[[str], RetrievalTask]


def open_captions(place: Path, split: str = "test", counting: Counting = "joined") -> Captions:
    """Opens the captions in a file or a folder of any of these formats. `split` selects the split of a folder.

    Languages with common images share one `pictures` object. Raises JclipError, with file and line, if no format fits,
    or data are damaged; `Captions.task` may raise it too.
    """
    if importable_format(place) is not None and not _holds(place, split):
        imported = import_temporarily(place, split)
        pairs = ImportedPairs(imported.folder, split, counting)
        languages = ("", *pairs.languages)
        tasks: dict[str, Callable[[], RetrievalTask]] = {each: partial(pairs.task, each) for each in languages}
        return _named(str(place), tasks, imported.left_out, imported.note)
    if place.is_file():
        read = read_cn_clip if place.suffix == ".jsonl" else read_pairs
        return _named(str(place), {"": partial(read, place, counting)})
    if not place.is_dir():
        raise JclipError(f"{place} does not exist: name a file of pairs, or a folder of a data set")
    found: dict[str, Callable[[], RetrievalTask]] = {
        folder.name: partial(_only, folder, split, counting)
        for folder in place.iterdir()
        if _LANGUAGE.fullmatch(folder.name) and _holds(folder, split)
    }
    galleries = cache(TsvPictures)
    for file in place.glob(f"{glob.escape(split)}_texts.*.jsonl"):
        if _has_captions(file):
            found[file.name.split(".")[1]] = partial(read_cn_clip, file, counting, galleries)
    if not found and (place / "dataset_info.json").is_file():
        pairs = ImportedPairs(place, split, counting)
        found = {language: partial(pairs.task, language) for language in pairs.languages}
    return _named(f"{place} ({split})", {"": partial(_only, place, split, counting), **found})


def _named(name: str, tasks: dict[str, Callable[[], RetrievalTask]], left_out: int = 0, note: str = "") -> Captions:
    def task(language: str) -> RetrievalTask:
        found = (tasks.get(language) or tasks[""])()  # the caller may name a language that the data do not
        return replace(found, name=name, language=language, left_out=left_out, note=note)

    return Captions(sorted(filter(None, tasks)), task)


def _holds(folder: Path, split: str) -> bool:
    return (folder / f"{split}_texts.jsonl").is_file() or (folder / "dataset_info.json").is_file()


def _only(place: Path, split: str, counting: Counting) -> RetrievalTask:
    if (place / f"{split}_texts.jsonl").is_file():
        return read_cn_clip(place / f"{split}_texts.jsonl", counting)
    if (place / "dataset_info.json").is_file():
        return ImportedPairs(place, split, counting).task()
    found = sorted(file.name.removesuffix("_texts.jsonl") for file in place.glob("*_texts.jsonl"))
    if found:
        raise JclipError(f"{place} has no split {split!r}: it has {', '.join(found)}; choose one with --split")
    raise JclipError(
        f"{place} holds neither {split}_texts.jsonl with {split}_imgs.tsv, nor an imported data set, nor images with "
        "captions beside them: name another, or convert it with `jclip data import`"
    )


def _has_captions(file: Path) -> bool:
    """Returns whether a file holds captions. cn_clip's .tr.jsonl holds the positives of the images, not Turkish."""
    if file.name.count(".") > 2:
        return False
    return any("text" in found for _, found in islice(json_lines(file), 1))


def read_pairs(file: Path, counting: Counting = "joined") -> RetrievalTask:
    """Reads a task from PICTURE<tab>CAPTION lines.

    If rows are counted as published (see `counting`), each path is an image and each line a caption. Raises JclipError,
    with the line, if the file is missing or empty, or a line is not valid.
    """
    found: list[tuple[int, Path, str]] = []
    for line in scan(file):
        text = text_of(file, line)
        name, tab, caption = text.partition("\t")
        if not tab or not caption.strip():
            raise JclipError(f"{file}, line {line.number}: expected PICTURE<tab>CAPTION, found {text[:60]!r}")
        path = file.parent / name
        if not path.is_file():
            raise JclipError(f"{file}, line {line.number}: there is no image {path}")
        found.append((line.number, path, caption.strip()))
    if not found:
        raise JclipError(f"{file} holds no pair: write lines PICTURE<tab>CAPTION")
    same = _identities([path for _, path, _ in found])
    pictures, captions = Rows[Path](counting), Rows[str](counting)
    pairs = [
        (captions.add(text_identity(caption), number, caption), pictures.add(same[path], path, path))
        for number, path, caption in found
    ]
    counted = Counted(counting, pictures.joined, captions.joined)
    positives = Positives(pairs, len(captions.items), len(pictures.items))
    return RetrievalTask(str(file), pictures.items, captions.items, positives, counted=counted)


def _identities(paths: Sequence[Path]) -> dict[Path, Hashable]:
    """Returns a key for each file; equal files have equal keys. Files of a unique size are not read."""
    files = list(dict.fromkeys(paths))
    several = {size for size, times in Counter(sizes_of(files)).items() if times > 1}
    found = identities(files, several)
    return {file: file if identity is None else identity for file, identity in zip(files, found, strict=True)}


def read_cn_clip(
    texts: Path,
    counting: Counting = "joined",
    open_gallery: "Callable[[Path, Counting], TsvPictures] | None" = None,
) -> RetrievalTask:
    """Reads a task from SPLIT_texts.jsonl (or SPLIT_texts.LANGUAGE.jsonl) and the SPLIT_imgs.tsv beside it.

    A text with empty `image_ids`, as in a test with secret answers, is encoded but not scored. If all are empty, rows
    are counted as published, because the test's server expects a prediction for each id.

    `open_gallery` opens the file of images; a caching one lets languages share them. Raises JclipError if a file is
    missing or damaged, an id is ambiguous or not an integer, or a text's image is missing.
    """
    lines: dict[int, tuple[str, str, list[int]]] = {}
    for place, found in json_lines(texts):
        number, text = whole_number(place, found, "text_id"), found.get("text")
        if not is_text(text):
            raise JclipError(f"{place}: 'text' is {text!r}, but must be a caption")
        ids = whole_numbers(place, found, "image_ids")
        if lines.setdefault(number, (place, text, ids))[1:] != (text, ids):
            raise JclipError(f"{place}: text_id {number} has another text above: give each its own number")
    if not any(ids for _, _, ids in lines.values()):
        counting = "published"
    split = texts.name.partition("_texts.")[0]
    gallery = (open_gallery or TsvPictures)(texts.with_name(f"{split}_imgs.tsv"), counting)
    if not lines:
        raise JclipError(f"{texts} holds no caption: write one object a line")
    captions = Rows[tuple[int, str]](counting)
    pairs = []
    for number, (place, text, ids) in lines.items():
        row = captions.add(text_identity(text), number, (number, text))
        for one in ids:
            if one not in gallery.rows:
                raise JclipError(f"{place}: text {number} belongs to image {one}, which is not in {gallery.file}")
            pairs.append((row, gallery.rows[one]))
    return RetrievalTask(
        name=str(texts),
        pictures=gallery,
        captions=[text for _, text in captions.items],
        positives=Positives(pairs, len(captions.items), len(gallery)),
        image_ids=gallery.ids,
        text_ids=[number for number, _ in captions.items],
        counted=Counted(counting, gallery.joined, captions.joined),
    )


class TsvPictures(Sequence[Picture]):
    """Images of a file of ID<tab>BASE64 lines, standard or URL-safe, read on access. Equal lines count once.

    Raises JclipError if the file is missing or empty, a line is not valid, or an id has two images.

    Attributes:
      file: the file.
      ids: ids of the images, in the file's order; the first id of duplicates.
      rows: row of each id of the file.
      joined: number of duplicates.
    """

    def __init__(self, file: Path, counting: Counting = "joined"):
        self.file, self.rows = file, dict[int, int]()
        known: dict[int, int] = {}
        rows = Rows[tuple[int, int, int]](counting)  # (id, byte, line)
        for line in scan(file, longest=LONGEST_PICTURE):
            if not line.data.strip():
                continue
            number = self._id(line)
            # Damaged base64 raises an error on access, with its line.
            identity = picture_identity(_decoded(line) or line.data)
            if known.setdefault(number, identity) != identity:
                raise JclipError(
                    f"{file}, line {line.number}: image {number} is another one above: give each its own id"
                )
            self.rows[number] = rows.add(identity, number, (number, line.offset, line.number))
        self.ids = [number for number, _, _ in rows.items]
        self.joined = rows.joined
        self._places = [(offset, number) for _, offset, number in rows.items]
        if not self.ids:
            raise JclipError(f"{file} holds no image, so the gallery is empty: write lines ID<tab>BASE64")

    def _id(self, line: Line) -> int:
        name, tab, _ = line.data.partition(b"\t")
        place = f"{self.file}, line {line.number}"
        if not tab:
            shown = line.data[:30].decode("utf-8", "replace")
            raise JclipError(f"{place}: expected ID<tab>BASE64, the id a number, not {shown!r}")
        return integer(name.decode("utf-8", "replace"), "the image's id", place)

    def __len__(self) -> int:
        return len(self.ids)

    def name_of(self, index: int) -> str:
        """Returns an image's name for messages."""
        return f"image {self.ids[index]} ({self.file}, line {self._places[index][1]})"

    @overload
    def __getitem__(self, index: int) -> Picture: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Picture]: ...

    def __getitem__(self, index: int | slice) -> Picture | Sequence[Picture]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        offset, number = self._places[index]
        line = next(scan(self.file, offset, number, 1, LONGEST_PICTURE))
        if not line.whole:
            raise JclipError(f"{self.file}, line {number}: {TOO_LARGE}: take the line out")
        image = _decoded(line)
        if image is None:
            raise JclipError(f"{self.file}, line {number}: the image is not valid base64: write it again")
        return image


def _decoded(line: Line) -> bytes | None:
    return decode_base64(line.data.partition(b"\t")[2])
