"""`jclip data inspect FOLDER`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TaskID
from rich.table import Table

from jclip.bundle import open_bundle
from jclip.cli.options import read
from jclip.data.contact_sheet import write_sheet
from jclip.data.inspecting import Counting, Split, folder_kind, inspect
from jclip.data.text import load_tokenizer
from jclip.errors import JclipError

_BAR = 24  # letters of the longest bar
_UNITS = {"pairs": "pairs", "parallel": "translations", "labelled": "pictures of equal classes"}


@dataclass(frozen=True)
class Options:
    """What a data folder holds: counts, languages, lengths of texts, sizes of pictures, duplicates, and a sheet.

    Attributes:
      folder: that `jclip data import` wrote.
      split: look at this one only; at all of them when it is not given.
      tokenizer: a bundle, or a tokenizer's file or folder: counts tokens with it.
      context_length: with a tokenizer that is no bundle: how many tokens fit.
      sample: look at so many records of each split, evenly spread.
      sheet: write a contact sheet to this .png or .html, of the first split or of --split.
      pictures: on the sheet.
      font: a .ttf or .otf file for the captions on a .png, where the system has none for Chinese.
      json: print JSON.
    """

    folder: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="FOLDER")]]
    split: str | None = None
    tokenizer: Path | None = None
    context_length: int | None = None
    sample: int | None = None
    sheet: Path | None = None
    pictures: int = 48
    font: Path | None = None
    json: bool = False


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = read(Options, arguments, "jclip data inspect")
    for name in ("sample", "pictures", "context_length"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise JclipError(f"--{name.replace('_', '-')} {value} is not possible: give 1 or more")
    kind, splits = folder_kind(options.folder)
    if options.split is not None and options.split not in splits:
        raise JclipError(f"{options.folder} has no split {options.split!r}: it has {', '.join(splits)}")
    chosen = [options.split] if options.split else splits
    if options.sheet:
        write_sheet(options.sheet, options.folder, chosen[0], options.pictures, options.font)
    counting = _counting(options)
    console = Console(stderr=True, quiet=options.json)
    found = {}
    with Progress(console=console, transient=True, auto_refresh=False, disable=options.json) as bar:  # as importing
        for split in chosen:
            moved = partial(_move, bar, bar.add_task(split))
            found[split] = inspect(options.folder, split, sample=options.sample, counting=counting, progress=moved)
    if options.json:
        splits_json = {split: figures.as_json() for split, figures in found.items()}
        print(json.dumps({"kind": kind.name, "splits": splits_json}, ensure_ascii=False, indent=1))
        return 0
    out = Console()
    for split, figures in found.items():
        out.print(_table(f"{options.folder}, {split}: {kind.name}", kind.name, figures))
    if options.sheet:
        out.print(f"look at {options.sheet}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _move(bar: Progress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)
    bar.refresh()


def _counting(options: Options) -> Counting | None:
    if options.tokenizer is None:
        if options.context_length is not None:
            raise JclipError("--context-length belongs to --tokenizer: give both")
        return None
    if (options.tokenizer / "config.json").is_file() and options.context_length is None:
        bundle = open_bundle(options.tokenizer)
        return Counting(bundle.tokenizer, bundle.context_length)
    if options.context_length is None:
        raise JclipError(f"{options.tokenizer} is no bundle, which would know it: give --context-length too")
    return Counting(load_tokenizer(options.tokenizer), options.context_length)


def _table(title: str, kind: str, found: Split) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    values = found.as_json()
    partly = f", {found.looked_at:,} looked at" if found.looked_at < found.records else ""
    table.add_row("records", f"{found.records:,}{partly}")
    if found.texts:
        named = ", ".join(f"{escape(name) or 'not said'} {count:,}" for name, count in values["languages"].items())
        table.add_row("texts", f"{found.texts:,} ({named})")
        _add_numbers(table, "characters", values["characters"])
    if "tokens" in values:
        over = f"; {found.over:,} longer than the context" if found.over else "; all fit the context"
        _add_numbers(table, "tokens", values["tokens"], over)
    if "pictures" in values:
        pictures = values["pictures"]
        table.add_section()
        for name in ("width", "height", "bytes"):
            _add_numbers(table, name, pictures[name], bars=name != "bytes")
        for name in ("formats", "modes"):
            table.add_row(name, ", ".join(f"{each} {count:,}" for each, count in pictures[name].items()))
        if found.unreadable:
            table.add_row("[red]unreadable[/]", f"{found.unreadable:,}")
    if found.classes:
        counts = sorted(found.classes.items(), key=lambda item: item[1])
        least, most = counts[0], counts[-1]
        rarest = f"fewest {escape(least[0])} {least[1]:,}, most {escape(most[0])} {most[1]:,}"
        table.add_row("classes", f"{len(counts):,}; {rarest}")
    table.add_section()
    for name, count in found.same.items():
        if (name, kind) != ("units", "labelled") or count:
            table.add_row(f"equal {_UNITS[kind] if name == 'units' else name}", f"{count:,}")
    return table


def _add_numbers(table: Table, name: str, values: dict[str, Any], more: str = "", bars: bool = True) -> None:
    if not values["count"]:
        return
    figures = "{min:,} to {max:,}, mean {mean:,.1f}, median {median:,}, 95% to {p95:,}".format(**values)
    table.add_row(name, figures + more)
    highest = max(count for _, _, count in values["histogram"])
    for start, stop, count in values["histogram"] if bars and len(values["histogram"]) > 1 else ():
        span = f"{start:,}" if start == stop else f"{start:,} to {stop:,}"
        table.add_row(f"  {span}", f"{'█' * round(_BAR * count / highest):<{_BAR}} {count:,}")
