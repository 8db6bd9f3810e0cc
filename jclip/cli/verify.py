"""`jclip verify BUNDLE SRC`."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from jclip.cli.options import read
from jclip.errors import JclipError
from jclip.models.transformer import Activation


@dataclass(frozen=True)
class Options:
    """Re-runs the passport of BUNDLE against the weights that it was converted from, and prints what holds.

    Attributes:
      bundle: a converted bundle.
      sources: the checkpoint; for one composed with --image and --text, both, in this order.
      family: as at the conversion.
      tokenizer: as at the conversion.
      activation: as at the conversion.
      json: print the checks as JSON.
    """

    bundle: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="BUNDLE")]]
    sources: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="SRC")]]
    family: str | None = None
    tokenizer: Path | None = None
    activation: Activation | None = None
    json: bool = False


def main(arguments: Sequence[str]) -> int:
    """Runs the command.

    Raises:
      JclipError: something does not hold.
    """
    options = read(Options, arguments, "jclip verify")
    from conversion.importing import Options as Said
    from conversion.verify import verify

    console = Console(stderr=True, quiet=options.json)
    said = Said(options.family, options.tokenizer, options.activation)
    with console.status("") as status:
        checks = verify(options.bundle, options.sources, said, status.update)
    if options.json:
        print(json.dumps([asdict(check) for check in checks], indent=1, ensure_ascii=False))
    else:
        table = Table(title=f"{options.bundle}: passport", title_justify="left", show_header=False)
        for check in checks:
            table.add_row("[green]holds[/]" if check.holds else "[red]wrong[/]", check.what, check.seen)
        Console().print(table)
    wrong = "; ".join(f"{check.what}: {check.seen}" for check in checks if not check.holds)
    if wrong:
        raise JclipError(f"{options.bundle} does not hold ({wrong}): convert again, or name the SRC that it came from")
    return 0
