"""Sentences per second of AltCLIP's teacher learning, with and without length buckets and cached targets.

    python -m benchmarks.teacher_learning            a quarter of an hour

The stage is the recipe's first one (configs/altclip/vit_l_14.py), with towers of a quarter of the width and half of the
layers: a student of 256 x 12 and a teacher of 192 x 6. In the recipe XLM-R large (1024 x 24) learns from CLIP's text
tower (768 x 12). Each contender has the pipeline and the compiled step of a run. All run in one process and take turns;
with buckets, a turn is one window of steps. The cache is filled before the first turn. Its cost is printed, and also
the gain with this cost included. Exits with 1 if buckets and cache together are less than three times as fast as
neither.

The sentences are parallel captions in English and eleven languages: jclip's prompts with names of emoji. Three of four
sentences join two prompts. They are about as long as captions by people, which have 16.8 (COCO-CN) and 19.7
(Flickr30K-CN) Chinese characters on average (Yang et al. 2022); their lengths are printed. The student's vocabulary is
learned from the sentences and smaller than XLM-R's, so the same text has more tokens, not fewer.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import tyro

from jclip.bundle import Bundle, save_bundle
from jclip.configs.altclip import recipe
from jclip.data.batches.examples import Batch
from jclip.data.sources.folders import ParallelFolder
from jclip.data.sources.records import Translation
from jclip.data.sources.writing import write_parallel
from jclip.demo.emoji.fetch import fetch
from jclip.demo.emoji.names import read_names
from jclip.demo.emoji.protocol import LANGUAGES, concepts
from jclip.evaluate import prompts
from jclip.models.bert import BertConfig
from jclip.models.build import init_variables
from jclip.models.clip_text import ClipTextConfig
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.vit import VitConfig
from jclip.tokenizers.text import Tokenizer, train_clip_bpe, train_unigram
from jclip.train import Run, TeacherLearning
from jclip.train.assembly import StageParts
from jclip.train.caching import fill
from jclip.train.preparing import prepare
from jclip.train.state import TrainState

LEAST = 3.0
LIVE = "77 tokens, teacher"
BOTH = "buckets, cache"
EPOCHS = 10
"""Number of epochs of the recipe; without a cache, the teacher runs in each."""


@dataclass(frozen=True)
class Options:
    """Options of the benchmark.

    Attributes:
      sentences: number of different sentences.
      batch: sentences a step.
      window: number of steps whose sentences are sorted into buckets together.
      buckets: sequence lengths in tokens.
      rounds: number of turns of every contender.
      wheels: folder of the wheel with the names; by default the demo's.
    """

    sentences: int = 8_000
    batch: int = 64
    window: int = 32
    buckets: tuple[int, ...] = (8, 12, 16, 20, 24, 28, 32, 48)
    rounds: int = 5
    wheels: Path = Path("runs/demo/data/wheels")


def main(options: Options) -> int:
    """Measures all contenders, prints a table, and returns the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        run = prepared(options, Path(folder))
        contenders = assembled(run, options, Path(folder))
        mesh = contenders[0].part.mesh
        with jax.set_mesh(mesh):
            for each in contenders:
                each.begin()
            for number in range(options.rounds):
                for each in contenders if number % 2 == 0 else contenders[::-1]:
                    each.measure()
                    print(f"round {number + 1}: {each.name} {each.speeds[-1]:.1f} sentences/s", file=sys.stderr)
    by_name = {each.name: each for each in contenders}
    print("| contender | tokens a sentence, padded | sentences/s, median | lowest | highest | of the first |")
    print("|---|---:|---:|---:|---:|---|")
    for each in contenders:
        ratios = compared(each, by_name[LIVE])
        shown = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        speeds = f"{statistics.median(each.speeds):.1f} | {min(each.speeds):.1f} | {max(each.speeds):.1f}"
        print(f"| {each.name} | {each.tokens / each.sentences:.1f} | {speeds} | {shown} |")
    found = statistics.median(compared(by_name[BOTH], by_name[LIVE]))
    live, both = (statistics.median(by_name[name].speeds) for name in (LIVE, BOTH))
    making = sum(each.making for each in contenders) / options.sentences
    print(f"ratio with the filling of the cache, over {EPOCHS} epochs: {1 / (1 / both + making / EPOCHS) / live:.2f}")
    if found < LEAST:
        print(f"{found:.2f} times the sentences a second: less than {LEAST}", file=sys.stderr)
    return int(found < LEAST)


@dataclass
class Contender:
    """One way to run the stage.

    Attributes:
      name: display name.
      part: the stage, ready to run.
      steps: number of steps of a turn.
      speeds: sentences a second of each turn.
      sentences, tokens: numbers read in all turns; padding counts as tokens.
      making: seconds that filling its cache took.
    """

    name: str
    part: StageParts
    steps: int
    speeds: list[float] = field(default_factory=list)
    sentences: int = 0
    tokens: int = 0
    making: float = 0.0

    def begin(self) -> None:
        """Fills the cache, compiles the step for every length, and starts the prefetching of batches."""
        part, data = self.part, self.part.open_batches()
        self._state: TrainState = part.start()
        if part.stage.cache:
            begun = time.perf_counter()
            filled = fill(part, data, self._state, lambda: False, lambda done, rows: None)
            if filled is None:
                raise SystemExit("the cache was not filled")
            data = data.with_features(filled.caches)
            if filled.computed:  # the second contender with a cache finds the first one's
                self.making = time.perf_counter() - begun
                print(f"the cache of {filled.computed} sentences took {self.making:.0f} s to fill")
        self._step, self._constants = part.compiled, part.constants()
        batch = data[0]
        for length in (*part.stage.buckets, part.stage.context_length):
            self._train({**batch, "student": np.resize(batch["student"], (len(batch["student"]), length))})
        jax.block_until_ready(self._state)
        self._batches: Iterator[Batch] = data.iterate()

    def measure(self) -> None:
        """Measures one turn."""
        begun = time.perf_counter()
        sentences = 0
        for _ in range(self.steps):
            batch = next(self._batches)
            self._train(batch)
            sentences += len(batch["student"])
            self.tokens += batch["student"].size
        jax.block_until_ready(self._state)
        self.speeds.append(sentences / (time.perf_counter() - begun))
        self.sentences += sentences

    def _train(self, batch: Mapping[str, np.ndarray]) -> None:
        self._state, _ = self._step(self._state, self._constants, self.part.place(batch), jax.random.key(0))


def compared(ours: Contender, theirs: Contender) -> list[float]:
    """Returns the ratios of the speeds, one per round."""
    return [mine / other for mine, other in zip(ours.speeds, theirs.speeds, strict=True)]


def assembled(run: Run, options: Options, folder: Path) -> list[Contender]:
    """Returns the contenders: neither, each alone, and both."""
    buckets: dict[str, Any] = {"buckets": options.buckets, "bucket_window": options.window}
    cache = {"cache": str(folder / "cache")}
    ways: dict[str, dict[str, Any]] = {
        LIVE: {},
        "buckets, teacher": buckets,
        "77 tokens, cache": cache,
        BOTH: {**buckets, **cache},
    }
    found = []
    for name, changes in ways.items():
        one = replace(run, stages=(replace(run.stages[0], **changes),))
        _, _, (part,) = prepare(one, folder / "run")
        found.append(Contender(name, part, options.window if "buckets" in changes else max(1, options.window // 4)))
    return found


def prepared(options: Options, folder: Path) -> Run:
    """Writes data, tokenizers and teacher into the folder, and returns the run."""
    texts = sentences(options)
    write_parallel(folder / "text", texts)
    english = sorted({each.english for each in texts})
    words, teachers = train_unigram([*english, *(each.other for each in texts)], 8000), train_clip_bpe(english, 2000)
    words.save(folder / "tokenizer")
    tell_lengths(texts, words)
    by_clip = recipe.BY_CLIP
    teacher = replace(by_clip, bundle=str(folder / "teacher"), model=quarter(by_clip.model, teachers))
    stage = recipe.teacher_learning(ParallelFolder(str(folder / "text")), objective=teacher)
    whole = recipe.altclip("teacher-learning", replace(stage, batch_size=options.batch))
    save_teacher(teacher, teachers, whole, folder / "teacher")
    return replace(
        whole,
        model=quarter(whole.model, words),
        tokenizer=str(folder / "tokenizer"),
        preprocessing=replace(whole.preprocessing, size=32),
        starts_from=((".*", ""),),
        dtype="float32",
    )


def save_teacher(teacher: TeacherLearning, tokenizer: Tokenizer, run: Run, folder: Path) -> None:
    """Saves a teacher with random parameters, which is as fast as a trained one."""
    params = jax.device_get(init_variables(teacher.model, jax.random.key(0)))["params"]
    save_bundle(Bundle(teacher.model, params, tokenizer, run.preprocessing, teacher.context_length), folder)


def quarter(model: DualEncoderConfig, tokenizer: Tokenizer) -> DualEncoderConfig:
    """Returns the model with a quarter of the text tower's width, half of its layers, and a tiny image tower."""
    text = cast(BertConfig | ClipTextConfig, model.text)
    small = {"width": text.width // 4, "heads": text.heads // 4, "layers": text.layers // 2}
    if isinstance(text, BertConfig):
        text = replace(text, **small, intermediate=text.intermediate // 4, vocab_size=tokenizer.vocab_size)
    else:
        text = replace(text, **small, vocab_size=tokenizer.vocab_size)
    head = None if model.head_width is None else model.head_width // 4
    image = VitConfig(image_size=32, patch_size=16, width=64, layers=1, heads=1)
    return replace(model, image=image, text=text, embed_dim=model.embed_dim // 4, head_width=head)


def sentences(options: Options) -> list[Translation]:
    """Returns parallel captions; three of four name two things, the fourth one."""
    known = [concept for concept in concepts() if concept.drawable and concept.role == "known"]
    names = read_names(fetch(options.wheels, only=("emoji",))["emoji"], known)
    languages = [language for language in LANGUAGES[1:] if language in prompts.LANGUAGES]
    templates = {language: prompts.load_prompts(language).templates for language in ("en", *languages)}
    draw = np.random.default_rng(0)

    def caption(language: str, things: Sequence[int], ways: Sequence[int]) -> str:
        said = templates[language]
        shown = [
            said[way % len(said)].format(names[known[thing].codepoints][language])
            for thing, way in zip(things, ways, strict=True)
        ]
        return ("，" if language in ("zh", "ja") else ", ").join(shown)

    made = []
    for number in range(options.sentences):
        language, size = languages[number % len(languages)], 2 if number % 4 else 1
        things, ways = draw.integers(len(known), size=size).tolist(), draw.integers(1 << 16, size=size).tolist()
        made.append(Translation(caption("en", things, ways), caption(language, things, ways), language))
    return made


def tell_lengths(texts: Sequence[Translation], words: Tokenizer) -> None:
    """Prints the lengths of the sentences."""
    lengths = [len(ids) for ids in words.encode([text for each in texts for text in (each.english, each.other)], 77)]
    low, middle, high = np.percentile(lengths, (5, 50, 95))
    english = statistics.mean(len(each.english.split()) for each in texts)
    chinese = statistics.mean(len(each.other) for each in texts if each.language == "zh")
    print(
        f"{len(texts)} sentences; the student's tokens: {low:.0f}, {middle:.0f}, {high:.0f} (5th, 50th, 95th per cent),"
        f" of {words.vocab_size}; English words {english:.1f}, Chinese characters {chinese:.1f} on average"
    )


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
