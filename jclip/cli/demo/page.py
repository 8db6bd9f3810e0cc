"""The demo's report.html: what was done, the curves, the figures, and queries with the pictures they find."""

import io
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from configs.demo import common
from jclip.cli.demo.runs import DemoRun
from jclip.cli.demo.scores import Examination, tables
from jclip.data.emoji.artists import ARTISTS
from jclip.data.emoji.sources import EmojiPairs
from jclip.data.images import Preprocessing
from jclip.evaluate.chart import Chart, Curve
from jclip.evaluate.report import Credit, Gallery, Query, Report, Result, Section, write
from jclip.evaluate.retrieval import topk
from jclip.inference import load

_NAMES = {
    "en": "English",
    "zh": "中文",
    "ja": "日本語",
    "ko": "한국어",
    "de": "Deutsch",
    "fr": "français",
    "es": "español",
    "ru": "русский",
    "ar": "العربية",
    "it": "italiano",
}
_HOMES = {
    "noto": "https://github.com/googlefonts/noto-emoji",
    "twemoji": "https://github.com/twitter/twemoji",
    "openmoji": "https://openmoji.org",
}
_SHOWN, _QUERIES = 6, 2
_SHOWN_AS = Preprocessing(size=72, resize="squash")
"""For people, the pictures as their artist framed them."""
_INTRO = """Four small models, two to five million parameters each, trained from nothing on this machine through \
the same trainer, configurations and checkpoints that a pod would use: an English CLIP; AltCLIP, whose \
multilingual text tower learns from the English one without seeing a picture and then trains contrastively \
beside the frozen image tower; Chinese-CLIP, a new Chinese text tower beside the frozen image tower, then \
everything; and a control that spends the second stage's steps frozen.

All figures are on pictures by {asked}, an artist that no training saw; training saw {trained}. One run, one \
seed: the README gives the spread over seeds."""


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
        Section("What they find", _GALLERY_NOTE, [_gallery(altclip.bundle(), examination)]),
        Section("How well", _FIGURES_NOTE, tables(results)),
        Section("How they learned", "", [_loss(each, journals[each.key]) for each in runs]),
    ]
    facts = [
        ("trained and scored in", f"{results['seconds'] / 60:.1f} min"),
        ("concepts known, held out", f"{examination.known}, {len(examination.rows) - examination.known}"),
        ("languages", str(len(common.LANGUAGES))),
        ("training steps", f"{sum(s.budget.steps or 0 for each in runs for s in each.run.stages):,}"),
    ]
    seed = runs[0].run.seed
    write(
        Report(
            title="jclip demo: emoji, in ten languages",
            intro=_INTRO.format(asked=ARTISTS[examination.artist].title, trained=_drawn_by(runs[0])),
            sections=sections,
            facts=facts,
            credits=[Credit(artist.title, artist.licence, _HOMES[name]) for name, artist in ARTISTS.items()],
            footer=f"jclip {version('jclip')}, jax {version('jax')}, seed {seed}. Made by `jclip demo`.",
        ),
        file,
    )
    return file


_GALLERY_NOTE = """AltCLIP after both stages. In each language two known concepts, drawn by lot, are asked by their \
name; the best answers first, among the pictures of all concepts, held-out ones too."""
_FIGURES_NOTE = """Recall in per cent, before and after each stage, beside chance. The pixel nearest neighbour names a \
picture by the closest training picture in 32 × 32 pixels; it reads no text, so it answers from image to text only."""


def _gallery(bundle: Path, examination: Examination) -> Gallery:
    model = load(bundle)
    pictures = [
        _png(picture) for picture in examination.emoji.pictures(examination.artist, _SHOWN_AS)[examination.rows]
    ]
    english = examination.names("en")
    images_nd = model.encode_image(examination.pictures)
    drawn = np.random.default_rng(0).permutation(examination.known)
    queries = []
    for number, language in enumerate(common.ASKED):
        names = examination.names(language)
        asked = drawn[_QUERIES * number : _QUERIES * (number + 1)]
        best_qk, _ = topk(model.encode_text([names[i] for i in asked]), images_nd, len(pictures))
        for i, order in zip(asked, best_qk, strict=True):
            right = [names[j] == names[i] for j in order]
            results = [
                Result(pictures[j], ok, english[j]) for j, ok in zip(order[:_SHOWN], right[:_SHOWN], strict=True)
            ]
            meaning = "" if language == "en" else english[i]
            queries.append(Query(names[i], language, _NAMES[language], results, meaning, right.index(True) + 1))
    return Gallery("Queries in ten languages", queries)


def _drawn_by(each: DemoRun) -> str:
    (source,) = each.run.stages[0].data
    assert isinstance(source, EmojiPairs)
    return " and ".join(ARTISTS[artist].title for artist in source.artists)


def _loss(each: DemoRun, journal: Sequence[Mapping[str, Any]]) -> Chart:
    curves = []
    for stage in each.run.stages:
        records = [record for record in journal if record["kind"] == "train" and record["stage"] == stage.name]
        curves.append(Curve(stage.name, [r["total"] for r in records], [r["loss"] for r in records]))
    return Chart(f"{each.title}: loss", curves)


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()
