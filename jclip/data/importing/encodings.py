"""Detects encodings of text files from spreadsheets and editors; raises an error if a guess would be unsafe.

Detects UTF-8, UTF-16, and Chinese in GB18030 (which includes GBK and GB2312) by its pairs of bytes. Never guesses
Latin-1 or Windows-1252, because Western European text may also decode as GB18030, to wrong letters.
"""

import codecs
import unicodedata
from pathlib import Path

from jclip.errors import JclipError, unreadable
from jclip.io.reading import open_regular

_SAMPLE = 1 << 20  # bytes of a sample
_POSSIBLE = ("gb18030", "big5", "shift_jis", "euc_kr", "cp1252")
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_OTHERS = (
    (b"PK\x03\x04", "a workbook (.xlsx or .ods) or another ZIP archive"),
    (b"\xd0\xcf\x11\xe0", "a workbook (.xls)"),
    (b"PAR1", "a Parquet file"),
    (b"%PDF", "a PDF document"),
)
_MOST_OTHERS = 0.1  # maximum share of byte pairs outside GB2312, in Chinese text
_SCRIPTS = 3  # minimum number of scripts in a text that is decoded wrongly
_ENOUGH = 20  # minimum number of characters to tell Chinese from Korean in EUC-KR


def check_encoding(name: str) -> str:
    """Returns Python's name of an encoding. Raises JclipError if it is not an encoding of text.

    >>> check_encoding("GBK"), check_encoding("UTF-16LE")
    ('gbk', 'utf-16-le')
    """
    try:
        "".encode(name)  # refuses codecs that are not text encodings
        found = codecs.lookup(name).name
    except (LookupError, ValueError):
        some = "utf-8, utf-16, gb18030, big5, cp1252"
        raise JclipError(f"--encoding {name!r} is unknown: give {some} or another name of Python's") from None
    return {"utf-8-sig": "utf-8"}.get(found, found)


def is_utf16(file: Path) -> bool:
    """Returns True if a file begins with UTF-16's byte order mark; False if it cannot be read."""
    try:
        with open_regular(file) as stream:
            data = stream.read(2)
    except (OSError, JclipError):
        return False
    return data in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def shown_encoding(name: str) -> str:
    """Returns the usual spelling of Python's name of an encoding."""
    return {"utf-16-le": "UTF-16 (little-endian)", "utf-16-be": "UTF-16 (big-endian)"}.get(name, name.upper())


def find_encoding(data: bytes, place: str, given: str | None = None, whole: bool = True) -> str:
    """Returns the encoding of a text. Raises JclipError if it is not text, or cannot be detected.

    Args:
      data: bytes of the text, or its beginning.
      place: name of the text, for messages.
      given: encoding that the user gave.
      whole: True if `data` is the whole text; otherwise its last character may be cut.
    """
    for mark, what in _OTHERS:
        if data.startswith(mark):
            raise JclipError(f"{place} is {what}, not text: save the sheet as CSV (UTF-8), and name that file")
    if given is not None:
        name = check_encoding(given)
        big_endian = data.startswith(codecs.BOM_UTF16_BE)
        return ("utf-16-be" if big_endian else "utf-16-le") if name == "utf-16" else name
    for bom, name in _BOMS:
        if data.startswith(bom):
            return name
    nulls, utf8 = data.count(b"\0"), _decodes(data, "utf-8", whole)
    if nulls and not (utf8 and nulls < len(data) / 5):
        return _utf16(data, place)
    chinese = _decodes(data, "gb18030", whole) and _is_chinese(data)
    if utf8 and not (chinese and _is_jumble(decoded(data, "utf-8", whole))):
        return "utf-8"
    if chinese:
        return "gb18030"
    raise JclipError(f"{place}: {_possibilities(data, whole)}")


def decoded(data: bytes, encoding: str, whole: bool = True) -> str:
    """Returns decoded text without its byte order mark. Raises UnicodeDecodeError if the encoding is another."""
    text = codecs.getincrementaldecoder(encoding)().decode(data, final=whole)
    return text.removeprefix("\ufeff")


def _decodes(data: bytes, encoding: str, whole: bool) -> bool:
    try:
        decoded(data, encoding, whole)
    except UnicodeDecodeError:
        return False
    return True


def _utf16(data: bytes, place: str) -> str:
    """Returns the byte order of UTF-16 without a mark: the one that gives more ASCII characters."""
    best, most = "", 0
    for name in ("utf-16-le", "utf-16-be"):
        try:
            text = decoded(data[: len(data) // 2 * 2], name, whole=False)
        except UnicodeDecodeError:
            continue
        common = sum(character in "\t\r\n" or " " <= character <= "~" for character in text)
        if "\0" not in text and common > most:
            best, most = name, common
    if not best:
        raise JclipError(f"{place} is not text, because it has null bytes: name a text file")
    return best


def _is_chinese(data: bytes) -> bool:
    """Returns True if bytes that decode as GB18030 look like Chinese.

    Nearly all pairs must be in GB2312, whose second bytes are above 0xA0. In Latin-1, a non-ASCII letter is mostly
    followed by an ASCII one, and half of Big5's second bytes are below 0xA1. Korean in EUC-KR begins its pairs with
    0xB0 to 0xC8, but more than a third of Chinese pairs begin with higher bytes.
    """
    pairs = others = high = characters = 0
    position = 0
    while position < len(data) - 1:
        first, second = data[position], data[position + 1]
        if first < 0x80:
            position += 1
            continue
        if 0x30 <= second <= 0x39:  # four bytes
            position, pairs, others = position + 4, pairs + 1, others + 1
            continue
        pairs, position = pairs + 1, position + 2
        others += not (0xA1 <= first <= 0xF7 and second >= 0xA1)
        if 0xB0 <= first <= 0xF7:
            characters += 1
            high += first > 0xC8
    korean = characters >= _ENOUGH and high < 0.1 * characters
    return pairs > 0 and others <= _MOST_OTHERS * pairs and not korean


def _is_jumble(text: str) -> bool:
    """Returns True if a text has letters of three or more scripts, and none that needs three bytes in UTF-8.

    A few Chinese words in GB18030 may be valid UTF-8: "一只猫" decodes to a Cyrillic, a Hebrew and a Latin letter.
    """
    if max(text, default="") > "\u07ff":
        return False
    letters = {letter for letter in text if letter > "\x7f" and unicodedata.category(letter)[0] in "LM"}
    return len({unicodedata.name(letter, "").partition(" ")[0] for letter in letters}) >= _SCRIPTS


def _possibilities(data: bytes, whole: bool) -> str:
    """Describes the possible encodings, each with the text around the first character that is not ASCII."""
    try:
        decoded(data, "utf-8", whole)
        start = 0
    except UnicodeDecodeError as error:
        start = error.start
    number = data.count(b"\n", 0, start) + 1
    begin, end = data.rfind(b"\n", 0, start) + 1, data.find(b"\n", start)
    line = data[begin : end if end >= 0 else len(data)]
    shown = []
    for name in _POSSIBLE:
        if _decodes(data, name, whole) and _decodes(line, name, True):
            text = decoded(line, name).strip()
            at = next((n for n, character in enumerate(text) if character > "~"), 0)
            shown.append(f"{name} ({text[max(0, at - 8) : at + 8]!r})")
    if not shown:
        return f"line {number} is in no encoding that jclip knows: save the file as UTF-8"
    return f"line {number} is not UTF-8; it may be {', '.join(shown)}: choose one with --encoding, or save it as UTF-8"


def sample(file: Path) -> tuple[bytes, bool]:
    """Returns the beginning of a file, and True if that is all of it. Raises JclipError if it cannot be read."""
    try:
        with open_regular(file) as stream:
            data = stream.read(_SAMPLE + 1)
    except OSError as error:
        raise unreadable(file, error) from None
    return data[:_SAMPLE], len(data) <= _SAMPLE


def first_telling(file: Path, begin: bytes) -> tuple[bytes, bool]:
    """Returns the part of a file that tells its encoding, and True if that part ends with the file.

    `begin` is the file's beginning, not all of it. If `begin` is ASCII, the part starts at the first line that is not;
    otherwise, or without such a line, the part is `begin`. Raises JclipError if the file cannot be read.
    """
    if not begin.isascii() or b"\0" in begin:
        return begin, False
    try:
        with open_regular(file) as stream:
            while line := stream.readline(_SAMPLE):
                if not line.isascii():
                    data = line + stream.read(_SAMPLE)
                    return data, not stream.read(1)
    except OSError as error:
        raise unreadable(file, error) from None
    return begin, False


def write_utf8(file: Path, encoding: str, copy: Path) -> None:
    """Writes a copy of a file in UTF-8, atomically. If lines end only with carriage returns, they become line feeds.

    Raises JclipError, which names the line, if the file has another encoding.
    """
    begin_bytes, whole = sample(file)
    only_returns = has_only_returns(decoded(begin_bytes, encoding, whole))
    partial = copy.with_name(f"{copy.name}.partial")
    decoder, lines, begin = codecs.getincrementaldecoder(encoding)(), 1, True
    try:
        with open_regular(file) as source, partial.open("w", encoding="utf-8", newline="") as target:
            while True:
                data = source.read(_SAMPLE)
                text = decoder.decode(data, final=not data)
                if begin:
                    text, begin = text.removeprefix("\ufeff"), False
                text = text.replace("\r", "\n") if only_returns else text
                lines += text.count("\n")
                target.write(text)
                if not data:
                    break
    except UnicodeDecodeError:
        where = f"{file}, line {lines} or below"
        raise JclipError(f"{where}: it is not {shown_encoding(encoding)}: give --encoding, or save as UTF-8") from None
    except OSError as error:
        raise unreadable(file, error) from None
    partial.replace(copy)


def has_only_returns(text: str) -> bool:
    """Returns True if all lines end with carriage returns, as old Macintosh programs write them."""
    return "\r" in text and "\n" not in text
