"""Imports sources such as tables and tars into a temporary folder, which is removed when the process ends."""

import atexit
import shutil
import tempfile
from functools import cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from jclip.data.importing.columns import named
from jclip.data.importing.encodings import is_utf16
from jclip.data.importing.engine import Plan, import_data
from jclip.data.importing.formats import FORMATS, open_source
from jclip.data.importing.limits import Limit
from jclip.data.importing.lines import scan
from jclip.data.importing.parts import Reading
from jclip.data.importing.report import SplitReport
from jclip.data.sources.kinds import KeepRules
from jclip.errors import JclipError
from jclip.plain import shown

_IMPORTED = ("csv", "picture-folder", "webdataset", "parquet", "cn-clip-lmdb")


def importable_format(place: Path) -> str | None:
    """Returns the name of the import format of a source of images with captions; None if it is read without an import.

    A file of PICTURE<tab>CAPTION lines without a header is read without an import.
    """
    name = next((name for name in _IMPORTED if FORMATS[name].fits(place)), None)
    table = place.suffix.lower() == ".csv" or is_utf16(place) or _has_header(place) if name == "csv" else True
    if place.is_file() and not table:
        return None
    return name


def _has_header(file: Path) -> bool:
    for line in islice(scan(file), 1):
        names = line.data.decode("utf-8", "replace").split("\t")
        return all(named(names)) and not (file.parent / names[0]).is_file()
    return False


class TemporaryFolder(NamedTuple):
    """Imported data folder.

    Attributes:
      folder: the folder, with one split.
      left_out: number of pairs and files of the source that the folder lacks.
      note: number and an example for each reason; empty if nothing was left out.
    """

    folder: Path
    left_out: int
    note: str


@cache
def import_temporarily(place: Path, split: str) -> TemporaryFolder:
    """Imports a source as one split of a temporary data folder. Up to a tenth of it may be unreadable.

    Raises JclipError if the source, or more than a tenth of it, cannot be read.
    """
    name = importable_format(place)
    beside = Path(tempfile.mkdtemp(prefix="jclip-"))
    atexit.register(shutil.rmtree, beside, ignore_errors=True)
    plan = Plan(name or "", rules=KeepRules(skip_duplicates=False), limit=Limit(share=0.1))
    try:
        report = import_data(open_source(name, place, Reading(splits=(split,)))[1], beside / "data", plan)
    except JclipError as error:
        if "--" not in str(error):
            raise
        raise JclipError(
            f"{error}. These are options of `jclip data import`: evaluate the folder that it writes"
        ) from None
    return _counted(beside / "data", report.splits[split])


def _counted(folder: Path, split: SplitReport) -> TemporaryFolder:
    left = [
        f"{count:,} x {shown(reason)} ({shown(some.places[reason][0])})"
        for some in (split.skipped, split.beside)
        for reason, count in sorted(some.counts.items())
    ]
    count = split.skipped.units + split.beside.units
    return TemporaryFolder(folder, count, f"{count:,} left out: {', '.join(left)}." if left else "")
