"""`jclip cache clear [NAME ...]`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from jclip.cache.contents import clear
from jclip.cli.options import read
from jclip.console import Console
from jclip.errors import JclipError
from jclip.units import format_size


@dataclass(frozen=True)
class ClearOptions:
    """Removes what is in the cache, without asking: it is made again when it is needed.

    What another process uses stays, and the exit code is then 1.

    Attributes:
      names: sources as `jclip cache list` shows them, names of their folders, or compiled, or planned; by default
        everything.
    """

    names: tyro.conf.Positional[
        Annotated[tuple[str, ...], tyro.conf.arg(metavar="[NAME ...]", help_behavior_hint="")]
    ] = ()


def main(arguments: Sequence[str]) -> int:
    """Runs the command. Raises JclipError if something is in use."""
    options = read(ClearOptions, arguments, "jclip cache clear")
    removed, errors = clear(options.names)
    console = Console()
    for item in removed:
        console.tell(f"removed: {item.source} ({format_size(item.bytes)}, {item.folder})")
    if not removed and not errors:
        console.tell("nothing is in the cache")
    if errors:
        raise JclipError("; ".join(errors))
    return 0
