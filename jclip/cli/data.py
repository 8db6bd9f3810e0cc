"""`jclip data import …`, `jclip data split …`, `jclip data inspect …` and `jclip data example …`."""

from collections.abc import Sequence
from importlib import import_module

from jclip.plain import complain, say

_COMMANDS = {
    "import": "converts files of other programs to a folder of array_record shards",
    "split": "moves pictures of an imported folder to a validation split",
    "inspect": "prints a folder's statistics: counts, lengths, sizes, duplicates; draws a contact sheet",
    "example": "writes a folder of pictures and a spreadsheet, to practise fine-tuning on",
}


def main(arguments: Sequence[str]) -> int:
    """Runs one of the commands."""
    if not arguments or arguments[0] in ("-h", "--help"):
        rows = "\n".join(f"  {name:<8} {what}" for name, what in _COMMANDS.items())
        say(
            f"jclip data: imports, splits and inspects data sets\n\n{rows}\n\n`jclip data COMMAND --help` explains one."
        )
        return 0
    command, rest = arguments[0], arguments[1:]
    if command not in _COMMANDS:
        complain(f"jclip data has no command {command!r}: choose one of {', '.join(_COMMANDS)}")
        return 2
    return import_module(f"jclip.cli.data_{command}").main(rest)
