"""`jclip classify BUNDLE IMAGES… --labels 猫,狗`."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.table import Table

from jclip.cli.options import BundleArgument, read
from jclip.console import Console, text
from jclip.data.sources.class_names import read_names
from jclip.data.sources.image_files import image_files
from jclip.errors import JclipError
from jclip.evaluate.languages import language_of, name_of
from jclip.evaluate.prompts import LANGUAGES, load_prompts
from jclip.evaluate.tasks.labelling import Labelled, fitting_templates, label_files
from jclip.images.preprocess import Orientation
from jclip.loading import load
from jclip.plain import print_json, say, shown

_NONE = "none"


@dataclass(frozen=True)
class ClassifyOptions:
    """Classifies IMAGES by labels of your own, without training.

    The probabilities of an image are the softmax over all labels of its cosine similarities times the model's logit
    scale. They compare the labels with each other, so an image that fits none of them also gets probabilities of sum 1.
    The cosines do not depend on the other labels.

      jclip classify BUNDLE holiday/ cat.jpg --labels 猫,狗,人

    Attributes:
      bundle: folder of a model; or a file, a folder or hf://ORG/NAME that `jclip convert` reads.
      images: image files, folders, and patterns in quotes such as "holiday/**/*.jpg".
      labels: labels, separated by commas.
      labels_from: file with one label a line, instead of --labels.
      language: language of the sentences around the labels, such as zh for 一张猫的照片; by default that of the labels
        by their script: zh for Chinese, en for Latin letters.
      prompts: sentences instead of those of a language: cn_clip, open_clip, a .json file as for jclip eval classify, or
        none for the labels alone.
      k: number of labels shown for each image.
      orientation: apply rotates images by their EXIF orientation, ignore does not.
      csv: print CSV: image, rank, label, probability, cosine.
      json: print JSON.
    """

    bundle: BundleArgument
    images: tyro.conf.Positional[
        Annotated[tuple[str, ...], tyro.conf.arg(metavar="IMAGES", help_behavior_hint="(required)")]
    ]
    labels: str = ""
    labels_from: Path | None = None
    language: str = ""
    prompts: str = ""
    k: int = 3
    orientation: Orientation = "apply"
    csv: bool = False
    json: bool = False

    def check(self) -> None:
        """Raises JclipError for options that contradict each other, or are missing."""
        if bool(self.labels.strip()) == (self.labels_from is not None):
            raise JclipError("give either --labels 猫,狗 or --labels-from FILE")
        if self.language and self.prompts:
            raise JclipError("--language and --prompts exclude each other: give one")
        if self.csv and self.json:
            raise JclipError("--csv and --json exclude each other: give one")
        if self.language and self.language not in LANGUAGES:
            raise JclipError(f"there are no prompts in {self.language!r}: give one of {', '.join(LANGUAGES)}")
        if self.k < 1:
            raise JclipError(f"--k {self.k} is not possible: give 1 or more")

    def names(self) -> list[str]:
        """Returns the labels. Raises JclipError if the file cannot be read."""
        if self.labels_from is not None:
            return read_names(self.labels_from)
        return [word.strip() for word in re.split("[,，、]", self.labels) if word.strip()]


def main(arguments: Sequence[str]) -> int:
    """Runs the command. Raises JclipError if an image cannot be read, after the results of the others."""
    options = read(ClassifyOptions, arguments, "jclip classify")
    options.check()
    labels = options.names()
    # Errors in the files show before the model is read.
    files = image_files(options.images)
    if not files:
        where = f"{', '.join(map(repr, options.images))}: no images" if options.images else "no IMAGES are given"
        raise JclipError(f"{where}: give files, or folders that hold some")
    prompts = options.prompts or options.language or language_of(labels)
    templates: Sequence[str] = ("{}",) if prompts == _NONE else load_prompts(prompts).templates
    console = Console(stderr=True, quiet=options.csv or options.json)
    with console.working("reading the model"):
        model = load(options.bundle)
    if not (options.prompts or options.language):
        fitting = fitting_templates(model.bundle, labels, templates)
        some = "" if len(fitting) == len(templates) else f", {len(fitting)} of {len(templates)} that fit this model"
        console.tell(f"prompts: {name_of(prompts)}, the language of the labels{some}; --language chooses another")
        prompts, templates = (prompts, fitting) if fitting else (_NONE, ("{}",))
    found: list[Labelled] = []
    with console.working("encoding") as tell:
        for one in label_files(model, files, labels, templates, orientation=options.orientation):
            found.append(one)
            tell(f"encoding: {len(found)} of {len(files)}")
    _show(found, labels, prompts, options)
    unread = [one for one in found if one.trouble]
    if unread:
        for one in unread:
            Console(stderr=True).tell(f"not read: {one.file}: {one.trouble}", style="yellow")
        raise JclipError(f"{len(unread)} of {len(files)} images cannot be read: replace them, or omit them")
    return 0


def _show(found: Sequence[Labelled], labels: Sequence[str], prompts: str, options: ClassifyOptions) -> None:
    read_ones = [one for one in found if not one.trouble]
    if options.json:
        images = [{"image": str(one.file), "labels": _best(one, labels, options.k)} for one in read_ones]
        unread = [{"image": str(one.file), "reason": one.trouble} for one in found if one.trouble]
        print_json({"labels": list(labels), "prompts": prompts, "images": images, "unreadable": unread}, indent=2)
    elif options.csv:
        say(_as_csv(read_ones, labels, options.k))
    elif read_ones:
        Console().print(_as_table(read_ones, labels, options.k))


def _best(one: Labelled, labels: Sequence[str], k: int) -> list[dict[str, Any]]:
    """Returns the k best labels of an image, best first."""
    return [
        {"label": labels[c], "probability": float(one.probabilities_c[c]), "cosine": float(one.cosines_c[c])}
        for c in one.best(k)
    ]


def _as_csv(found: Sequence[Labelled], labels: Sequence[str], k: int) -> str:
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(("image", "rank", "label", "probability", "cosine"))
    for one in found:
        for rank, each in enumerate(_best(one, labels, k), 1):
            scores = (f"{each['probability']:.6f}", f"{each['cosine']:.6f}")
            writer.writerow((shown(one.file, None), rank, shown(each["label"], None), *scores))
    return lines.getvalue().removesuffix("\n")


def _as_table(found: Sequence[Labelled], labels: Sequence[str], k: int) -> Table:
    table = Table("image", "label")
    for name in ("probability", "cosine"):
        table.add_column(name, justify="right")
    for one in found:
        best = _best(one, labels, k)
        for number, each in enumerate(best):
            first = text(one.file, longest=None) if not number else text("")
            style = "bold" if not number else ""
            table.add_row(
                first,
                text(each["label"], style),
                text(f"{100 * each['probability']:.1f} %", style),
                text(f"{each['cosine']:.3f}", style),
                end_section=number == len(best) - 1,
            )
    return table
