"""The demo's report.html: queries with the images they find, figures, and learning curves."""

import io
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jclip.demo.emoji.artists import ARTISTS
from jclip.demo.emoji.protocol import ASKED, LANGUAGES
from jclip.demo.runs import DemoRun
from jclip.demo.scores import EVALUATION, Examination, tables
from jclip.evaluate.languages import LANGUAGE_NAMES
from jclip.evaluate.metrics.recall import topk
from jclip.evaluate.report.elements import Answer, Chart, Credit, Curve, Gallery, Query, Report, Section
from jclip.evaluate.report.render import write
from jclip.images.preprocess import Preprocessing
from jclip.loading import load

_HOMES = {
    "noto": "https://github.com/googlefonts/noto-emoji",
    "twemoji": "https://github.com/jdecked/twemoji",
    "openmoji": "https://openmoji.org",
}
_SHOWN, _QUERIES = 6, 2
_SHOWN_AS = Preprocessing(size=72, resize="squash", background=(255, 255, 255))
"""Preprocessing of the images shown on the page: with their margins, unlike those of the models."""
_INTRO = """Four small models of two to five million parameters, trained from scratch on this machine by the same \
code that trains at full size. 1. An English CLIP. 2. AltCLIP: a multilingual text tower learns from the English one \
without images, then trains contrastively with the image tower frozen. 3. Chinese-CLIP: a new Chinese text tower \
trains with the image tower frozen, then both towers train. 4. A control for the second stage of Chinese-CLIP: the \
same steps with the image tower still frozen.

All figures are on images by {asked}, an artist that no run trained on; the training images are by {trained}. They are \
for one seed; the README gives the spread over seeds."""


def write_page(
    file: Path,
    runs: Sequence[DemoRun],
    journals: Mapping[str, list[dict[str, Any]]],
    results: Mapping[str, Any],
    examination: Examination,
) -> Path:
    """Writes the report and returns its path."""
    altclip = next(each for each in runs if each.key == "altclip")
    sections = [
        Section("Retrieved images", _GALLERY_NOTE, [_gallery(altclip.bundle(), examination)]),
        Section("Recall", _FIGURES_NOTE, tables(results)),
        Section(
            "Learning curves", _CURVES_NOTE, [chart for each in runs for chart in _charts(each, journals[each.key])]
        ),
    ]
    facts = [
        ("trained and scored in", f"{results['seconds'] / 60:.1f} min"),
        ("concepts known, held out", f"{examination.known}, {len(examination.rows) - examination.known}"),
        ("languages trained, tested", f"{len(LANGUAGES)}, {len(ASKED)}"),
        ("training steps", f"{sum(s.budget.steps or 0 for each in runs for s in each.run.stages):,}"),
    ]
    seed = runs[0].run.seed
    trained = " and ".join(ARTISTS[artist].title for artist in examination.train_artists)
    write(
        Report(
            title="jclip demo: emoji, in ten languages",
            intro=_INTRO.format(asked=ARTISTS[examination.artist].title, trained=trained),
            sections=sections,
            facts=facts,
            credits=[_credit(name, shown=name == examination.artist) for name in ARTISTS],
            footer=f"jclip {version('jclip')}, jax {version('jax')}, seed {seed}. Made by `jclip demo`.",
        ),
        file,
    )
    return file


_GALLERY_NOTE = """Images that AltCLIP retrieves after both stages, best first, for two random known concepts in each \
language. The queries are names that it was trained on; the candidates are the images of all concepts, held-out ones \
included."""
_FIGURES_NOTE = """Recall in per cent, before and after each stage, and that of chance. The pixel baseline names an \
image by its nearest training image in 32 × 32 pixels. It reads no text, so it has no figures from text to image."""
_CURVES_NOTE = """Recall of known concepts at the start and at the end of each stage, and the loss, by step. \
Runs that start from another run's parameters are above chance at their first step."""


def _gallery(bundle: Path, examination: Examination) -> Gallery:
    model = load(bundle)
    pictures = [
        _png(picture) for picture in examination.emoji.pictures(examination.artist, _SHOWN_AS)[examination.rows]
    ]
    english = examination.names("en")
    images_nd = model.encode_image(examination.pictures)
    lots = np.random.default_rng(0).permutation(examination.known).tolist()
    queries = []
    for language in ASKED:
        names = examination.names(language)
        shown = [i for i in lots if not examination.emoji.is_heldout(examination.rows[i], language)]
        asked = shown[:_QUERIES]
        lots = [i for i in lots if i not in asked]
        best_qk, _ = topk(model.encode_text([names[i] for i in asked]), images_nd, len(pictures))
        for i, order in zip(asked, best_qk, strict=True):
            right = [names[j] == names[i] for j in order]
            results = [
                Answer(pictures[j], ok, english[j]) for j, ok in zip(order[:_SHOWN], right[:_SHOWN], strict=True)
            ]
            meaning = "" if language == "en" else english[i]
            queries.append(Query(names[i], language, LANGUAGE_NAMES[language], results, meaning, right.index(True) + 1))
    return Gallery("Queries in ten languages", queries)


def _charts(each: DemoRun, journal: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Returns a chart of recalls and a chart of the losses of each objective, which have different units."""
    charts: dict[str, list[Curve]] = {}
    for stage in each.run.stages:
        records = [record for record in journal if record["kind"] == "train" and record["stage"] == stage.name]
        curve = Curve(stage.name, [r["total"] for r in records], [r["loss"] for r in records])
        charts.setdefault(f"{stage.objective.title} loss", []).append(curve)
    return [_recalls(each, journal), *(Chart(f"{each.title}: {loss}", curves) for loss, curves in charts.items())]


def _recalls(each: DemoRun, journal: Sequence[Mapping[str, Any]]) -> Chart:
    """Charts R@1 from text to image: the run's first language, the mean of the others, and chance."""
    records = [record for record in journal if record["kind"] == "evaluation"]

    def mean(languages: Sequence[str], figure: str) -> list[float]:
        return [
            float(np.mean([r[f"{EVALUATION}/{language}/known/t2i_{figure}"] for language in languages]))
            for r in records
        ]

    first, *others = each.languages
    groups = {LANGUAGE_NAMES[first]: [first], **({"mean of the other languages": others} if others else {})}
    curves = [Curve(name, [r["total"] for r in records], mean(group, "r1")) for name, group in groups.items()]
    starts = np.cumsum([0] + [stage.budget.steps for stage in each.run.stages])
    return Chart(
        f"{each.title}: R@1 from text to image",
        curves,
        levels=[("chance", level) for level in mean(each.languages, "chance_r1")[:1]],
        marks=[(stage.name, float(start)) for stage, start in zip(each.run.stages, starts, strict=False)],
        percent=True,
    )


def _credit(artist: str, shown: bool) -> Credit:
    part = "Shown on this page; not trained on." if shown else "Trained on; not shown."
    return Credit(ARTISTS[artist].title, ARTISTS[artist].licence, _HOMES[artist], part)


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()
