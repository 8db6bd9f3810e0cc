"""Retrieval task: images, captions, and their positives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from jclip.evaluate.datasets.counting import Counted
from jclip.evaluate.metrics.positives import Positives
from jclip.evaluate.metrics.recall import QueryHits, both_ways, query_hits
from jclip.images.preprocess import Picture

Way = Literal["t2i", "i2t"]


@dataclass(frozen=True)
class RetrievalTask:
    """Retrieval task.

    Attributes:
      name: title for tables.
      pictures: files, bytes or arrays, as for `Model.encode_image`.
      captions: strings.
      positives: captions as queries, images as the gallery.
      queries: rows of the captions that are queries; None for all. From image to text, only their images are queries.
        The galleries stay complete.
      image_ids, text_ids: ids for files; None for row numbers. A deduplicated row has the id of its first item.
      language: language of the captions, BCP 47; "" if unknown.
      ways: directions that are scored: text to image, image to text.
      counted: deduplication, see `counting`; None for a task that was not read from data.
      left_out: number of captions, images and files of the source that the task lacks.
      note: remark with the reasons for leaving them out.
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

    @property
    def has_answers(self) -> bool:
        """True if positives are known. A test with secret answers has none, and cannot be scored."""
        return bool(len(self.positives.pairs_p2))

    def hits(self, image_nd: np.ndarray, text_md: np.ndarray, ks: Sequence[int] = (1, 5, 10)) -> dict[str, QueryHits]:
        """Computes the hits of each query, by direction, from features of all images and captions.

        Raises JclipError if features are not finite, shapes do not fit, or no query has a positive.
        """
        positives = self.positives
        if self.queries is not None:
            pairs_p2 = positives.pairs_p2
            positives = Positives(pairs_p2[np.isin(pairs_p2[:, 0], self.queries)], positives.queries, positives.gallery)
        found: dict[str, QueryHits] = {}
        for way in self.ways:
            if way == "t2i":
                found[way] = query_hits(text_md, image_nd, positives, ks, names=("text", "image"))
            else:
                # All captions of an image are its positives, including those that are not queries.
                asked = np.unique(positives.pairs_p2[:, 1])
                all_pairs = self.positives.swapped().pairs_p2
                answers = all_pairs[np.isin(all_pairs[:, 0], asked)]
                swapped = Positives(answers, positives.gallery, positives.queries)
                found[way] = query_hits(image_nd, text_md, swapped, ks, names=("image", "text"))
        return found

    def score(self, image_nd: np.ndarray, text_md: np.ndarray) -> dict[str, float]:
        """Computes recalls, named as `recall` names them, from features of all images and captions."""
        return both_ways(self.hits(image_nd, text_md))
