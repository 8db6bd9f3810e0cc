"""`jclip eval retrieval BUNDLE DATA`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jclip.cli.eval._common import BundleOptions, all_devices, words
from jclip.cli.options import read
from jclip.errors import JclipError
from jclip.evaluate.datasets.opening import RetrievalTests, open_retrieval
from jclip.evaluate.tasks import retrieval
from jclip.evaluate.tasks.cn_clip import holds_features, read_cn_clip_features
from jclip.evaluate.tasks.retrieval import Encoded


@dataclass(frozen=True)
class RetrievalOptions(BundleOptions):
    """Evaluates retrieval by BUNDLE on the images and captions of DATA, text to image and image to text.

    A query is a hit at k if one of its positives is among the k best; ties count as the expected hit. Equal captions
    are one query, with the positives of all, and equal images are one image. With --protocol, ids decide instead:
    captions or images with different ids count separately, as published. The report gives the number of duplicates.

    DATA is a file of PICTURE<tab>CAPTION lines, with paths relative to it; or a folder with cn_clip's SPLIT_texts.jsonl
    and SPLIT_imgs.tsv, or one that `jclip data import` wrote. Or it is a source that `jclip data import` reads, such as
    a table with a header, a folder with captions beside the images, or tars; a tenth of its records may be unreadable.
    Several languages are folders DATA/LANGUAGE, or files SPLIT_texts.LANGUAGE.jsonl with the same images.

    Attributes:
      bundle: folder of a model, such as runs/demo/altclip/2-contrastive; or a file, a folder or hf://ORG/NAME that
        `jclip convert` reads; or a folder of features that cn_clip extracted, SPLIT_imgs.img_feat.jsonl and
        SPLIT_texts.txt_feat.jsonl.
      data: images and captions.
      protocol: published test: flickr30k, flickr30k-cn, mscoco, coco-cn, coco-cn-5k, muge, xtd, crossmodal-3600.
        Decides split, languages and directions, and refuses data with other numbers of images or captions.
      split: split of a folder; by default the protocol's own, or "test".
      languages: languages separated by commas, one test each; by default all that the protocol and the folder have.
      context_length: maximum number of tokens of a caption; by default the bundle's.
      output: new folder for results.json, report.html, report.md, and cn_clip's files of predictions and answers.
      features: also write cn_clip's files of features into the output folder, which can then be given as BUNDLE.
    """

    protocol: str = ""
    split: str = ""
    languages: str = ""
    context_length: int | None = None
    features: bool = False


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = read(RetrievalOptions, arguments, "jclip eval retrieval")
    options.check()
    languages = words(options.languages)
    _check_encoding(options)
    tests = open_retrieval(options.data, options.protocol, options.split, languages)
    if options.features and options.output is None:
        raise JclipError("--features needs --output: give the folder")
    secret = next((task for task in tests.tasks if not task.has_answers), None)
    if secret is not None and options.output is None:
        raise JclipError(f"{secret.name} has no answers, so nothing can be scored: give --output for the predictions")
    settings = options.settings(data=str(options.data), split=tests.split, protocol=options.protocol)
    with all_devices():
        encoded = _encoded(options, tests)
        with options.console().working("encoding") as say:
            evaluation = retrieval.evaluate(
                tests,
                encoded,
                model=str(options.bundle),
                settings=settings,
                resamples=options.resamples,
                features_too=options.features,
                progress=say,
            )
        options.show(evaluation)
    return 0


def _check_encoding(options: RetrievalOptions) -> None:
    """Raises JclipError if an option of encoding is given and the bundle is a folder of features."""
    given = {"--orientation": options.orientation, "--context-length": options.context_length}
    named = " and ".join(name for name, value in given.items() if value is not None)
    if named and holds_features(Path(options.bundle)):
        raise JclipError(f"{options.bundle} holds features, which {named} cannot change: omit it, or name the model")


def _encoded(options: RetrievalOptions, tests: RetrievalTests) -> Iterator[Encoded]:
    """Returns the tasks with features of the bundle, which is loaded at once, or with those in cn_clip's files."""
    folder = Path(options.bundle)
    if holds_features(folder):
        return (Encoded(task, *read_cn_clip_features(folder, tests.file_name(task), task)) for task in tests.tasks)
    return retrieval.encode_tasks(tests.tasks, options.model(options.context_length))
