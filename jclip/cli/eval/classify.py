"""`jclip eval classify BUNDLE DATA`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from jclip.cli.eval._common import all_devices, check_output, check_resamples, open_model, put_out, words
from jclip.cli.options import read
from jclip.console import Console
from jclip.errors import JclipError
from jclip.evaluate.asking import class_tests
from jclip.evaluate.datasets.benchmarks import read_order, submission
from jclip.evaluate.findings import Finding, Findings
from jclip.evaluate.languages import name_of
from jclip.evaluate.metrics import classification
from jclip.evaluate.report.report import Section
from jclip.evaluate.report.shown import classified
from jclip.images.preprocess import Orientation
from jclip.inference import Model
from jclip.plain import as_json


@dataclass(frozen=True)
class Options:
    """Zero-shot classification of the pictures of DATA by BUNDLE: which class's sentences are nearest.

    DATA is a folder that `jclip data import` wrote; or it holds a folder for each class, in the order of their names,
    or a labels.tsv with PICTURE<tab>CLASS[,CLASS] lines. The names of the classes, one a line, come from --classes or
    from DATA: classes.LANGUAGE.txt, classes.txt, or cn_clip's label_cn.txt; else those of the import or of the folders
    are taken.

    Attributes:
      bundle: a model's folder.
      data: the pictures, by class.
      split: of DATA, where it has splits.
      dataset: the set's name, such as cifar-100 or imagenet: its metric, its size, its kind of prompts.
      prompts: sentences around the names, several separated by commas, one test each: a language (ar, de, en, es, fr,
        hi, it, ja, ko, nl, pl, pt, ru, th, tr, uk, vi, zh), cn_clip or open_clip for the papers' own, or a .json file.
        By default the language in whose script the classes are named: zh for Chinese names, en for Latin letters.
      classes: a file of class names; or cn_clip or open_clip for ImageNet's.
      context_length: tokens read of a sentence; by default the bundle's.
      orientation: of the camera: apply turns pictures that carry one upright, ignore takes no notice; by default what
        the bundle says, ignore for CLIP and Chinese-CLIP.
      batch_size: pictures or sentences encoded at once.
      resamples: of the bootstrap that gives the 95 % intervals; 0 for none.
      output: a new folder for results.json, report.html and report.md.
      submission: write ELEVATER's DATASET.json into it as well.
      model_name: in the submission; by default the bundle's folder.
      order: a JSON list of row numbers, the order of the submission; by default that of the import, if any.
      json: print JSON.
    """

    bundle: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="BUNDLE")]]
    data: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATA")]]
    split: str = "test"
    dataset: str = ""
    prompts: str = ""
    classes: str = ""
    context_length: int | None = None
    orientation: Orientation | None = None
    batch_size: int = 256
    resamples: int = 1000
    output: Path | None = None
    submission: bool = False
    model_name: str = ""
    order: Path | None = None
    json: bool = False


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = read(Options, arguments, "jclip eval classify")
    check_output(options.output)
    if options.submission and not (options.output and options.dataset):
        raise JclipError("--submission needs --output and --dataset: where it goes, and what the server calls the set")
    check_resamples(options.resamples)
    # All that can be wrong with the data shows before the model is read.
    tests = class_tests(options.data, options.dataset, words(options.prompts), options.classes, options.split)
    data, chosen = tests.data, ",".join(one.title for one in tests.ensembles)
    if not options.prompts:
        Console(stderr=True, quiet=options.json).tell(
            f"prompts: {name_of(chosen)}, after the names of the classes; --prompts chooses others"
        )
    file = options.order or (data.order if options.submission else None)
    order = read_order(file, len(data.pictures)) if file else None
    model = open_model(options.bundle, options.batch_size, options.context_length, options.orientation)
    findings: list[Finding] = []
    found: dict[str, Any] = {}
    sections: list[Section] = []
    with all_devices(), Console(stderr=True, quiet=options.json).working("encoding") as say:
        images_nd = model.encode_image(data.pictures)
        for one in tests.ensembles:
            say(f"encoding the sentences: {one.title}")
            classes_cd = classification.classifier(model.encode_text, one.names, one.templates)
            scores_nc = classification.cosines(images_nd, classes_cd)
            chances_nc = classification.probabilities(images_nd, classes_cd)
            findings.append(
                classification.find(
                    data,
                    scores_nc,
                    chances_nc,
                    names=one.names,
                    language=one.language,
                    variant=one.title,
                    benchmark=tests.benchmark,
                    resamples=options.resamples,
                )
            )
            if options.submission:
                ending = f".{one.title}" if len(tests.ensembles) > 1 else ""
                found[f"{options.dataset}{ending}.json"] = submission(
                    chances_nc,
                    model=options.model_name or options.bundle.name,
                    dataset=options.dataset,
                    order=order,
                    **_sizes(model),
                )
            if options.output:
                sections.append(classified(data, scores_nc, one.names, one.language, one.title))

    def files(folder: Path) -> None:
        for name, content in found.items():
            (folder / name).write_text(as_json(content), encoding="utf-8")

    settings = {"data": data.name, "dataset": options.dataset, "prompts": options.prompts or chosen}
    if options.orientation:
        settings["orientation"] = options.orientation
    put_out(
        Findings(str(options.bundle), tuple(findings), settings),
        options.output,
        as_json=options.json,
        more=files,
        sections=lambda: sections,
    )
    return 0


def _sizes(model: Model) -> dict[str, int]:
    """Parameters, as cn_clip counts them: its `visual` is the image tower with its projection."""
    leaves = jax.tree_util.tree_leaves
    params = model.params
    image = sum(leaf.size for leaf in leaves(params["image"]))
    return {"parameters": sum(leaf.size for leaf in leaves(params)), "image_parameters": image}
