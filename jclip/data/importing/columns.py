"""Finds the columns of images and captions, by their names in English and Chinese, or by their values."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jclip.errors import JclipError
from jclip.images.preprocess import is_picture_name

_OPEN_CLIP = ("filepath", "title")
_PICTURES = """
    filepath path file files filename image images imagepath imagefile imagefilename imagename img imgpath imgname
    imgfile picture pictures picturepath picturefile picturename pic photo photopath photofile photoname
    图片 图像 照片 相片 图 文件 文件名 文件名称 文件路径 路径 图片路径 图像路径 照片路径 图片文件 图片文件名 图片名
    图片名称 图像文件 图像文件名 图像名 图像名称 照片文件 照片名 照片名称
    圖片 圖像 圖檔 檔案 檔名 檔案名稱 路徑 圖片路徑 圖像路徑
"""
_CAPTIONS = """
    title titles caption captions text texts description descriptions desc sentence sentences alt alttext comment
    imagecaption imagedescription captiontext
    描述 标题 文本 说明 文字 文案 句子 图片描述 图片说明 图片标题 图片文字 图像描述 图像说明 图像标题 照片描述 照片说明
    描述文本 描述文字 文本描述 文字描述 文字说明 中文描述 中文文本 標題 說明 文字說明 圖片描述 圖片說明 圖像描述
"""
_PICTURE_NAMES, _CAPTION_NAMES = frozenset(_PICTURES.split()), frozenset(_CAPTIONS.split())
_MOST = 0.5  # of a column's values
_WEB = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class Choice(NamedTuple):
    """Index of a chosen column, from 0, and the reason for the choice."""

    column: int
    why: str


class FoundColumns(NamedTuple):
    """Chosen columns of a table; `header` is True if its first row has their names."""

    picture: Choice
    caption: Choice
    header: bool


def plain(name: str) -> str:
    """Returns a column's name without case, spaces and punctuation.

    >>> plain(" Image_Path"), plain("图片 路径")
    ('imagepath', '图片路径')
    """
    return re.sub(r"[\s_\-.:\"'()（）]+", "", unicodedata.normalize("NFKC", name).casefold())


def position(header: Sequence[str], name: str) -> int | None:
    """Returns the index of the exact name, else of the only one with the same `plain` name, else None."""
    if name in header:
        return header.index(name)
    same = [index for index, each in enumerate(header) if plain(each) == plain(name)]
    return same[0] if len(same) == 1 else None


def named(header: Sequence[str]) -> tuple[bool, bool]:
    """Returns two booleans: a name is usual for a column of images; a name is usual for a column of captions."""
    names = {plain(name) for name in header}
    return bool(names & _PICTURE_NAMES), bool(names & _CAPTION_NAMES)


def find_columns(
    rows: Sequence[Sequence[str]], picture: str | None, caption: str | None, exists: Callable[[str], bool], file: str
) -> FoundColumns:
    """Returns a table's columns. Raises JclipError, with their list, if one is missing or cannot be detected.

    Args:
      rows: the first rows, with the header if there is one.
      picture, caption: names that the user gave.
      exists: returns True for the name of an image's file.
      file: name of the table, for messages.
    """
    table = _Table(rows, exists, file)
    header = table.has_header(picture, caption)
    first = table.picture(picture, header)
    return FoundColumns(first, table.caption(caption, header, first), header)


class _Table:
    def __init__(self, rows: Sequence[Sequence[str]], exists: Callable[[str], bool], file: str):
        self._first, self._rows, self._exists, self._file = list(rows[0]), rows, exists, file

    def has_header(self, *given: str | None) -> bool:
        if any(name is not None for name in given) or any(named(self._first)):
            return True
        return not any(self._is_picture(cell) for cell in self._first)

    def picture(self, given: str | None, header: bool) -> Choice:
        if given is not None:
            return self._given(given, "--picture")
        if header and _OPEN_CLIP[0] in self._first:
            return Choice(self._first.index(_OPEN_CLIP[0]), "by its name")
        by_name = self._by_name(_PICTURE_NAMES) if header else []
        if len(by_name) == 1:
            return Choice(by_name[0], "by its name")
        holding = [n for n in by_name or range(len(self._first)) if self._share(n, header, self._is_picture) > _MOST]
        if len(holding) == 1:
            return Choice(holding[0], "which holds names of images")
        raise self._unsure("images", "--picture", holding or by_name)

    def caption(self, given: str | None, header: bool, picture: Choice) -> Choice:
        if given is not None:
            return self._given(given, "--caption")
        if header and self._first[picture.column] == _OPEN_CLIP[0] and _OPEN_CLIP[1] in self._first:
            return Choice(self._first.index(_OPEN_CLIP[1]), "by its name")
        by_name = [n for n in self._by_name(_CAPTION_NAMES) if n != picture.column] if header else []
        if len(by_name) == 1:
            return Choice(by_name[0], "by its name")
        others = by_name or [n for n in range(len(self._first)) if n != picture.column]
        holding = [n for n in others if self._share(n, header, self._is_text) > _MOST]
        if len(holding) == 1:
            return Choice(holding[0], "which holds text")
        raise self._unsure("captions", "--caption", holding or by_name)

    def _given(self, name: str, option: str) -> Choice:
        index = position(self._first, name)
        if index is None:
            raise JclipError(f"{self._file} has no column {name!r}, only {self._columns()}: name one with {option}")
        return Choice(index, f"by {option}")

    def _by_name(self, names: frozenset[str]) -> list[int]:
        return [n for n, name in enumerate(self._first) if plain(name) in names]

    def _share(self, column: int, header: bool, test: Callable[[str], bool]) -> float:
        values = [row[column] for row in self._rows[header:] if column < len(row)]
        return sum(map(test, values)) / len(values) if values else 0.0

    def _is_picture(self, value: str) -> bool:
        return is_picture_name(value.strip()) or bool(value.strip() and self._exists(value))

    def _is_text(self, value: str) -> bool:
        letters = sum(character.isalpha() for character in value)
        return letters > 0 and not _WEB.match(value.strip()) and not self._is_picture(value)

    def _columns(self) -> str:
        return ", ".join(repr(name[:40]) for name in self._first[:12]) + (", …" if len(self._first) > 12 else "")

    def _unsure(self, what: str, option: str, several: Sequence[int]) -> JclipError:
        if several:
            which = " and ".join(repr(self._first[n][:40]) for n in several)
            found = f"{which} may each be the column of {what}"
        else:
            found = f"no column certainly holds {what}"
        return JclipError(
            f"{self._file}: {found}; it has the columns {self._columns()}: name one with {option}, or by its number "
            "if there is no header"
        )
