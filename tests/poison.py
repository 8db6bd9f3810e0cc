r"""Names and texts that would do something to a terminal, a page or a table if they were printed as they are."""

import os
import re

from jclip.plain import shown

TEXT = (
    '\x1b]0;owned\x07\x9b31m[/b][red]:cat:\u202e<script>alert(1)</script>"><img src=x onerror=alert(1)>|`$x$`\nend 猫'
)
"""Caption, language or name of a run, with an escape sequence, a C1 control, rich's markup, an override of direction,
HTML, Markdown, a line break, and two characters that must be shown as they are.
"""

UTF8 = os.path.join("d[", "b]" + TEXT.replace("/", ""))
"""A path with the markup "[/b]" and all the rest."""

FOLDER = UTF8 + os.fsdecode(b"\xff")
"""The same with a byte that is not UTF-8."""

_UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_OURS = ("Traceback", "bound method", "<function", "<class", "object at 0x", "MarkupError")


def assert_harmless(printed, *names):
    """Checks that a text has no effect on a terminal and contains the names, escaped."""
    assert not _UNSAFE.search(printed), ascii(printed)
    assert not any(word in printed for word in _OURS), printed
    letters = _letters(printed)
    for name in names:
        assert _letters(shown(name)) in letters, (shown(name), printed)


def _letters(text):
    """Returns the text without spaces and line ends, which a narrow table adds."""
    return "".join(text.split())


def assert_harmless_page(page):
    """Checks that no element or attribute of a page comes from a name."""
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", page)
    assert "<script" not in page and "<img src=x" not in page and '"><' not in page.replace('">', '"> ')
