"""`jclip data split FOLDER`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jclip.cli.data_import import shown_progress
from jclip.cli.options import read
from jclip.console import Console
from jclip.data.importing.stored import split_folder
from jclip.data.importing.validation import HeldOut
from jclip.plain import print_json


@dataclass(frozen=True)
class SplitOptions:
    """Moves images from split train of an imported folder, with all their captions, to a new split valid.

    A hash of the image decides, so equal images are in one split. With a share, the split of an image does not depend
    on the other images. The folder is unchanged until everything is written.

    Attributes:
      folder: folder that `jclip data import` wrote, with images and captions.
      validation: number of images, such as 30, or a share, such as 10%.
      json: print the counts as JSON.
    """

    folder: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="FOLDER")]]
    validation: str = "10%"
    json: bool = False


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = read(SplitOptions, arguments, "jclip data split")
    share = HeldOut.read(options.validation)
    console = Console(stderr=True, quiet=options.json)
    with shown_progress(console) as progress:
        report = split_folder(options.folder, share, progress=progress)
    if options.json:
        print_json(report.as_json(), indent=1)
    else:
        console.print(report.table(f"{options.folder}: divided"))
    return 0
