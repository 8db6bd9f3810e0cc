"""`jclip data import …`, `jclip data split …`, `jclip data inspect …` and `jclip data example …`."""

from collections.abc import Sequence

from jclip.cli.dispatch import dispatch

_COMMANDS = {
    "import": "converts files of other programs to a folder of array_record shards",
    "split": "moves images of an imported folder to a validation split",
    "inspect": "prints a folder's statistics: counts, lengths, sizes, duplicates; draws a contact sheet",
    "example": "writes a folder of images and a spreadsheet, to practise fine-tuning on",
}
_USAGE = "jclip data: imports, splits and inspects data sets\n\n{}\n\n`jclip data COMMAND --help` explains a command."


def main(arguments: Sequence[str]) -> int:
    """Runs one of the commands."""
    return dispatch("jclip data", "jclip.cli.data_", _COMMANDS, arguments, _USAGE)
