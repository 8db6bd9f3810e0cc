"""`jclip data inspect FOLDER`."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TimeRemainingColumn
from rich.table import Table

from jclip.bundle import is_bundle, open_bundle
from jclip.cli.options import read
from jclip.console import Console, description, facts, text
from jclip.data.inspecting.contact_sheet import write_sheet
from jclip.data.inspecting.statistics import SplitStatistics, TokenCounting, folder_kind, inspect
from jclip.errors import JclipError
from jclip.io.files import check_writable
from jclip.loading import local_bundle
from jclip.plain import print_json, shown
from jclip.tokenizers.text import load_tokenizer

_BAR = 24  # letters of the longest bar
_MOST_BARS = 2  # languages of which a histogram is shown
_MOST_CLASSES, _ENDS = 20, 5  # maximum number of classes shown; of more, the number shown from each end
_SAME = {"english": "English texts", "pictures": "images"}
_UNITS = {"pairs": "pairs", "parallel": "translations", "labelled": "images with equal classes"}


@dataclass(frozen=True)
class InspectOptions:
    """Prints statistics of a data folder, and can write a contact sheet of its images.

    Attributes:
      folder: folder that `jclip data import` wrote.
      split: split to inspect; by default all.
      tokenizer: bundle, hf://ORG/NAME, or a tokenizer's file or folder, for counting tokens.
      context_length: context length, for a tokenizer that is not a bundle's.
      sample: number of records of each split to read, evenly spaced; by default all.
      sheet: write a contact sheet of the first split, or of --split, to this .png or .html.
      pictures: number of images on the sheet.
      font: .ttf or .otf file for the captions on a .png, if the system has none for Chinese.
      json: print JSON.
    """

    folder: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="FOLDER")]]
    split: str | None = None
    tokenizer: str | None = None
    context_length: int | None = None
    sample: int | None = None
    sheet: Path | None = None
    pictures: int = 48
    font: Path | None = None
    json: bool = False


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = read(InspectOptions, arguments, "jclip data inspect")
    for name in ("sample", "pictures", "context_length"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise JclipError(f"--{name.replace('_', '-')} {value} is not possible: give 1 or more")
    if options.sheet:
        check_writable(options.sheet)
    kind, splits = folder_kind(options.folder)
    if options.split is not None and options.split not in splits:
        raise JclipError(f"{options.folder} has no split {options.split!r}: it has {', '.join(splits)}")
    chosen = [options.split] if options.split else splits
    if options.sheet:
        write_sheet(options.sheet, options.folder, chosen[0], options.pictures, options.font)
    counting = _counting(options)
    console = Console(stderr=True)
    terminal = console.is_terminal and not options.json  # refreshed as in importing
    found = {}
    columns = (description(), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, auto_refresh=False, disable=not terminal) as bar:
        for split in chosen:
            moved = partial(_move, bar, bar.add_task(shown(split)))
            found[split] = inspect(options.folder, split, sample=options.sample, counting=counting, progress=moved)
    if options.json:
        splits_json = {split: figures.as_json() for split, figures in found.items()}
        print_json({"kind": kind.name, "splits": splits_json}, indent=1)
        return 0
    out = Console()
    for split, figures in found.items():
        out.print(_table(f"{options.folder}, {split}: {kind.name}", kind.name, figures))
    if options.sheet:
        out.tell(f"written: {options.sheet}")
    return 0


def _move(bar: Progress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)
    bar.refresh()


def _counting(options: InspectOptions) -> TokenCounting | None:
    if options.tokenizer is None:
        if options.context_length is not None:
            raise JclipError("--context-length belongs to --tokenizer: give both")
        return None
    if options.context_length is not None:
        return TokenCounting(load_tokenizer(Path(options.tokenizer)), options.context_length)
    if Path(options.tokenizer).is_file():
        raise JclipError(f"{options.tokenizer} is a file, so --context-length is missing: give it too")
    folder = local_bundle(options.tokenizer)
    if not is_bundle(folder):
        raise JclipError(f"{options.tokenizer} is not a bundle, so --context-length is missing: give it too")
    bundle = open_bundle(folder)
    return TokenCounting(bundle.tokenizer, bundle.context_length)


def _table(title: str, kind: str, found: SplitStatistics) -> Table:
    table = facts(title)
    values = found.as_json()
    partly = f", {found.looked_at:,} read" if found.looked_at < found.records else ""
    table.add_row("records", f"{found.records:,}{partly}")
    if found.texts:
        named = ", ".join(f"{_language(name)} {count:,}" for name, count in values["languages"].items())
        table.add_row("texts", f"{found.texts:,} ({named})")
    for name, lengths in values.get("lengths", {}).items():
        which = f", {_language(name)}" if len(found.lengths) > 1 else ""
        bars = len(found.lengths) <= _MOST_BARS
        _add_numbers(table, f"characters{which}", lengths["characters"], bars=bars)
        if "tokens" in lengths:
            over = lengths["tokens"]["over"]
            fits = f"; {over:,} longer than the context" if over else "; all fit the context"
            _add_numbers(table, f"tokens{which}", lengths["tokens"], fits, bars)
    if "pictures" in values:
        pictures = values["pictures"]
        table.add_section()
        for name in ("width", "height", "bytes"):
            _add_numbers(table, name, pictures[name], bars=name != "bytes")
        for name in ("formats", "modes"):
            table.add_row(name, ", ".join(f"{shown(each)} {count:,}" for each, count in pictures[name].items()))
        if found.turned:
            table.add_row("rotated by EXIF", f"{found.turned:,}: ignored unless --orientation apply is given")
        if found.unreadable:
            table.add_row(text("unreadable", "red"), text(f"{found.unreadable:,} (the first: {found.why})"))
    if found.classes:
        _add_classes(table, found)
    table.add_section()
    for name, count in found.same.items():
        if (name, kind) != ("units", "labelled") or count:
            table.add_row(f"equal {_UNITS[kind] if name == 'units' else _SAME.get(name, name)}", f"{count:,}")
    return table


def _language(name: str) -> str:
    return shown(name) or "unknown"


def _add_classes(table: Table, found: SplitStatistics) -> None:
    """Adds all classes if they are few, or those with the most and the fewest images."""
    ranked = sorted(found.classes.items(), key=lambda item: -item[1])
    counts = [count for _, count in ranked]
    spread = f"{counts[-1]:,} to {counts[0]:,}" if counts[0] != counts[-1] else f"{counts[0]:,}"
    table.add_row("classes", f"{len(ranked):,}, with {spread} image(s) each")

    def called(name: str) -> str:
        return shown(f"{name} {found.labels[name]}" if found.labels else name)

    if len(ranked) <= _MOST_CLASSES:
        for name, count in found.classes.items():
            table.add_row(f"  {called(name)}", _bar(count, counts[0]))
        return
    for what, some in (("most", ranked[:_ENDS]), ("fewest", ranked[: -_ENDS - 1 : -1])):
        table.add_row(f"  {what}", "; ".join(f"{called(name)} {count:,}" for name, count in some))


def _bar(count: int, highest: int) -> str:
    return f"{'█' * round(_BAR * count / max(1, highest)):<{_BAR}} {count:,}"


def _add_numbers(table: Table, name: str, values: dict[str, Any], more: str = "", bars: bool = True) -> None:
    if not values["count"]:
        return
    figures = "{min:,} to {max:,}, mean {mean:,.1f}, median {median:,}, 95th percentile {p95:,}"
    if values["min"] == values["max"]:
        figures = "{min:,} each"
    table.add_row(name, figures.format(**values) + more)
    highest = max(count for _, _, count in values["histogram"])
    for start, stop, count in values["histogram"] if bars and len(values["histogram"]) > 1 else ():
        span = f"{start:,}" if start == stop else f"{start:,} to {stop:,}"
        table.add_row(f"  {span}", _bar(count, highest))
