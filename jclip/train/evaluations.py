"""What is evaluated during a run, as plain data. `jclip.evaluators` makes evaluators of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Retrieval:
    """Recalls between pictures and captions, as `jclip eval retrieval` finds them.

    Attributes:
      name: of its figures: "muge" gives "muge/t2i_r1", ..., "muge/mean_recall"; in several languages "xtd/zh/t2i_r1".
      data: a file of pairs, or a folder.
      protocol: a published test, which knows its split, its languages and its directions; "" for none.
      split: of a folder; the protocol's own, or "test".
      languages: by default all that the protocol and the folder have.
    """

    name: str
    data: str
    protocol: str = ""
    split: str = ""
    languages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Classification:
    """Zero-shot classification, as `jclip eval classify` finds it.

    Attributes:
      name: of its figures: "cifar" gives "cifar/accuracy", ...; with several prompts "cifar/zh/accuracy".
      data: a folder of pictures by class.
      dataset: the set's name; "" for one of your own.
      prompts: names of ensembles: languages, "cn_clip", "open_clip", .json files; by default the language in whose
        script the classes are named.
      classes: a file of class names, or "cn_clip" or "open_clip" for ImageNet's; "" for those beside the data.
      split: of data that have splits.
    """

    name: str
    data: str
    dataset: str = ""
    prompts: tuple[str, ...] = ()
    classes: str = ""
    split: str = "test"


@dataclass(frozen=True)
class Probe:
    """A linear probe on the features of this moment, as `jclip eval probe` finds it.

    Attributes:
      name: of its figures: "pets" gives "pets/accuracy", ...; with several numbers of shots "pets/16/accuracy".
      data: a folder with train, test and perhaps valid.
      dataset: the set's name; "" for one of your own.
      shots: pictures of each class; 0 for all.
      seeds: few-shot figures are means over so many draws.
    """

    name: str
    data: str
    dataset: str = ""
    shots: tuple[int, ...] = (0,)
    seeds: int = 3


Evaluation = Retrieval | Classification | Probe
