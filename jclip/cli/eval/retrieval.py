"""`jclip eval retrieval BUNDLE DATA`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from jclip.cli.eval._common import all_devices, check_output, check_resamples, open_model, put_out, words
from jclip.cli.options import read
from jclip.console import Console
from jclip.errors import JclipError
from jclip.evaluate import retrieving
from jclip.evaluate.asking import RetrievalTests, retrieval_tests
from jclip.evaluate.datasets.tasks import RetrievalTask
from jclip.evaluate.findings import Findings
from jclip.evaluate.report.report import Section
from jclip.evaluate.report.shown import gallery
from jclip.images.preprocess import Orientation


@dataclass(frozen=True)
class Options:
    """Recalls of BUNDLE on the pictures and captions of DATA, text to image and image to text.

    A query is a hit at k if any of its answers is among the k best; equal scores count as their expected hit. Equal
    captions are one query, which all their pictures answer, and equal pictures are one of the gallery; with --protocol
    the numbers of the data count, as published. The report says how many were joined.

    DATA is a file of PICTURE<tab>CAPTION lines with paths relative to it; a table with a header, a folder of pictures
    with captions beside, tars, Parquet or cn_clip's LMDB directories, as `jclip data import` reads them, of which a
    tenth may be left out; or a folder: cn_clip's SPLIT_texts.jsonl and SPLIT_imgs.tsv, or array_record files that
    jclip imported. Languages lie in DATA/LANGUAGE, or share the pictures as
    SPLIT_texts.LANGUAGE.jsonl.

    Attributes:
      bundle: a model's folder, such as runs/demo/altclip/2-contrastive; or a folder of features that cn_clip extracted,
        SPLIT_imgs.img_feat.jsonl and SPLIT_texts.txt_feat.jsonl.
      data: the pictures and captions.
      protocol: a published test: flickr30k, flickr30k-cn, mscoco, coco-cn, coco-cn-5k, muge, xtd, crossmodal-3600. It
        knows its split, its languages and its directions, and refuses data of another size.
      split: of a folder; the protocol's own, or "test".
      languages: one test each, separated by commas; by default all that the protocol and the folder have.
      context_length: tokens read of a caption; by default the bundle's.
      orientation: of the camera: apply turns pictures that carry one upright, ignore takes no notice; by default what
        the bundle says, ignore for CLIP and Chinese-CLIP.
      batch_size: pictures or captions encoded at once.
      resamples: of the bootstrap that gives the 95 % intervals; 0 for none.
      output: a new folder for results.json, report.html, report.md, and cn_clip's files of predictions and answers.
      features: write cn_clip's files of features into it as well; they may be given as BUNDLE then.
      json: print JSON.
    """

    bundle: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="BUNDLE")]]
    data: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATA")]]
    protocol: str = ""
    split: str = ""
    languages: str = ""
    context_length: int | None = None
    orientation: Orientation | None = None
    batch_size: int = 256
    resamples: int = 1000
    output: Path | None = None
    features: bool = False
    json: bool = False


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = read(Options, arguments, "jclip eval retrieval")
    check_output(options.output)
    languages = words(options.languages)
    _check_encoding(options)
    asked = retrieval_tests(options.data, options.protocol, options.split, languages)
    check_resamples(options.resamples)
    if options.features and options.output is None:
        raise JclipError("--features needs --output: where they go")
    secret = next((task for task in asked.tasks if not retrieving.has_answers(task)), None)
    if secret is not None and options.output is None:
        raise JclipError(f"{secret.name} has no answers, so nothing can be scored: give --output for the predictions")

    def named(task: RetrievalTask) -> str:  # what its files are called
        return f"{asked.split}.{task.language}" if asked.by_language else asked.split

    with all_devices():
        with Console(stderr=True, quiet=options.json).working("encoding") as say:
            found = []
            for one in _found(options, asked, named):
                found.append(one)
                say(f"encoding: {len(found)} of {len(asked.tasks)} done")
            say("scoring")
            scored = [one for one in found if retrieving.has_answers(one[0])]
            tests = [retrieving.find(*one, note=asked.note, resamples=options.resamples) for one in scored]

        def files(folder: Path) -> None:
            for task, images, texts in found:
                retrieving.write_cn_clip(folder, named(task), task, images, texts, features_too=options.features)

        def sections() -> list[Section]:
            galleries = [gallery(*one) for one in scored[:_GALLERIES]]
            return [Section("What they find", _SHOWN, galleries)] if galleries else []

        settings = {"data": str(options.data), "split": asked.split, "protocol": options.protocol}
        if options.orientation:
            settings["orientation"] = options.orientation
        findings = Findings(str(options.bundle), tuple(tests), settings)
        put_out(findings, options.output, as_json=options.json, more=files, sections=sections)
    return 0


def _is_features(folder: Path) -> bool:
    """Whether BUNDLE is a folder of features that cn_clip extracted."""
    return not (folder / "config.json").is_file() and any(folder.glob("*_feat.jsonl"))


def _check_encoding(options: Options) -> None:
    """Refuses options of encoding where nothing is encoded."""
    given = {"--orientation": options.orientation, "--context-length": options.context_length}
    said = " and ".join(name for name, value in given.items() if value is not None)
    if said and _is_features(options.bundle):
        raise JclipError(f"{options.bundle} holds features, which {said} cannot change: omit it, or name the model")


_GALLERIES = 8  # a page with those of 36 languages would be too large to open
_SHOWN = """A few captions, drawn by lot, and the best pictures for each; a green frame marks a right one."""


def _found(
    options: Options, asked: RetrievalTests, named: Callable[[RetrievalTask], str]
) -> Iterator[tuple[RetrievalTask, np.ndarray, np.ndarray]]:
    """(task, images_nd, texts_md) of each, from the bundle or from cn_clip's files."""
    folder = options.bundle
    if _is_features(folder):
        for task in asked.tasks:
            yield task, *retrieving.read_cn_clip_features(folder, named(task), task)
        return
    model = open_model(folder, options.batch_size, options.context_length, options.orientation)
    yield from retrieving.encoded(asked.tasks, model.encode_image, model.encode_text)
