"""`jclip verify BUNDLE SRC`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jclip.cli.options import read
from jclip.console import Console, facts, text
from jclip.errors import JclipError
from jclip.plain import print_json

_VERDICTS = {True: text("holds", "green"), False: text("wrong", "red"), None: text("open", "yellow")}


@dataclass(frozen=True)
class VerifyOptions:
    """Re-runs the passport of BUNDLE against the weights that it was converted from, and prints what holds.

    With the options of the conversion, which the passport records. Exits with 0 when all that could be looked at holds:
    where PyTorch is not installed, the comparison with it is left out, and the table says so.

    Attributes:
      bundle: a converted bundle.
      sources: the checkpoint; for one composed with --image and --text, both, in this order.
      tokenizer: where the vocabulary is now, when the one given at the conversion has moved.
      json: print the checks as JSON; what could not be looked at holds null.
    """

    bundle: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="BUNDLE")]]
    sources: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="SRC")]]
    tokenizer: Path | None = None
    json: bool = False


def main(arguments: Sequence[str]) -> int:
    """Runs the command.

    Raises:
      JclipError: something does not hold.
    """
    options = read(VerifyOptions, arguments, "jclip verify")
    from jclip.conversion import verify

    with Console(stderr=True, quiet=options.json).working("reading") as say:
        checks = verify(options.bundle, options.sources, options.tokenizer, say)
    if options.json:
        print_json([asdict(check) for check in checks], indent=1)
    else:
        table = facts(f"{options.bundle}: passport")
        for check in checks:
            table.add_row(_VERDICTS[check.holds], text(check.what), text(check.seen, longest=None))
        Console().print(table)
    wrong = "; ".join(f"{check.what}: {check.seen}" for check in checks if check.holds is False)
    if wrong:
        raise JclipError(f"{options.bundle} does not hold ({wrong}): convert again, or name the SRC that it came from")
    return 0
