"""`jclip embed SOURCE… OUT`."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from jclip.cli.options import read
from jclip.cli.stores import check_store, push_with_progress, store_of
from jclip.console import Console, description
from jclip.errors import JclipError
from jclip.images.preprocess import Orientation
from jclip.names import ModelDtype
from jclip.plain import print_json, shown
from jclip.search.embedding import EmbedReport, ModelSource, Options, embed_with
from jclip.search.encoding import Embedder
from jclip.search.exporting import embed_clip_retrieval
from jclip.search.index import FACTS, Index, read_facts
from jclip.search.progress import Progress
from jclip.units import format_duration

FORMATS = {"index": embed_with, "clip-retrieval": embed_clip_retrieval}
"""Function of each format, all with the same arguments."""

_SHOWN = 5  # skipped images of each reason
_LINES = 20  # seconds between lines, if there is no terminal


@dataclass(frozen=True)
class EmbedOptions:
    """Embeds images and texts into an index OUT, which `jclip search` and `jclip serve` read.

    A SOURCE is a folder with all its subfolders, an image, a tar, a data folder of `jclip data import`, a text file of
    one text a line, a folder of clip-retrieval, another index, a pattern in quotes such as 'photos/**/*.jpg', or -
    for a list of paths on standard input, separated by line breaks or null characters. Hidden files and folders are
    left out. Images that cannot be read are skipped and listed. Equal images share a vector.

    An interrupted command resumes when it is given again.

        jclip embed photos photos.index --model hf://OFA-Sys/chinese-clip-vit-base-patch16
        jclip embed photos.index --update
        find photos -name '*.jpg' -print0 | jclip embed - photos.index --model bundles/chinese-clip

    Attributes:
      paths: sources and the index. With --update, the sources of the index if only the index is given.
      model: a bundle, a checkpoint or hf://ORG/NAME. An updated index remembers its own.
      update: update OUT: embed what is new or changed, follow renamed files, drop what is gone. Makes OUT if it does
        not exist.
      dry_run: print what would be done, and write nothing.
      drop_missing: with --update, drop the entries of a source that does not exist any more, or has no images any more,
        instead of stopping.
      orientation: apply rotates images by their EXIF orientation, the default; ignore keeps them as stored, as CLIP's
        and Chinese-CLIP's code does. The index remembers it.
      to: address of a database to which the index is then copied, as by `jclip index OUT --to`.
      format: index, or clip-retrieval for a folder of .npy and Parquet files that clip-retrieval reads.
      dtype: bfloat16 is faster and less exact on hardware that supports it.
      batch_size: number of images or texts that are encoded at once.
      workers: number of processes that decode images; by default the number of cores; 0 for none.
      json: print the report as JSON, with all skipped images.
    """

    paths: tyro.conf.Positional[
        Annotated[tuple[str, ...], tyro.conf.arg(metavar="SOURCE… OUT", help_behavior_hint="")]
    ] = ()
    model: str | None = None
    update: bool = False
    dry_run: bool = False
    drop_missing: bool = False
    orientation: Orientation | None = None
    to: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")] = None
    format: Literal["index", "clip-retrieval"] = "index"
    dtype: ModelDtype = "float32"
    batch_size: int = 256
    workers: int | None = None
    json: bool = False


_COUNTS = ("new", "changed", "renamed", "copied", "unchanged", "gone")


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = read(EmbedOptions, arguments, "jclip embed")
    if len(options.paths) < (1 if options.update else 2):
        raise JclipError("give SOURCE and OUT: a folder of images, and a name for the index; or an index, and --update")
    *sources, out = options.paths
    if options.to is not None:
        if options.dry_run or options.format != "index":
            raise JclipError("--to copies a written index: omit it, or --dry-run and --format")
        check_store(options.to)
    console = Console(stderr=True, quiet=options.json)
    run = FORMATS[options.format]
    with _Shown(console) as bar:
        how = Options(
            options.update, options.dry_run, options.orientation, options.workers, options.batch_size,
            options.drop_missing, bar.watch, bar.say,
        )  # fmt: skip
        report = run(_model(options, sources, Path(out)), sources, Path(out), how)
    if not options.json:
        _print(Console(), report)
    pushed = None
    if options.to is not None:
        with Index.open(out) as index, store_of(index, options.to) as store:
            pushed = push_with_progress(index, store, console)
    if options.json:
        print_json(_as_json(report) | ({} if pushed is None else {"to": pushed.record()}), indent=1)
    elif pushed is not None:
        Console().print(pushed.table(out))
    return 0


def _model(options: EmbedOptions, sources: Sequence[str], out: Path) -> ModelSource:
    """Returns the model that the user chose, or that of the index."""
    name = options.model
    if name is None:
        index = out if options.update and out.exists() else None
        if index is None and len(sources) == 1 and (Path(sources[0]) / FACTS).is_file():
            index = Path(sources[0])  # its vectors are copied
        if index is None:
            raise JclipError("no model is given: add --model with a bundle, a checkpoint or hf://ORG/NAME")
        name = read_facts(index).model_source

    def opened() -> Embedder:
        from jclip.loading import load

        return load(name, dtype=options.dtype, batch_size=options.batch_size)

    return ModelSource(opened, is_chosen=options.model is not None)


class _Shown:
    """Progress of embedding: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console):
        self._console = console
        self._told = time.monotonic()
        self._is_new = True
        # Drawn from this thread: while tensorflow-datasets is imported, no other thread may import.
        self._bar = Bar(
            *(description(), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}", markup=False)),
            console=console,
            transient=True,
            auto_refresh=False,
            disable=not console.is_terminal or console.quiet,  # elsewhere a bar would be an empty line
        )
        self._task = self._bar.add_task("", total=None, note="")

    def __enter__(self) -> "_Shown":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def say(self, words: str) -> None:
        """Shows what begins."""
        self._bar.update(self._task, description=shown(words), total=None, completed=0, note="")
        self._bar.refresh()

    def watch(self, progress: Progress) -> None:
        """Shows the progress."""
        if self._is_new and progress.resumed:
            self._console.tell(f"resuming: {progress.resumed:,} of {progress.total:,} were done before")
        self._is_new = False
        note = f"{progress.rate:,.3g}/s" if progress.rate else ""
        if progress.seconds_left:
            note += f", about {format_duration(progress.seconds_left)} left"
        if progress.skipped:
            note += f", {progress.skipped:,} skipped"
        self._bar.update(self._task, description="embedding", completed=progress.done, total=progress.total, note=note)
        self._bar.refresh()
        now = time.monotonic()
        if self._bar.disable and now - self._told >= _LINES and progress.done < progress.total:
            self._told = now
            self._console.tell(f"{progress.done:,} of {progress.total:,}, {note}".removesuffix(", "))


def _print(console: Console, report: EmbedReport) -> None:
    counts = [f"{count:,} {name}" for name in _COUNTS if (count := getattr(report, name))]
    counts += [
        f"{count:,} {what}"
        for count, what in ((len(report.skipped), "skipped"), (report.others, "other files"))
        if count
    ]
    has, encoded = "has", f"{report.embedded:,} encoded in {format_duration(report.seconds)}"
    if report.dry_run:
        has, encoded = "would have", f"{report.embedded:,} to encode"
    entries = f"{report.entries:,} {'entry' if report.entries == 1 else 'entries'}"
    console.tell(f"{report.folder} {has} {entries} ({', '.join(counts)}); {encoded}")
    for reason, count in Counter(skipped.reason for skipped in report.skipped).most_common():
        console.tell(f"{count:,} skipped: {reason}", style="yellow")
        mine = [skipped for skipped in report.skipped if skipped.reason == reason]
        for skipped in mine[:_SHOWN]:
            console.tell(f"  {skipped.path}: {skipped.detail}")
        if count > _SHOWN:
            console.tell(f"  and {count - _SHOWN:,} more; --json lists all")


def _as_json(report: EmbedReport) -> dict[str, Any]:
    skipped = [{**each._asdict(), "path": str(each.path)} for each in report.skipped]
    return {**asdict(report), "folder": str(report.folder), "skipped": skipped}
