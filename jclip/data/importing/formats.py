"""Formats by name, for `jclip data import FORMAT`."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from jclip.data.importing.class_folders import open_class_folders
from jclip.data.importing.cn_clip import open_cn_clip
from jclip.data.importing.cn_clip_lmdb import open_lmdb
from jclip.data.importing.encodings import is_utf16
from jclip.data.importing.named import NAMED
from jclip.data.importing.parallel_text import open_json_lines, open_moses, open_parallel_tsv
from jclip.data.importing.parquet import open_parquet
from jclip.data.importing.parts import Reader, Reading
from jclip.data.importing.picture_folder import has_captions_beside, no_captions, open_picture_folder, walk
from jclip.data.importing.table import TABLES, only_table, open_table
from jclip.data.importing.webdataset import open_tars
from jclip.errors import JclipError
from jclip.images.preprocess import is_picture_name
from jclip.names import suggestion

_LOOKED_AT = 2000  # maximum number of files of a folder, to detect its format


def _is_table(source: Path) -> bool:
    if source.is_dir():
        return only_table(source) is not None and _has_pictures(source)
    ending = source.suffix.lower()
    text = ending == ".txt" and source.is_file() and is_utf16(source)  # Excel's format "Unicode Text"
    return text or (ending in TABLES and not source.name.endswith("_imgs.tsv"))


def _has_pictures(source: Path) -> bool:
    return any(map(is_picture_name, walk(source, _LOOKED_AT)[0]))


@dataclass(frozen=True)
class Format:
    """Format of a source.

    Attributes:
      what: description of the source, for the help.
      open: makes a reader; raises JclipError if the source is not of this format.
      reads: fields of `Reading` that the format uses.
      fits: returns True if a path is certainly of this format.
    """

    what: str
    open: Callable[[Path, Reading], Reader]
    reads: tuple[str, ...] = ()
    fits: Callable[[Path], bool] = lambda _: False


FORMATS: dict[str, Format] = {
    "cn-clip": Format(
        "a folder with SPLIT_imgs.tsv and SPLIT_texts.jsonl, as cn_clip reads them",
        open_cn_clip,
        ("splits", "language"),
        lambda source: any(source.glob("*_imgs.tsv")),
    ),
    "cn-clip-lmdb": Format(
        "a folder with SPLIT/imgs and SPLIT/pairs, the LMDB directories that cn_clip builds",
        open_lmdb,
        ("splits", "language"),
        lambda source: any(source.glob("*/pairs/data.mdb")),
    ),
    "csv": Format(
        "a table with a path and a caption in each row, as spreadsheets write it and open_clip reads it; separator, "
        "encoding and columns (such as filepath and title, or 图片 and 描述) are detected",
        open_table,
        ("splits", "language", "picture", "caption", "language_column", "separator", "encoding", "root"),
        _is_table,
    ),
    "picture-folder": Format(
        "a folder of images and its sub-folders: KEY.jpg beside KEY.txt or KEY.json with the caption; or, with "
        "--captions-from names, the image's name as its caption",
        open_picture_folder,
        ("splits", "language", "caption", "encoding", "captions_from"),
        lambda source: source.is_dir() and has_captions_beside(walk(source, _LOOKED_AT)[0]),
    ),
    "webdataset": Format(
        "a tar, a folder of tars, or a pattern of names: KEY.jpg beside KEY.txt or KEY.json with the caption",
        open_tars,
        ("splits", "language", "caption"),
        lambda source: source.suffix == ".tar" or any(source.glob("*.tar")),
    ),
    "class-folders": Format(
        "images in CLASS or SPLIT/CLASS folders, for classification",
        open_class_folders,
        ("splits", "language"),
    ),
    "parquet": Format(
        "a file or a folder of files with a column of encoded images (image) and one of captions (caption)",
        open_parquet,
        ("splits", "language", "picture", "caption", "language_column"),
        lambda source: source.suffix == ".parquet" or any(source.glob("*.parquet")),
    ),
    "parallel-jsonl": Format(
        "parallel text, a JSON object in each line, as in TSL2019 (fields english and chinese)",
        open_json_lines,
        ("splits", "language", "english", "other"),
    ),
    "parallel-tsv": Format(
        "parallel text in columns (English in the first, the other language in the second)",
        open_parallel_tsv,
        ("splits", "language", "english", "other", "language_column", "separator"),
    ),
    "moses": Format(
        "parallel text in two files, SRC.en and SRC.LANGUAGE, as in Moses and OPUS",
        open_moses,
        ("splits", "language"),
    ),
    **{
        name: Format(f"a folder of downloads with {what}", open_named, ("splits",))
        for name, (what, open_named) in NAMED.items()
    },
}


def open_source(name: str | None, source: Path, reading: Reading) -> tuple[str, Reader]:
    """Opens a source; detects its format if that is safe. Returns the format's name, and the reader.

    Raises JclipError if source or format do not exist, the format cannot be detected, or it lacks a given option.
    """
    if name is None:
        if not source.exists():
            raise JclipError(f"there is no {source}: name a file or a folder")
        fitting = [each for each, form in FORMATS.items() if form.fits(source)]
        if reading.captions_from is not None and source.is_dir():
            fitting = ["picture-folder"]
        if not fitting and source.is_dir() and _has_pictures(source):
            raise JclipError(f"{source}: {no_captions(walk(source)[0])}")
        if len(fitting) != 1:
            found = f"may be any of {', '.join(fitting)}" if fitting else "has no format that can be detected"
            raise JclipError(f"{source} {found}: name one, as in `jclip data import {next(iter(FORMATS))} SRC DST`")
        name = fitting[0]
    if name not in FORMATS:
        raise JclipError(f"there is no format {name!r}: {suggestion(name, FORMATS)}")
    for option in fields(reading):
        if getattr(reading, option.name) is not None and option.name not in FORMATS[name].reads:
            heeded = ", ".join(f"--{each.replace('_', '-')}" for each in FORMATS[name].reads) or "no such option"
            raise JclipError(f"--{option.name.replace('_', '-')} does not apply to format {name}: it knows {heeded}")
    return name, FORMATS[name].open(source, reading)
