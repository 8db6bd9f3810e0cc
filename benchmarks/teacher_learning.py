"""Sentences per second of AltCLIP's teacher learning, with and without length buckets and cached targets.

    python -m benchmarks.teacher_learning            a quarter of an hour

The stage is the recipe's first one (configs/altclip/vit_l_14.py), with towers of a quarter of the width and half of the
layers: a student of 256 x 12 and a teacher of 192 x 6. In the recipe XLM-R large (1024 x 24) learns from CLIP's text
tower (768 x 12). Each contender has the pipeline and the compiled step of a run. All run in one process and take turns;
with buckets, a turn is one window of steps. The cache is filled before the first turn. Its cost is printed, and also
the gain with this cost included. Exits with 1 if buckets and cache together are less than three times as fast as
neither, or less than four times as fast as transformers. transformers is PyTorch with the same weights, texts padded to
77 tokens, and a live teacher; its first loss is compared before the first turn.

The sentences are parallel captions in English and eleven languages: jclip's prompts with names of emoji. Three of four
sentences join two prompts. They are about as long as captions by people, which have 16.8 (COCO-CN) and 19.7
(Flickr30K-CN) Chinese characters on average (Yang et al. 2022); their lengths are printed. The student's vocabulary is
learned from the sentences and smaller than XLM-R's, so the same text has more tokens, not fewer.
"""

import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import tyro

from benchmarks.teacher_contenders import Contender, Peer
from benchmarks.turns import Ratio, ratio
from jclip.bundle import Bundle, save_bundle
from jclip.configs.altclip import recipe
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
from jclip.train.preparing import prepare

LIVE, BOTH, PEER = "77 tokens, teacher", "buckets, cache", "transformers, 77 tokens, teacher"
LEAST = {LIVE: 3.0, PEER: 4.0}
"""Minimum ratio of the speed of buckets and cache to that of another contender."""
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
    contenders = measured(options)
    by_name = {each.name: each for each in contenders}
    print("| contender | tokens a sentence, padded | sentences/s, median | lowest | highest | of the first |")
    print("|---|---:|---:|---:|---:|---|")
    for each in contenders:
        shown = compared(each, by_name[LIVE])
        speeds = f"{statistics.median(each.speeds):.1f} | {min(each.speeds):.1f} | {max(each.speeds):.1f}"
        print(f"| {each.name} | {each.tokens / each.sentences:.1f} | {speeds} | {shown} |")
    live, both = (statistics.median(by_name[name].speeds) for name in (LIVE, BOTH))
    making = sum(each.making for each in contenders) / options.sentences
    print(f"ratio with the filling of the cache, over {EPOCHS} epochs: {1 / (1 / both + making / EPOCHS) / live:.2f}")
    missed = False
    for name, least in LEAST.items():
        found = compared(by_name[BOTH], by_name[name])
        print(f"{BOTH}, of {name}: {found}")
        if found.median < least:
            print(f"{found.median:.2f} times the sentences a second: less than {least}", file=sys.stderr)
            missed = True
    return int(missed)


def measured(options: Options) -> list[Contender]:
    """Returns all contenders after their turns. Raises SystemExit if transformers' first loss differs from jclip's."""
    with tempfile.TemporaryDirectory() as folder:
        run = prepared(options, Path(folder))
        contenders = assembled(run, options, Path(folder))
        mesh = contenders[0].part.mesh
        with jax.set_mesh(mesh):
            for each in contenders:
                each.begin()
            ours, theirs = (next(each.first_loss for each in contenders if each.name == name) for name in (LIVE, PEER))
            print(f"first losses: {ours:.7f} and {theirs:.7f}", file=sys.stderr)
            if not abs(ours - theirs) <= 1e-4 * theirs:
                raise SystemExit(f"the first loss is {ours} in jclip, and {theirs} in transformers")
            for number in range(options.rounds):
                for each in contenders if number % 2 == 0 else contenders[::-1]:
                    each.measure()
                    print(f"round {number + 1}: {each.name} {each.speeds[-1]:.1f} sentences/s", file=sys.stderr)
    return contenders


def compared(ours: Contender, theirs: Contender) -> Ratio:
    """Returns the ratio of the speeds."""
    return ratio(*([1 / speed for speed in each.speeds] for each in (ours, theirs)))


def assembled(run: Run, options: Options, folder: Path) -> list[Contender]:
    """Returns the contenders: neither, each alone, both, and transformers."""
    buckets: dict[str, Any] = {"buckets": options.buckets, "bucket_window": options.window}
    cache = {"cache": str(folder / "cache")}
    ways: dict[str, dict[str, Any]] = {
        LIVE: {},
        "buckets, teacher": buckets,
        "77 tokens, cache": cache,
        BOTH: {**buckets, **cache},
        PEER: {},
    }
    found = []
    for name, changes in ways.items():
        one = replace(run, stages=(replace(run.stages[0], **changes),))
        _, _, (part,) = prepare(one, folder / "run")
        kind = Peer if name == PEER else Contender
        found.append(kind(name, part, options.window if "buckets" in changes else max(1, options.window // 4)))
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
    whole = replace(whole, preprocessing=replace(whole.preprocessing, size=32))
    save_teacher(teacher, teachers, whole, folder / "teacher")
    return replace(
        whole,
        model=quarter(whole.model, words),
        tokenizer=str(folder / "tokenizer"),
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
