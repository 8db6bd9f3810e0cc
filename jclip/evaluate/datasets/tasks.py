"""What is to be retrieved: pictures, captions, and which belong together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from jclip.evaluate.datasets.rows import Counted
from jclip.evaluate.metrics.positives import Positives
from jclip.evaluate.metrics.retrieval import Judged, both_ways, judge
from jclip.images.preprocess import Picture

Way = Literal["t2i", "i2t"]


@dataclass(frozen=True)
class RetrievalTask:
    """A gallery and its captions.

    Attributes:
      name: for tables.
      pictures: what `inference.Encoder.images` takes.
      captions: strings.
      positives: which picture rows answer which caption rows.
      queries: rows of the captions that are asked, all when None; their pictures are asked the other way. The gallery
        stays whole.
      image_ids, text_ids: numbers for files, the rows when None. A row of several joined has the first one's.
      language: of the captions, BCP 47; "" where nobody said.
      ways: what is asked: captions for pictures, pictures for captions.
      counted: see `rows`; None for a question that was not made from a file or a folder.
      left_out: number of captions, pictures and files of the source that are not in it.
      note: why they are not.
    """

    name: str
    pictures: Sequence[Picture] | np.ndarray
    captions: Sequence[str]
    positives: Positives
    queries: np.ndarray | None = None
    image_ids: Sequence[int] | None = None
    text_ids: Sequence[int] | None = None
    language: str = ""
    ways: tuple[Way, ...] = ("t2i", "i2t")
    counted: Counted | None = None
    left_out: int = 0
    note: str = ""

    def judge(self, images_nd: np.ndarray, texts_md: np.ndarray, ks: Sequence[int] = (1, 5, 10)) -> dict[str, Judged]:
        """What came of each query, by features of all pictures and captions.

        Raises:
          JclipError: as `retrieval.judge`.
        """
        positives = self.positives
        if self.queries is not None:
            pairs_p2 = positives.pairs_p2
            positives = Positives(pairs_p2[np.isin(pairs_p2[:, 0], self.queries)], positives.queries, positives.gallery)
        found: dict[str, Judged] = {}
        for way in self.ways:
            if way == "t2i":
                found[way] = judge(texts_md, images_nd, positives, ks, names=("text", "image"))
            else:
                # A picture that is asked may answer with any caption that belongs to it, asked or not.
                asked = np.unique(positives.pairs_p2[:, 1])
                all_pairs = self.positives.swapped().pairs_p2
                answers = all_pairs[np.isin(all_pairs[:, 0], asked)]
                swapped = Positives(answers, positives.gallery, positives.queries)
                found[way] = judge(images_nd, texts_md, swapped, ks, names=("image", "text"))
        return found

    def score(self, images_nd: np.ndarray, texts_md: np.ndarray) -> dict[str, float]:
        """Recalls, named as `retrieval.recalls` names them, by features of all pictures and captions."""
        return both_ways(self.judge(images_nd, texts_md))
