"""`jclip cache list`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.table import Table

from jclip.cache.contents import contents
from jclip.cache.folder import cache_folder
from jclip.cli.options import read
from jclip.console import Console, text
from jclip.plain import print_json
from jclip.units import format_size


@dataclass(frozen=True)
class ListOptions:
    """Lists what is in the cache: converted models by their source, compiled programs, and plans.

    Attributes:
      json: print JSON.
    """

    json: bool = False


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = read(ListOptions, arguments, "jclip cache list")
    found = contents()
    if options.json:
        rows = [
            {
                "name": item.name,
                "source": item.source,
                "bytes": item.bytes,
                "last_used": _time(item.last_used).isoformat(timespec="seconds"),
                "folder": str(item.folder),
            }
            for item in found
        ]
        print_json(rows, indent=1)
        return 0
    console = Console()
    if not found:
        console.tell(f"{cache_folder()}: nothing is in the cache")
        return 0
    total = format_size(sum(item.bytes for item in found))
    table = Table(title=text(f"{cache_folder()}: {total}", longest=None), title_justify="left")
    for heading in ("source", "size", "last used", "folder"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "size" else "left")
    for item in found:
        used = _time(item.last_used).astimezone().strftime("%Y-%m-%d %H:%M")
        place = item.folder.relative_to(cache_folder())
        table.add_row(text(item.source, longest=None), format_size(item.bytes), used, text(place, longest=None))
    console.print(table)
    return 0


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
