"""Shrinks any recipe to a laptop: two steps a stage, small towers, synthetic data. Does this recipe run?"""

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


def reduce(run: Run, folder: Path) -> Run:
    """Returns the same stages, objectives, rules and schedules on small towers and synthetic data.

    Args:
      run: any configuration.
      folder: where its small tokenizers and teachers are written. Caches, which all processes share, are beside it.

    Raises:
      JclipError: an objective reads records of which there is no synthetic data.
    """
    model, _ = small(run.model, folder / "tokenizer")
    return replace(
        run,
        model=model,
        tokenizer=str(folder / "tokenizer"),
        preprocessing=replace(run.preprocessing, size=_SIZE),
        stages=tuple(_short(stage, folder, model.text.longest) for stage in run.stages),
        starts_from=((r".*", ""),),
        mesh=MeshShape(),
        evaluations=(),
        best="",
        patience=0,
        log_every=1,
    )


def small(model: DualEncoderConfig, folder: Path) -> tuple[DualEncoderConfig, Tokenizer]:
    """Returns the model with small towers of the same kinds, and a tokenizer for it, which is written to `folder`."""
    tokenizer = write_tokenizer(model.text.tokenizer, folder)
    return model.reduced(_SIZE, tokenizer.vocab_size, SMALL_CONTEXT), tokenizer


def _short(stage: Stage, folder: Path, longest: int) -> Stage:
    if stage.objective.reads not in _SYNTHETIC:
        raise JclipError(f"stage {stage.name!r}: there is no synthetic data for {stage.objective.title}")
    return replace(
        stage,
        objective=stage.objective.reduced(folder),
        data=(_SYNTHETIC[stage.objective.reads],),
        batch_size=2 * jax.device_count() if jax.device_count() > 1 else 8,
        budget=Budget(steps=2),
        context_length=min(SMALL_CONTEXT, longest),
        language_temperature=None,  # the data have no languages
        buckets=(),
        bucket_window=1,
        cache=str(folder.parent / "cache") if stage.cache else "",
        workers=min(stage.workers, 1),
        micro_batches=min(stage.micro_batches, 2),
        last_layers=tuple((tower, 1) for tower, _ in stage.last_layers),
    )
