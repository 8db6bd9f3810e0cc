"""What is to be evaluated, from what a person or a configuration says: data, protocols, prompts, languages."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jclip.errors import JclipError
from jclip.evaluate.datasets.benchmarks import Benchmark, get_benchmark
from jclip.evaluate.datasets.class_sets import ClassSet, class_names, has_names, read_classes
from jclip.evaluate.datasets.protocols import Protocol, get_protocol
from jclip.evaluate.datasets.sets import open_captions
from jclip.evaluate.datasets.tasks import RetrievalTask
from jclip.evaluate.languages import language_of
from jclip.evaluate.prompts import LANGUAGES, names_of, prompts


@dataclass(frozen=True)
class RetrievalTests:
    """Tasks on one data set, one for each language.

    Attributes:
      tasks: at least one.
      split: of the data.
      note: of the protocol.
      by_language: whether the data have several languages, asked or not.
    """

    tasks: tuple[RetrievalTask, ...]
    split: str
    note: str = ""
    by_language: bool = False


@dataclass(frozen=True)
class Ensemble:
    """What is asked of one classification set in one language.

    Attributes:
      title: of the prompts, short.
      language: theirs.
      names: of the classes.
      templates: sentences with {} for a name.
    """

    title: str
    language: str
    names: tuple[str, ...]
    templates: tuple[str, ...]


@dataclass(frozen=True)
class ClassTests:
    """A classification set, and in which words it is asked.

    Attributes:
      data: pictures and classes.
      benchmark: what is known of the set; None for one of somebody's own.
      ensembles: at least one.
    """

    data: ClassSet
    benchmark: Benchmark | None
    ensembles: tuple[Ensemble, ...]


def retrieval_tests(data: Path, protocol: str = "", split: str = "", languages: Sequence[str] = ()) -> RetrievalTests:
    """The tasks in a file or a folder.

    Equal pictures and equal captions are joined. A protocol counts as it was published, see `rows`: by the source's
    numbers. Where there are none, and its number of captions is only met if equal ones are one, those are joined.

    Args:
      data: what `sets.open_captions` opens.
      protocol: a name of `protocols.PROTOCOLS`, "" for none.
      split: of a folder; the protocol's own, or "test".
      languages: by default all that the protocol and the folder have.

    Raises:
      JclipError: as `sets.open_captions`; an unknown protocol, a language that is not there, several for captions of
        which nobody said whose they are (one may be given: it names them), data of another size.
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
    data: Path, split: str, here: Sequence[str], protocol: Protocol | None, wanted: Sequence[str]
) -> Sequence[str]:
    if wanted and protocol and (strange := sorted(set(wanted) - set(protocol.languages))):
        raise JclipError(f"{protocol.title} has no captions in {strange[0]}: it has {', '.join(protocol.languages)}")
    if protocol and not wanted:
        if len(protocol.languages) == 1:
            wanted = protocol.languages
        elif not set(here) & set(protocol.languages):
            raise JclipError(
                f"{data} has no {split} captions by language: expected folders or files of "
                f"{', '.join(protocol.languages)}; name one with --languages if these captions are all in it"
            )
        else:
            return [language for language in protocol.languages if language in here]
    if here and (lost := sorted(set(wanted) - set(here))):
        raise JclipError(f"{data} has no {split} captions in {lost[0]}: it has {', '.join(here)}")
    if not here and len(wanted) > 1:
        raise JclipError(
            f"{data} does not say in which languages its captions are, so they have one name, not {', '.join(wanted)}: "
            "give --languages one, or each language a folder of its own"
        )
    return wanted or here or [""]


def class_tests(
    data: Path, dataset: str = "", ensembles: Sequence[str] = (), classes: str = "", split: str = "test"
) -> ClassTests:
    """The pictures in a folder, and the sentences for their classes.

    Args:
      data: what `class_sets.read_classes` reads.
      dataset: a name of `benchmarks.BENCHMARKS`, "" for none.
      ensembles: what `prompts.prompts` takes; by default the prompts of the language in whose script the classes are
        named.
      classes: a file of names; "cn_clip" or "open_clip" for ImageNet's; "" for those beside the data.
      split: of data that have splits.

    Raises:
      JclipError: as `class_sets.read_classes` and `prompts.prompts`; an unknown data set, or data of another size.
    """
    benchmark = get_benchmark(dataset) if dataset else None
    found = read_classes(data, split)
    if benchmark:
        benchmark.check(found.name, len(found.keys), len(found.pictures))
    asked = []
    for name in ensembles or [names_language(found, classes)]:
        chosen = prompts(name, dataset, benchmark.kind if benchmark else "general")
        if classes in ("cn_clip", "open_clip"):
            names = names_of(classes)
            if len(names) != len(found.keys):
                raise JclipError(f"{classes}'s {len(names)} class names are ImageNet's, but {found.name} has others")
        else:
            names = class_names(found, chosen.language, Path(classes) if classes else None)
        asked.append(Ensemble(Path(name).stem.replace(":", "-"), chosen.language, tuple(names), chosen.templates))
    return ClassTests(found, benchmark, tuple(asked))


def names_language(data: ClassSet, classes: str = "") -> str:
    """Returns the language of a set's class names: English where it has English ones, else by their script.

    Args:
      data: the set.
      classes: as of `class_tests`.

    Raises:
      JclipError: as `class_sets.class_names`.
    """
    if classes in ("cn_clip", "open_clip"):
        return "zh" if classes == "cn_clip" else "en"
    file = Path(classes) if classes else None
    if file is None:
        others = [language for language in LANGUAGES if has_names(data, language)]
        if others and "en" not in others and not has_names(data, ""):
            return "zh" if "zh" in others else others[0]
    return language_of(class_names(data, "en", file))
