"""`jclip data example FOLDER`."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jclip.cli.options import read
from jclip.console import Console
from jclip.demo import practice
from jclip.plain import print_json


@dataclass(frozen=True)
class ExampleOptions:
    """Writes a folder of images with Chinese captions and a spreadsheet, to practise `jclip finetune` on.

    The images are emoji that `jclip demo` never trains on, each by three artists. They come from the demo's data set,
    which is downloaded (about 100 MB, once) if necessary.

    Attributes:
      folder: new folder; it gets sub-folders of images, pictures.csv (columns 图片 and 描述) and licences.
      pictures: number of images.
      seed: seed for choosing emoji, or for drawing shapes.
      drawn: draw coloured shapes instead of emoji, with captions such as 红色的圆形; needs no network.
      data: folder of the demo's data set.
      json: print JSON.
    """

    folder: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="FOLDER")]]
    pictures: int = 300
    seed: int = 0
    drawn: bool = False
    data: Path = Path("runs/demo/data")
    json: bool = False


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = read(ExampleOptions, arguments, "jclip data example")
    console = Console(stderr=True, quiet=options.json)
    if options.drawn:
        table = practice.shapes(options.folder, options.pictures, options.seed)
    else:
        with console.working("reading the demo's data set, downloaded if missing (about 100 MB, once)"):
            table = practice.emoji(options.folder, options.data, options.pictures, options.seed)
    if options.json:
        print_json({"table": str(table), "pictures": options.pictures})
    else:
        console.tell(f"{options.pictures} images, described in {table}")
        console.tell(f"Next: jclip finetune BUNDLE {shlex.quote(str(table))} OUT")
    return 0
