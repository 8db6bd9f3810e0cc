"""`jclip verify BUNDLE SRC`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jclip.cli.options import BundleArgument, read
from jclip.console import Console, facts, text
from jclip.errors import JclipError
from jclip.plain import print_json

_VERDICTS = {True: text("passed", "green"), False: text("failed", "red"), None: text("skipped", "yellow")}


@dataclass(frozen=True)
class VerifyOptions:
    """Repeats the checks of BUNDLE's passport against its source weights, and prints the results.

    The passport records the options of the conversion. Without PyTorch the comparison with the PyTorch model is
    skipped, and the table says so. Exit code 0 means that no check failed.

    Attributes:
      bundle: a converted bundle; hf://ORG/NAME, or a file or folder that `jclip convert` reads, for its conversion in
        the cache.
      sources: the checkpoint; for a bundle composed with --image and --text, both, in this order.
      tokenizer: new path of the vocabulary, if the conversion was given one that has moved.
      json: print the checks as JSON; a skipped check has null as its result.
    """

    bundle: BundleArgument
    sources: tyro.conf.Positional[
        Annotated[tuple[str, ...], tyro.conf.arg(metavar="SRC", help_behavior_hint="(required)")]
    ]
    tokenizer: Path | None = None
    json: bool = False


def main(arguments: Sequence[str]) -> int:
    """Runs the command. Raises JclipError if a check failed."""
    options = read(VerifyOptions, arguments, "jclip verify")
    from jclip.conversion import verify
    from jclip.loading import local_bundle

    folder = local_bundle(options.bundle)
    with Console(stderr=True, quiet=options.json).working("reading") as say:
        checks = verify(folder, options.sources, options.tokenizer, say)
    if options.json:
        print_json([asdict(check) for check in checks], indent=1)
    else:
        table = facts(f"{options.bundle}: passport")
        for check in checks:
            table.add_row(_VERDICTS[check.holds], text(check.what), text(check.seen, longest=None))
        Console().print(table)
    wrong = "; ".join(f"{check.what}: {check.seen}" for check in checks if check.holds is False)
    if wrong:
        raise JclipError(
            f"{options.bundle} fails its checks ({wrong}): convert it again, or give the SRC of its conversion"
        )
    return 0
