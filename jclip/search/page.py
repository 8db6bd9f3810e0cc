"""Page of search results: one HTML file, with thumbnails inside."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jclip.errors import JclipError
from jclip.images.preprocess import Orientation
from jclip.io.files import whole_file
from jclip.plain import as_html as escape
from jclip.search.entries import FILE, IMAGE
from jclip.search.searching import Hit
from jclip.search.thumbnails import encoded, thumbnail

_SIDE = 240  # pixels


class Section(NamedTuple):
    """Heading and hits: all results of a search, or one group of near duplicates."""

    heading: str
    hits: Sequence[Hit]


def write_page(file: Path, title: str, sections: Sequence[Section], orientation: Orientation) -> None:
    """Writes a page to a new file. An image that cannot be read is shown with the reason.

    Args:
      file: path, which must not exist.
      title: title, such as the query.
      sections: contents.
      orientation: treatment of the EXIF orientation of images, as in the index.

    Raises:
      JclipError: the file exists or cannot be written.
    """
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n{''.join(_section(each, orientation) for each in sections)}</body></html>\n"
    )
    with whole_file(file) as partial:
        partial.write_text(page, encoding="utf-8")


def _section(section: Section, orientation: Orientation) -> str:
    cards = "\n".join(_card(hit, orientation) for hit in section.hits)
    heading = f"<h2>{escape(section.heading)}</h2>" if section.heading else ""
    return f"<section>{heading}<ol>\n{cards}\n</ol></section>\n"


def _card(hit: Hit, orientation: Orientation) -> str:
    entry = hit.entry
    shown = ""
    if entry.kind == IMAGE:
        shown = _picture(hit, orientation)
        if entry.origin == FILE:
            shown = f'<a href="{escape(entry.path.as_uri())}">{shown}</a>'
    text = f"<p>{escape(entry.text)}</p>" if entry.text else ""
    size = f" · {entry.width} × {entry.height}" if entry.width and entry.height else ""
    return f"<li>{shown}<small>{hit.score:.4f}{size}</small><code>{escape(entry.path)}</code>{text}</li>"


def _picture(hit: Hit, orientation: Orientation) -> str:
    try:
        data = encoded(thumbnail(hit.entry, _SIDE, orientation), "JPEG")
    except JclipError as error:
        return f'<span class="missing">{escape(error)}</span>'
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(data).decode()}" alt="{escape(hit.entry.text or "")}">'


_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = f"""
:root {{ color-scheme: light dark; font: 14px/1.4 system-ui, sans-serif; }}
body {{ margin: 1.5rem; }} h1 {{ font-size: 1.4rem; }} h2 {{ font-size: 1.1rem; }}
ol {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min({_SIDE}px, 100%), 1fr)); gap: 1.2rem; }}
ol {{ padding: 0; list-style: none; }}
img, .missing {{ display: block; width: 100%; height: {_SIDE}px; object-fit: contain; }}
.missing {{ box-sizing: border-box; border: 1px solid; padding: .5rem; overflow: auto; color: #b3261e; }}
small, code {{ display: block; overflow-wrap: anywhere; }} p {{ margin: .2rem 0; overflow-wrap: anywhere; }}
"""
