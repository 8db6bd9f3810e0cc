"""`jclip eval classify BUNDLE DATA`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from jclip.cli.eval._common import BundleOptions, all_devices, words
from jclip.cli.options import read
from jclip.errors import JclipError
from jclip.evaluate.datasets.benchmarks import read_order
from jclip.evaluate.datasets.opening import open_classification
from jclip.evaluate.languages import name_of
from jclip.evaluate.tasks import classification


@dataclass(frozen=True)
class ClassifyOptions(BundleOptions):
    """Evaluates zero-shot classification of the images of DATA by BUNDLE.

    DATA is a folder that `jclip data import` wrote, or one with a folder for each class, sorted by name, or one with
    a labels.tsv of PICTURE<tab>CLASS[,CLASS] lines. Class names come from --classes, or from a file in DATA with one
    name a line: classes.LANGUAGE.txt, classes.txt or cn_clip's label_cn.txt. Without any of these, the names are those
    of the import or of the folders.

    Attributes:
      data: images by class.
      split: split of DATA, if it has splits.
      dataset: name of the data set, such as cifar-100 or imagenet; decides the metric, the kind of
        prompts, and the numbers of classes and images that are expected.
      prompts: prompt ensembles, separated by commas, one test each: a language (ar, de, en, es, fr, hi, it, ja, ko, nl,
        pl, pt, ru, th, tr, uk, vi, zh), cn_clip or open_clip for the papers' own, or a .json file. By default the
        language of the class names by their script: zh for Chinese, en for Latin letters.
      classes: file of class names; or cn_clip or open_clip for ImageNet's.
      context_length: maximum number of tokens of a sentence; by default the bundle's.
      submission: also write ELEVATER's DATASET.json into the output folder.
      model_name: name in the submission; by default the bundle's folder.
      order: JSON list of row numbers, the order of the submission; by default that of the import, if any.
    """

    split: str = "test"
    dataset: str = ""
    prompts: str = ""
    classes: str = ""
    context_length: int | None = None
    submission: bool = False
    model_name: str = ""
    order: Path | None = None


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = read(ClassifyOptions, arguments, "jclip eval classify")
    options.check()
    if options.submission and not (options.output and options.dataset):
        raise JclipError("--submission needs --output and --dataset: give both")
    # Errors in the data show before the model is read.
    tests = open_classification(options.data, options.dataset, words(options.prompts), options.classes, options.split)
    console = options.console()
    if not options.prompts:
        console.tell(f"prompts: {name_of(tests.title)}, the language of the class names; --prompts chooses others")
    file = options.order or (tests.data.order if options.submission else None)
    order = read_order(file, len(tests.data.pictures)) if file else None
    model = options.model(options.context_length)
    with all_devices(), console.working("encoding") as say:
        found = list(classification.evaluate(tests, model, resamples=options.resamples, progress=say))
    prompts = options.prompts or tests.title
    settings = options.settings(data=tests.data.name, dataset=options.dataset, prompts=prompts)
    evaluation = classification.as_evaluation(tests, found, model=str(options.bundle), settings=settings)
    if options.submission:
        name = options.model_name or Path(options.bundle).name
        facts = {"dataset": options.dataset, "name": name, "params": model.params, "order": order}
        evaluation = replace(evaluation, more_files=partial(classification.write_submissions, found, **facts))
    options.show(evaluation)
    return 0
