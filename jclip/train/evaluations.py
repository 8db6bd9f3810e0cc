"""Configuration of the evaluations of a run. `jclip.evaluators` builds the evaluators."""

from dataclasses import dataclass

from jclip.config import kind_of


class EvaluationConfig:
    """Evaluation of a run. Other packages can add kinds.

    A kind is a frozen dataclass that inherits this class and is decorated with `@kind_of(EvaluationConfig)`. Register
    the function that opens it with `@jclip.evaluators.open_evaluation.register`. `name` is the prefix of its figures.
    """

    name: str


@kind_of(EvaluationConfig)
@dataclass(frozen=True)
class Retrieval(EvaluationConfig):
    """Image-text recall, as in `jclip eval retrieval`.

    Attributes:
      name: prefix of its figures: "muge" gives "muge/t2i_r1", ..., "muge/mean_recall"; with several languages
        "xtd/zh/t2i_r1".
      data: a file of pairs, or a folder.
      protocol: a published benchmark, which sets the split, the languages and the directions; "" for none.
      split: split of a folder; "" for the protocol's, or "test".
      languages: languages to evaluate; empty for all of the protocol and the folder.
    """

    name: str
    data: str
    protocol: str = ""
    split: str = ""
    languages: tuple[str, ...] = ()


@kind_of(EvaluationConfig)
@dataclass(frozen=True)
class Classification(EvaluationConfig):
    """Zero-shot classification, as in `jclip eval classify`.

    Attributes:
      name: prefix of its figures: "cifar" gives "cifar/accuracy", ...; with several prompts "cifar/zh/accuracy".
      data: a folder of images by class.
      dataset: name of a known data set; "" for your own.
      prompts: names of prompt ensembles: languages, "cn_clip", "open_clip", .json files; empty for the language of
        the class names.
      classes: a file of class names, or "cn_clip" or "open_clip" for ImageNet's; "" for the file beside the data.
      split: split of the data, if it has splits.
    """

    name: str
    data: str
    dataset: str = ""
    prompts: tuple[str, ...] = ()
    classes: str = ""
    split: str = "test"


@kind_of(EvaluationConfig)
@dataclass(frozen=True)
class Probe(EvaluationConfig):
    """A linear probe on the current features, as in `jclip eval probe`.

    Attributes:
      name: prefix of its figures: "pets" gives "pets/accuracy", ...; with several numbers of shots "pets/16/accuracy".
      data: a folder with train, test and optionally valid.
      dataset: name of a known data set; "" for your own.
      shots: images per class; 0 for all.
      seeds: number of draws that few-shot figures are averaged over.
    """

    name: str
    data: str
    dataset: str = ""
    shots: tuple[int, ...] = (0,)
    seeds: int = 3
