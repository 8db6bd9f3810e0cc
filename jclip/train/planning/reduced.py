"""Any recipe shrunk to a laptop: two steps a stage, small towers, synthetic data. Does this recipe run?"""

from dataclasses import replace
from pathlib import Path

import jax

from jclip.bundle import Bundle, save_bundle
from jclip.data.sources.synthetic import SyntheticPairs, SyntheticParallel, write_tokenizer
from jclip.models.build import init_variables
from jclip.parallel.mesh import MeshShape
from jclip.stages import Budget, Stage
from jclip.train.run import Run

_SIZE, _CONTEXT = 32, 16


def reduce(run: Run, folder: Path) -> Run:
    """The same stages, objectives, rules and schedules on small towers and synthetic data.

    Args:
      run: any configuration.
      folder: where its small tokenizers are written, and a random teacher if it has one. Caches, which all processes
        share where each has a folder of its own, lie beside it.
    """
    tokenizer = write_tokenizer(run.model.text.tokenizer, folder / "tokenizer")
    preprocessing = replace(run.preprocessing, size=_SIZE)
    model = run.model.reduced(_SIZE, tokenizer.vocab_size, _CONTEXT)
    teacher = run.teacher
    if teacher is not None:
        words = write_tokenizer(teacher.model.text.tokenizer, folder / "teacher_tokenizer")
        teacher = replace(
            teacher,
            bundle=str(folder / "teacher"),
            model=teacher.model.reduced(_SIZE, words.vocab_size, _CONTEXT),
            context_length=_CONTEXT,
        )
        params = jax.device_get(init_variables(teacher.model, jax.random.key(0)))["params"]
        save_bundle(Bundle(teacher.model, params, words, preprocessing, _CONTEXT), Path(teacher.bundle))
    return replace(
        run,
        model=model,
        tokenizer=str(folder / "tokenizer"),
        preprocessing=preprocessing,
        stages=tuple(_short(stage, folder) for stage in run.stages),
        starts_from=((r".*", ""),),
        teacher=teacher,
        mesh=MeshShape(),
        evaluations=(),
        log_every=1,
    )


def _short(stage: Stage, folder: Path) -> Stage:
    source = SyntheticPairs() if stage.objective == "contrastive" else SyntheticParallel()
    return replace(
        stage,
        data=(source,),
        batch_size=2 * jax.device_count() if jax.device_count() > 1 else 8,
        budget=Budget(steps=2),
        context_length=_CONTEXT,
        language_temperature=None,  # the data has no languages
        buckets=(),
        bucket_window=1,
        cache=str(folder.parent / "cache") if stage.cache else "",
        workers=min(stage.workers, 1),
        micro_batches=min(stage.micro_batches, 2),
        last_layers=tuple((tower, 1) for tower, _ in stage.last_layers),
    )
