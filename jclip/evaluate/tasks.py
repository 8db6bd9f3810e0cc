"""What is to be retrieved: pictures, captions, and which belong together."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jclip.data.images import Picture
from jclip.errors import JclipError
from jclip.evaluate.retrieval import recall, recalls


@dataclass(frozen=True)
class RetrievalTask:
    """A gallery and its captions: a picture and a caption with equal keys belong together.

    Attributes:
      name: for tables.
      pictures: what `inference.Encoder.images` takes.
      captions: strings.
      picture_keys, caption_keys: integers, one for each.
      queries: indices of the captions that are asked, all when None; their pictures are asked the other way. The
        gallery stays whole.
    """

    name: str
    pictures: Sequence[Picture] | np.ndarray
    captions: Sequence[str]
    picture_keys: np.ndarray
    caption_keys: np.ndarray
    queries: np.ndarray | None = None

    def score(self, images_nd: np.ndarray, texts_md: np.ndarray) -> dict[str, float]:
        """Recalls of given features of all pictures and captions."""
        if self.queries is None:
            return recalls(images_nd, texts_md, self.picture_keys, self.caption_keys)
        keys_q = self.caption_keys[self.queries]
        shown = np.isin(self.picture_keys, keys_q)
        ways = {
            "t2i": recall(texts_md[self.queries], images_nd, keys_q, self.picture_keys, names=("text", "image")),
            "i2t": recall(
                images_nd[shown], texts_md, self.picture_keys[shown], self.caption_keys, names=("image", "text")
            ),
        }
        return {f"{way}_{name}": value for way, figures in ways.items() for name, value in figures.items()}


def read_pairs(file: Path) -> RetrievalTask:
    """A task from a file of PICTURE<tab>CAPTION lines; equal captions and equal pictures count once each.

    Raises:
      JclipError: no such file, a line of another form, or no line at all; the line's number is given.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise JclipError(f"{file} cannot be read: {error}") from None
    pictures: dict[Path, int] = {}
    captions: list[str] = []
    keys: list[int] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, tab, caption = line.partition("\t")
        if not tab or not caption.strip():
            raise JclipError(f"{file}, line {number}: expected PICTURE<tab>CAPTION, found {line[:60]!r}")
        path = file.parent / name
        if not path.is_file():
            raise JclipError(f"{file}, line {number}: there is no picture {path}")
        captions.append(caption.strip())
        keys.append(pictures.setdefault(path, len(pictures)))
    if not captions:
        raise JclipError(f"{file} holds no pair: give it lines PICTURE<tab>CAPTION")
    return RetrievalTask(str(file), list(pictures), captions, np.arange(len(pictures)), np.array(keys))
