"""Image files that a user names: files, folders, and patterns such as "holiday/**/*.jpg"."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from jclip.data.sources.class_files import NO_PICTURE, ClassFile, files_of_class
from jclip.errors import JclipError
from jclip.io.reading import is_hidden


def image_files(names: Sequence[str | Path]) -> list[ClassFile]:
    """Returns the files that `names` stand for, each once, with the reason if one cannot be an image.

    A folder stands for the images in it and its subfolders; hidden files and files without an extension of an image
    format are omitted. A name that does not exist and has one of "*?[" is a pattern; "**" matches any subfolders. Other
    names are files, whatever their extension.

    Raises JclipError if there is no file of a name, a pattern matches nothing, or a folder cannot be listed.
    """
    return list(dict.fromkeys(found for name in names for found in _named(Path(name))))


def _named(name: Path) -> Iterator[ClassFile]:
    if name.is_dir():
        for found in files_of_class(name):
            if found.reason != NO_PICTURE and not any(map(is_hidden, found.file.relative_to(name).parts)):
                yield found
    elif os.path.lexists(name):
        yield ClassFile(name)
    elif glob.has_magic(str(name)):
        matches = sorted(glob.glob(str(name), recursive=True))
        if not matches:
            raise JclipError(f"{name} matches no file: correct the pattern")
        for match in matches:
            yield from _named(Path(match))
    else:
        raise JclipError(f"there is no file {name}: give images, folders or patterns")
