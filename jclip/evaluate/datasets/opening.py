"""Opens the data of an evaluation, given the options of a command or a configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jclip.errors import JclipError
from jclip.evaluate.datasets.benchmarks import Benchmark, get_benchmark
from jclip.evaluate.datasets.captions import open_captions
from jclip.evaluate.datasets.classes import ClassSet, class_names, has_names, read_classes, splits_in
from jclip.evaluate.datasets.duplicates import count_shared
from jclip.evaluate.datasets.protocols import Protocol, get_protocol
from jclip.evaluate.datasets.retrieval_task import RetrievalTask
from jclip.evaluate.languages import language_of
from jclip.evaluate.prompts import LANGUAGES, imagenet_names, load_prompts


@dataclass(frozen=True)
class RetrievalTests:
    """Tasks on one data set, one for each language.

    Attributes:
      tasks: at least one.
      split: name of the split.
      note: remark of the protocol.
      by_language: True if the data have captions in several languages, even if only one is requested.
    """

    tasks: tuple[RetrievalTask, ...]
    split: str
    note: str = ""
    by_language: bool = False

    def file_name(self, task: RetrievalTask) -> str:
        """Returns the beginning of the names of a task's files."""
        return f"{self.split}.{task.language}" if self.by_language else self.split


@dataclass(frozen=True)
class Ensemble:
    """Class names and prompts in one language.

    Attributes:
      title: short name of the prompts.
      language: language of both, BCP 47.
      names: class names.
      templates: sentences with {} in place of a name.
    """

    title: str
    language: str
    names: tuple[str, ...]
    templates: tuple[str, ...]


@dataclass(frozen=True)
class ClassificationTests:
    """A classification set and its prompt ensembles.

    Attributes:
      data: images and classes.
      benchmark: facts about a known data set; None for the user's own.
      ensembles: prompt ensembles, at least one.
    """

    data: ClassSet
    benchmark: Benchmark | None
    ensembles: tuple[Ensemble, ...]

    @property
    def title(self) -> str:
        """Titles of the ensembles, joined by commas."""
        return ",".join(one.title for one in self.ensembles)


@dataclass(frozen=True)
class ProbeSplits:
    """Splits of a data set for linear probes.

    Attributes:
      splits: "train", "test", and "valid" if it exists.
      benchmark: facts about a known data set; None for the user's own.
      names: class names to show, in English if the data have them.
      shared: number of test images that are in another split too.
    """

    splits: Mapping[str, ClassSet]
    benchmark: Benchmark | None
    names: Sequence[str]
    shared: int = 0

    @property
    def note(self) -> str:
        """Remark on shared test images and on files left out of a split; empty without either."""
        shared = (
            f"{self.shared:,} of {len(self.splits['test'].pictures):,} test images are in split train or valid too, "
            "so the figures are too high: remove them from one."
        )
        notes = [f"Split {name}: {one.note}" for name, one in self.splits.items() if one.note]
        return " ".join([shared, *notes] if self.shared else notes)


def open_retrieval(data: Path, protocol: str = "", split: str = "", languages: Sequence[str] = ()) -> RetrievalTests:
    """Opens the tasks in a file or a folder.

    Without a protocol, equal images and equal captions are deduplicated. With a protocol, rows follow the ids of the
    source, as published (see `counting`). Data without ids are deduplicated if only then their number of captions is
    the protocol's.

    Raises JclipError if the data cannot be read or differ in size from the protocol's, or the protocol or a language is
    unknown. If the data do not name the language of their captions, at most one language may be given.

    Args:
      data: file or folder, as for `captions.open_captions`.
      protocol: a name of `protocols.PROTOCOLS`, "" for none.
      split: split of a folder; "" for the protocol's own, or "test".
      languages: languages of the captions; empty for all that the protocol and the folder have.
    """
    chosen = get_protocol(protocol) if protocol else None
    split = split or (chosen.split if chosen else "test")
    captions = open_captions(data, split, "published" if chosen else "joined")
    tasks = []
    for language in _languages(data, split, captions.languages, chosen, languages):
        task = captions.task(language)
        if chosen and task.text_ids is None and not chosen.has_captions(task):
            again = open_captions(data, split).task(language)
            task = again if chosen.has_captions(again) else task
        tasks.append(chosen.apply(task) if chosen else task)
    return RetrievalTests(tuple(tasks), split, chosen.note if chosen else "", len(captions.languages) > 1)


def _languages(
    data: Path, split: str, available: Sequence[str], protocol: Protocol | None, wanted: Sequence[str]
) -> Sequence[str]:
    if wanted and protocol and (strange := sorted(set(wanted) - set(protocol.languages))):
        raise JclipError(f"{protocol.title} has no captions in {strange[0]}: it has {', '.join(protocol.languages)}")
    if protocol and not wanted:
        if len(protocol.languages) == 1:
            wanted = protocol.languages
        elif not set(available) & set(protocol.languages):
            raise JclipError(
                f"{data} has no {split} captions by language: expected folders or files of "
                f"{', '.join(protocol.languages)}; name the language of these captions with --languages"
            )
        else:
            return [language for language in protocol.languages if language in available]
    if available and (lost := sorted(set(wanted) - set(available))):
        raise JclipError(f"{data} has no {split} captions in {lost[0]}: it has {', '.join(available)}")
    if not available and len(wanted) > 1:
        raise JclipError(
            f"{data} does not say in which languages its captions are, so --languages must name one, not "
            f"{', '.join(wanted)}: give one, or put each language into its own folder"
        )
    return wanted or available or [""]


def open_classification(
    data: Path, dataset: str = "", ensembles: Sequence[str] = (), classes: str = "", split: str = "test"
) -> ClassificationTests:
    """Opens the images in a folder, with class names and prompts.

    Raises JclipError if the data or the prompts cannot be read, the data set is unknown, or the data have another size.

    Args:
      data, split: folder, and its split if it has any, as for `classes.read_classes`.
      dataset: a name of `benchmarks.BENCHMARKS`, "" for none.
      ensembles: names of prompt ensembles, as for `load_prompts`; empty for the language of the class names.
      classes: file of class names; "cn_clip" or "open_clip" for ImageNet's; "" for the names in the data.
    """
    benchmark = get_benchmark(dataset) if dataset else None
    found = read_classes(data, split)
    if benchmark:
        benchmark.check(found.name, len(found.keys), len(found.pictures))
    chosen = []
    for name in ensembles or [names_language(found, classes)]:
        prompts = load_prompts(name, dataset, benchmark.kind if benchmark else "general")
        if classes in ("cn_clip", "open_clip"):
            names = imagenet_names(classes)
            if len(names) != len(found.keys):
                raise JclipError(
                    f"{classes}'s {len(names)} class names are ImageNet's, but {found.name} has {len(found.keys)} "
                    "classes: name another file with --classes"
                )
        else:
            names = class_names(found, prompts.language, Path(classes) if classes else None)
        chosen.append(Ensemble(Path(name).stem.replace(":", "-"), prompts.language, tuple(names), prompts.templates))
    return ClassificationTests(found, benchmark, tuple(chosen))


def names_language(data: ClassSet, classes: str = "") -> str:
    """Returns the language of the class names, by which prompts are chosen.

    English is preferred, then names of unmarked language (by their script), then Chinese, then others. `classes` is as
    in `open_classification`. Raises JclipError if the names cannot be read, or their number is wrong.
    """
    if classes in ("cn_clip", "open_clip"):
        return "zh" if classes == "cn_clip" else "en"
    file = Path(classes) if classes else None
    if file is None:
        others = [language for language in LANGUAGES if has_names(data, language)]
        if others and "en" not in others and not has_names(data, ""):
            return "zh" if "zh" in others else others[0]
    return language_of(class_names(data, "en", file))


def open_probe(data: Path, dataset: str = "") -> ProbeSplits:
    """Opens the splits train and test, and valid if it exists, of a folder with a folder for each, or of a data folder.

    `dataset` is a name of `benchmarks.BENCHMARKS`, "" for none. Raises JclipError if a split is missing or cannot be
    read, splits have different classes, an image has several classes, or the test split differs in size from the data
    set's.
    """
    benchmark = get_benchmark(dataset) if dataset else None
    if not data.is_dir():
        raise JclipError(f"{data} does not exist: name a folder with train and test")
    names = splits_in(data)
    if not {"train", "test"} <= set(names):
        found = ", ".join(names) or "none"
        raise JclipError(f"{data} must have the splits train and test, but has {found}: give it a folder of each")
    splits = {name: read_classes(data, name) for name in ("train", "test")}
    for name in {"valid", "val"} & set(names):
        splits["valid"] = read_classes(data, name)
    train, test = splits["train"], splits["test"]
    for one in splits.values():
        if one.keys != train.keys:
            raise JclipError(f"{one.name} has other classes than {train.name}: give both the same folders")
        if not one.single:
            raise JclipError(f"{one.name} has images of several classes, which a probe cannot learn: give one each")
    if benchmark:
        benchmark.check(test.name, len(test.keys), len(test.pictures))
    shown = class_names(train, "en") if "en" in train.labels else train.keys
    trained = [one.pictures for name, one in splits.items() if name != "test"]
    return ProbeSplits(splits, benchmark, shown, count_shared(test.pictures, *trained))
