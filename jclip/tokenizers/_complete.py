"""Rules of text as steps of the `tokenizers` library, for a tokenizer.json that needs no code of jclip's.

Categories of characters are Python's, because the library's regular expressions have those of another Unicode version.
"""

import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from tokenizers import Regex, normalizers, pre_tokenizers

# A final sigma follows a cased letter and precedes none. Marks and apostrophes between them do not count. A look-behind
# needs alternatives of fixed length, so this one sees at most two of them.
_BEFORE = "|".join(rf"\p{{Cased}}\p{{Case_Ignorable}}{{{count}}}" for count in range(3))
_FINAL_SIGMA = rf"(?<={_BEFORE})Σ(?!\p{{Case_Ignorable}}*\p{{Cased}})"
_ENTITIES = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'", "&apos;": "'", "&nbsp;": " ", "&amp;": "&"}
_QUOTES, _SPACES, _DROPPED = "[“”]", r"[\t\n\r", r"[\x{fffd}"  # the latter two are continued by categories
_CN_CLIP_STEPS = {
    False: (_FINAL_SIGMA, "Lowercase", _QUOTES, _SPACES, _DROPPED, "NFD", "["),
    True: (_SPACES, _DROPPED),
}


def cn_clip_normalizer(cased: bool) -> normalizers.Normalizer:
    """Returns the normalization of cn_clip's rules, see `jclip.tokenizers._wordpiece`."""
    lower = [] if cased else [*_lower_case(), normalizers.Replace(Regex(_QUOTES), '"')]
    accents = [] if cased else [normalizers.NFD(), normalizers.Replace(Regex(f"[{_of_category('Mn')}]"), "")]
    space, dropped = _of_category("Zs"), _of_category("Cc", "Cf")
    return normalizers.Sequence(
        [
            *lower,
            normalizers.Replace(Regex(f"{_SPACES}{space}]"), " "),
            normalizers.Replace(Regex(f"{_DROPPED}{dropped}]"), ""),
            *accents,
        ]
    )


def keeps_case(steps: Sequence[Mapping[str, Any]]) -> bool | None:
    """Returns `cased` of the `cn_clip_normalizer` whose steps a tokenizer.json has, or None if they are others."""
    said = [step["pattern"].get("Regex", "") if step["type"] == "Replace" else step["type"] for step in steps]
    for cased, begins in _CN_CLIP_STEPS.items():
        if len(said) == len(begins) and all(map(str.startswith, said, begins)):
            return cased
    return None


def cn_clip_splitter(
    cjk: Iterable[tuple[int, int]], is_punctuation: Callable[[str], bool]
) -> pre_tokenizers.PreTokenizer:
    """Returns the splitter of cn_clip's rules: at white space, and around each of `cjk` and of the punctuation."""
    words, punctuation = _ranges(cjk), _characters(is_punctuation)
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            *(pre_tokenizers.Split(Regex(f"[{each}]"), "isolated") for each in (words, punctuation)),
        ]
    )


def clip_normalizer() -> normalizers.Normalizer:
    """Returns the plain replacements of ftfy and `html.unescape`, followed by lower case.

    Mojibake and rare entities stay as they are.
    """
    from ftfy import chardata

    # Windows' bytes 80 to 9F as ftfy reads them, ligatures, and full-width and half-width letters.
    letters = {chr(byte): bytes([byte]).decode("sloppy-windows-1252") for byte in range(0x80, 0xA0)}
    letters |= {chr(point): text for point, text in (chardata.LIGATURES | chardata.WIDTH_MAP).items()}
    unwanted = "".join(f"\\x{{{point:x}}}" for point in chardata.CONTROL_CHARS)
    return normalizers.Sequence(
        [
            *(normalizers.Replace(*entity) for _ in range(2) for entity in _ENTITIES.items()),  # CLIP unescapes twice
            *(normalizers.Replace(old, new) for old, new in letters.items() if old != new),
            normalizers.Replace(Regex(chardata.SINGLE_QUOTE_RE.pattern), "'"),
            normalizers.Replace(Regex(chardata.DOUBLE_QUOTE_RE.pattern), '"'),
            normalizers.Replace(Regex(f"[{unwanted}]"), ""),
            normalizers.NFC(),
            normalizers.Replace(Regex(r"\s+"), " "),
            *_lower_case(),
        ]
    )


def _lower_case() -> Sequence[normalizers.Normalizer]:
    """Returns the steps of `str.lower`; the library's own does not know the final sigma."""
    return normalizers.Replace(Regex(_FINAL_SIGMA), "ς"), normalizers.Lowercase()


@cache
def _of_category(*names: str) -> str:
    return _characters(lambda letter: unicodedata.category(letter) in names)


@cache  # a second
def _characters(fits: Callable[[str], bool]) -> str:
    """Returns the inside of a regular expression's brackets for all characters that fit."""
    ranges: list[tuple[int, int]] = []
    for point in (*range(0xD800), *range(0xE000, sys.maxunicode + 1)):  # no surrogates
        if not fits(chr(point)):
            continue
        follows = ranges and ranges[-1][1] == point - 1
        if follows:
            ranges[-1] = (ranges[-1][0], point)
        else:
            ranges.append((point, point))
    return _ranges(ranges)


def _ranges(ranges: Iterable[tuple[int, int]]) -> str:
    return "".join(f"\\x{{{first:x}}}-\\x{{{last:x}}}" for first, last in ranges)
