"""`jclip data import [FORMAT] SRC DST`."""

import math
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from jclip.cli.options import read
from jclip.console import Console, description
from jclip.data.importing.encodings import check_encoding
from jclip.data.importing.engine import Plan, import_data
from jclip.data.importing.formats import FORMATS, open_source
from jclip.data.importing.limits import Limit
from jclip.data.importing.parts import Reader, Reading
from jclip.data.importing.validation import HeldOut
from jclip.data.importing.workers import in_processes, on_beam
from jclip.data.sources.kinds import LABELLED, KeepRules
from jclip.errors import JclipError
from jclip.images.checking import PictureRules
from jclip.images.opening import cores, max_megapixels
from jclip.images.preprocess import Orientation
from jclip.plain import print_json, say, shown


@dataclass(frozen=True)
class ImportOptions:
    """Imports files of other programs into a folder of sharded array_record files, which training and evaluation read.

    FORMAT may be omitted if it can be detected. An interrupted import resumes when the same command is given again. DST
    must not exist. It gets a report.json with the number and the reasons of skipped records.

    Attributes:
      paths: FORMAT, SRC and DST; `jclip data import --formats` explains the formats.
      formats: explain the formats, and do nothing else.
      splits: names of splits, separated by commas; for a format without splits one name, by default train.
      validation: images of split train that become split valid: a number, such as 30, or a share, such as 10%.
      add: add the splits to DST, a folder of the same kind that has none of these splits.
      language: language of the captions, of the other text, or of the names in classes.txt, such as zh.
      picture: column or field with the image, or its path.
      caption: column or field with the caption.
      english: column or field with the English text.
      other: column or field with the text in the other language.
      language_column: column or field with the language.
      separator: separator of columns, one character or tab; by default detected, or that of the format's own program.
      encoding: encoding of a table or of captions, such as gb18030 or cp1252; by default UTF-8, UTF-16 and GB18030 are
        detected.
      root: folder in which the image paths of a table start; by default the table's own.
      captions_from: source of the captions of a picture-folder: files beside the images, or the images' file names.
      min_length: skip texts of fewer characters; the papers' data had 5 to 50.
      max_length: skip texts of more characters.
      duplicates: skip or keep exact duplicates; by default skip, but keep for benchmarks and labelled images.
      max_skipped: stop if more records are skipped: a number, or a share such as 10%, the default; 0 for benchmarks.
      max_megapixels: skip images of more millions of pixels; by default $JCLIP_MAX_MEGAPIXELS, or what the memory
        allows, 16 to 178. Training and encoding use the same default; the report names the images that are kept but
        exceed it.
      orientation: EXIF orientation of images: apply stores them upright, losslessly as PNG or TIFF; ignore, the
        default, keeps their bytes, and training ignores the orientation, as CLIP's and Chinese-CLIP's code does.
      shard_mib: approximate size of the source data of one shard, in MiB.
      workers: number of processes; by default the number of cores. Not with --beam, which has its own.
      beam: run on Apache Beam; --beam-options choose the runner, by default its direct runner.
      beam_options: options of Apache Beam, in one string after an equals sign: --beam-options='--runner=FlinkRunner'.
      json: print the report as JSON.
    """

    paths: tyro.conf.Positional[
        Annotated[tuple[str, ...], tyro.conf.arg(metavar="[FORMAT] SRC DST", help_behavior_hint="")]
    ] = ()
    formats: bool = False
    splits: str | None = None
    validation: str | None = None
    add: bool = False
    language: str | None = None
    picture: str | None = None
    caption: str | None = None
    english: str | None = None
    other: str | None = None
    language_column: str | None = None
    separator: str | None = None
    encoding: str | None = None
    root: str | None = None
    captions_from: Literal["files", "names"] | None = None
    min_length: int = 1
    max_length: int | None = None
    duplicates: Literal["skip", "keep"] | None = None
    max_skipped: str | None = None
    max_megapixels: float | None = None
    orientation: Orientation = "ignore"
    shard_mib: float = 128
    workers: int | None = None
    beam: bool = False
    beam_options: str = ""
    json: bool = False


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = read(ImportOptions, arguments, "jclip data import")
    if options.formats:
        for name, form in FORMATS.items():
            say(f"{name}: {form.what}")
        return 0
    if len(options.paths) not in (2, 3):
        raise JclipError(f"give [FORMAT] SRC DST: {len(options.paths)} word(s) given")
    *named, source, destination = options.paths
    reading = _reading(options)
    name, reader = open_source(named[0] if named else None, Path(source), reading)
    console = Console(stderr=True, quiet=options.json)
    with shown_progress(console) as progress:
        report = import_data(reader, Path(destination), _plan(options, name, reader, reading), progress)
    if options.json:
        print_json(report.as_json(), indent=1)
    else:
        console.print(report.table(f"{destination}: imported"))
    return 0


def _reading(options: ImportOptions) -> Reading:
    splits = None
    if options.splits is not None:
        splits = tuple(dict.fromkeys(split.strip() for split in options.splits.split(",")))
    if splits is not None and not all(split.isidentifier() for split in splits):
        raise JclipError(f"--splits {options.splits} is not possible: give names such as train,valid")
    separator = {None: None, "\\t": "\t", "tab": "\t"}.get(options.separator, options.separator)
    if separator is not None and len(separator) != 1:
        raise JclipError(f"--separator {options.separator!r} is not possible: give one character, or tab")
    said = {each.name: getattr(options, each.name) for each in fields(Reading)}
    encoding = None if options.encoding is None else check_encoding(options.encoding)
    return Reading(**said | {"splits": splits, "separator": separator, "encoding": encoding})


def _plan(options: ImportOptions, name: str, reader: Reader, reading: Reading) -> Plan:
    if options.min_length < 1 or (options.max_length or options.min_length) < options.min_length:
        raise JclipError(
            f"--min-length {options.min_length} --max-length {options.max_length} leave no text: give 1 or more, and "
            "a maximum of at least the minimum"
        )
    if options.shard_mib <= 0:
        raise JclipError(f"--shard-mib {options.shard_mib:g} is not possible: give more than 0")
    if options.workers is not None and options.workers < 1:
        raise JclipError(f"--workers {options.workers} is not possible: give 1 or more")
    if options.beam_options and not options.beam:
        raise JclipError("--beam-options belong to --beam: give both")
    if options.beam and options.workers is not None:
        raise JclipError(
            "--workers are processes of this machine, but Beam has its own: give instead "
            "--beam-options='--direct_num_workers=4 --direct_running_mode=multi_processing'"
        )
    megapixels = max_megapixels() if options.max_megapixels is None else options.max_megapixels
    if not 0 < megapixels < math.inf:
        raise JclipError(f"--max-megapixels {megapixels:g} is not possible: give more than 0, as 100")
    limit = Limit.read(options.max_skipped or ("0" if reader.strict else "10%"))
    keep = reader.strict or reader.kind is LABELLED  # a benchmark's figures count equal images too
    skip = options.duplicates == "skip" or (options.duplicates is None and not keep)
    run = on_beam(shlex.split(options.beam_options)) if options.beam else in_processes(options.workers or cores())
    return Plan(
        name,
        asdict(reading),
        KeepRules(options.min_length, options.max_length, skip, PictureRules(megapixels, options.orientation)),
        limit,
        max(1, int(options.shard_mib * 2**20)),
        run,
        validation=None if options.validation is None else HeldOut.read(options.validation),
        add=options.add,
    )


@contextmanager
def shown_progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Yields a function of (description, parts done, total parts) that draws a progress bar, if on a terminal."""
    columns = (description(), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Drawn from this thread, not another: while tensorflow-datasets is imported, no other thread may import.
    terminal = console.is_terminal and not console.quiet  # elsewhere a bar would be an empty line
    with Progress(*columns, console=console, transient=True, auto_refresh=False, disable=not terminal) as bar:
        task = bar.add_task("", total=None)

        def report(what: str, done: int, total: int) -> None:
            bar.update(task, description=shown(what), completed=done, total=total or None)
            bar.refresh()

        yield report
