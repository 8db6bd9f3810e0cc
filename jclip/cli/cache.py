"""`jclip cache list` and `jclip cache clear`."""

from collections.abc import Sequence

from jclip.cli.dispatch import dispatch

_COMMANDS = {
    "list": "lists converted models and compiled programs, with their sizes",
    "clear": "removes all of them, or those that are named",
}
_USAGE = (
    "jclip cache: converted models and compiled programs, in $JCLIP_CACHE, $XDG_CACHE_HOME/jclip or ~/.cache/jclip\n\n"
    "{}\n\n`jclip cache COMMAND --help` explains a command."
)


def main(arguments: Sequence[str]) -> int:
    """Runs one of the commands."""
    return dispatch("jclip cache", "jclip.cli.cache_", _COMMANDS, arguments, _USAGE)
