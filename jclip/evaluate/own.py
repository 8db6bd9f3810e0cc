"""Tables and folders of pictures with captions, for evaluation: as imported folders that go when the process ends."""

import atexit
import shutil
import tempfile
from functools import cache
from itertools import islice
from pathlib import Path

from jclip.data.importing.columns import named
from jclip.data.importing.encodings import is_utf16
from jclip.data.importing.engine import Plan, import_data
from jclip.data.importing.formats import FORMATS, open_source
from jclip.data.importing.limits import Limit
from jclip.data.importing.lines import scan
from jclip.data.importing.parts import Reading
from jclip.data.kinds import Rules
from jclip.errors import JclipError

_OWN = ("csv", "picture-folder")


def own_format(place: Path) -> str | None:
    """Returns the format of a table or of a folder of pictures with captions; None for anything else.

    A file of lines PICTURE<tab>CAPTION without a header is not a table here: it is read as it is.
    """
    if place.is_file() and not (place.suffix.lower() == ".csv" or is_utf16(place) or _has_header(place)):
        return None
    return next((name for name in _OWN if FORMATS[name].fits(place)), None)


def _has_header(file: Path) -> bool:
    for line in islice(scan(file), 1):
        names = line.data.decode("utf-8", "replace").split("\t")
        return all(named(names)) and not (file.parent / names[0]).is_file()
    return False


@cache
def own_folder(place: Path, split: str) -> Path:
    """Returns a data folder with all of a source as one split; nothing may be skipped.

    Raises:
      JclipError: the source cannot be read, or not all of it.
    """
    name = own_format(place)
    beside = Path(tempfile.mkdtemp(prefix="jclip-"))
    atexit.register(shutil.rmtree, beside, ignore_errors=True)
    plan = Plan(name or "", rules=Rules(skip_duplicates=False), limit=Limit(count=0))
    try:
        import_data(open_source(name, place, Reading(splits=(split,)))[1], beside / "data", plan)
    except JclipError as error:
        if "--" not in str(error):
            raise
        raise JclipError(
            f"{error}. Options for this are those of `jclip data import`: evaluate the folder that it makes"
        ) from None
    return beside / "data"
