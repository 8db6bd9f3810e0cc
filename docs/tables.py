"""Tables in Markdown, and generated parts of documents."""

import re
from collections.abc import Iterable, Mapping, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"|{'|'.join(f' {cell} ' if cell else ' ' for cell in cells)}|\n" for cells in lines)


def rewritten(text: str, parts: Mapping[str, str]) -> str:
    """Returns a document with new contents between <!-- NAME --> and <!-- end -->.

    >>> rewritten("<!-- a -->\\nold\\n<!-- end -->", {"a": "new\\n"})
    '<!-- a -->\\n\\nnew\\n\\n<!-- end -->'
    """
    return re.sub(
        r"(<!-- ([\w-]+) -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}\n{parts[match[2]]}\n{match[3]}",
        text,
        flags=re.DOTALL,
    )


def milliseconds(seconds: float) -> str:
    """Formats a duration in milliseconds, without the unit.

    >>> milliseconds(0.0042), milliseconds(0.3168), milliseconds(1.25)
    ('4.2', '317', '1,250')
    """
    return f"{1e3 * seconds:,.1f}" if seconds < 0.01 else f"{1e3 * seconds:,.0f}"


def gib(count: float) -> str:
    """Formats bytes in GiB.

    >>> gib(3 << 29)
    '1.5'
    """
    return f"{count / 2**30:,.1f}"
