"""Published retrieval tests by name: split, languages, directions and sizes.

`jclip data import` uses the same names for the data.

Sizes: Yang et al. 2022 (Chinese-CLIP), Chen et al. 2022 (AltCLIP, section 4.1), and the data sets' own papers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from jclip.errors import JclipError
from jclip.evaluate.datasets.retrieval_task import RetrievalTask, Way
from jclip.names import suggestion


@dataclass(frozen=True)
class Protocol:
    """Published test.

    Attributes:
      title: name for tables.
      split: split of the data set.
      languages: languages of its captions, one test each.
      pictures: number of images; None for any.
      captions: allowed numbers of captions; empty for any.
      ways: directions that are reported, with R@1, R@5 and R@10 of each and the mean of all.
      note: remark for comparisons.
    """

    title: str
    split: str
    languages: tuple[str, ...]
    pictures: int | None = None
    captions: tuple[int, ...] = ()
    ways: tuple[Way, ...] = ("t2i", "i2t")
    note: str = ""

    def has_captions(self, task: RetrievalTask) -> bool:
        """Returns whether the task has the test's number of captions."""
        return not self.captions or len(task.captions) in self.captions

    def apply(self, task: RetrievalTask) -> RetrievalTask:
        """Returns the task with this test's name and directions.

        Raises JclipError if the task has another number of images or captions than this test.
        """
        wrong = []
        if self.pictures is not None and len(task.pictures) != self.pictures:
            wrong.append(f"{len(task.pictures)} images instead of {self.pictures}")
        if not self.has_captions(task):
            wrong.append(f"{len(task.captions)} captions instead of {' or '.join(map(str, self.captions))}")
        if wrong:
            raise JclipError(
                f"{task.name} has {' and '.join(wrong)}, so it is not the {self.split} split of {self.title}, or not "
                "all of it: choose another --split, or omit --protocol"
            )
        return replace(task, name=self.title, ways=self.ways)


_XTD = ("de", "en", "es", "fr", "it", "ja", "ko", "pl", "ru", "tr", "zh")
_CROSSMODAL = (
    "ar", "bn", "cs", "da", "de", "el", "en", "es", "fa", "fi", "fil", "fr", "he", "hi", "hr", "hu", "id", "it",
    "ja", "ko", "mi", "nl", "no", "pl", "pt", "quz", "ro", "ru", "sv", "sw", "te", "th", "tr", "uk", "vi", "zh",
)  # fmt: skip

PROTOCOLS: Mapping[str, Protocol] = {
    "flickr30k": Protocol("Flickr30k", "test", ("en",), 1000, (5000,)),
    "flickr30k-cn": Protocol("Flickr30K-CN", "test", ("zh",), 1000, (5000,), note="Captions translated by people."),
    # Some files keep all 25,010 captions of the 5,000 images, others the first five of each.
    "mscoco": Protocol("COCO 5K", "test", ("en",), 5000, (25_000, 25_010)),
    "coco-cn": Protocol(
        "COCO-CN 1K",
        "test",
        ("zh",),
        1000,
        (1053,),
        note="Captions written by people. Chinese-CLIP's pre-training data hold translated COCO captions, so its "
        "zero-shot figures are not quite zero-shot.",
    ),
    # The papers call it 5K; their figures are of a gallery of 1,000 images with 5,000 captions (inferred: text to
    # image scores as on the 1K test, not as on the English 5K one).
    "coco-cn-5k": Protocol("COCO-CN 5K", "test", ("zh",), captions=(5000,), note="Captions translated by people."),
    "muge": Protocol("MUGE", "valid", ("zh",), 29_806, (5008,), ("t2i",), "The test split's answers are secret."),
    "xtd": Protocol(
        "XTD",
        "test",
        _XTD,
        1000,
        (1000,),
        note="Papers report R@10, and not all the same direction: compare with care.",
    ),
    "crossmodal-3600": Protocol("Crossmodal-3600", "test", _CROSSMODAL, 3600),
}


def get_protocol(name: str) -> Protocol:
    """Returns a protocol by name. Raises JclipError, with similar names, if the name is unknown."""
    if name not in PROTOCOLS:
        raise JclipError(f"there is no protocol {name!r}: {suggestion(name, PROTOCOLS)}")
    return PROTOCOLS[name]
