"""Reduces a run to a quick check on a laptop: two steps per stage, small towers, synthetic data."""

from dataclasses import replace
from pathlib import Path

import jax

from jclip.data.sources.records import Pair, Translation
from jclip.data.sources.source import Source
from jclip.data.sources.synthetic import SyntheticPairs, SyntheticParallel, write_tokenizer
from jclip.errors import JclipError
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.parallel.mesh import MeshShape
from jclip.stages import Budget, Stage
from jclip.tokenizers.text import Tokenizer
from jclip.train.configuration import Run

SMALL_CONTEXT = 16
_SIZE = 32
_SYNTHETIC: dict[type, Source] = {Pair: SyntheticPairs(), Translation: SyntheticParallel()}


def reduce(run: Run, folder: Path, devices: int | None = None) -> Run:
    """Returns the same stages, objectives, rules and schedules on small towers and synthetic data.

    Batches suit `devices` devices, by default those of jax.

    Writes small tokenizers and teachers into `folder`. Caches, which all processes share, are next to it. Raises
    JclipError if jclip has no synthetic data for an objective.
    """
    model, _ = small(run.model, folder / "tokenizer")
    return replace(
        run,
        model=model,
        tokenizer=str(folder / "tokenizer"),
        preprocessing=replace(run.preprocessing, size=_SIZE),
        stages=tuple(_short(stage, folder, model.text.longest, devices or jax.device_count()) for stage in run.stages),
        starts_from=((r".*", ""),),
        mesh=MeshShape(),
        evaluations=(),
        best="",
        patience=0,
        log_every=1,
    )


def small(model: DualEncoderConfig, folder: Path) -> tuple[DualEncoderConfig, Tokenizer]:
    """Returns the model with small towers of the same kinds, and its tokenizer, which it writes to `folder`."""
    tokenizer = write_tokenizer(model.text.tokenizer, folder)
    return model.reduced(_SIZE, tokenizer.vocab_size, SMALL_CONTEXT), tokenizer


def _short(stage: Stage, folder: Path, longest: int, devices: int) -> Stage:
    if stage.objective.reads not in _SYNTHETIC:
        raise JclipError(
            f"stage {stage.name!r}: jclip has no synthetic data for {stage.objective.title}: train without --reduced"
        )
    return replace(
        stage,
        objective=stage.objective.reduced(folder),
        data=(_SYNTHETIC[stage.objective.reads],),
        batch_size=2 * devices if devices > 1 else 8,
        budget=Budget(steps=2),
        context_length=min(SMALL_CONTEXT, longest),
        language_temperature=None,  # synthetic data have no languages
        buckets=(),
        bucket_window=1,
        cache=str(folder.parent / "cache") if stage.cache else "",
        workers=min(stage.workers, 1),
        micro_batches=min(stage.micro_batches, 2),
        last_layers=tuple((tower, 1) for tower, _ in stage.last_layers),
    )
