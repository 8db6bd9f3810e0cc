"""Any recipe shrunk to a laptop: two steps a stage, small towers, synthetic data. Does this recipe run?"""

from dataclasses import replace
from pathlib import Path

import jax

from jclip.bundle import Bundle, save_bundle
from jclip.data.sources.synthetic import SyntheticPairs, SyntheticParallel, write_tokenizer
from jclip.models.bert import BertConfig
from jclip.models.build import init_variables
from jclip.models.clip_text import ClipTextConfig
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.resnet import ResNetConfig
from jclip.models.vit import VitConfig
from jclip.parallel.mesh import MeshShape
from jclip.stages import Budget, Stage
from jclip.tokenizers.vocabulary import TokenizerKind
from jclip.train.run import Run

_SIZE, _WIDTH, _CONTEXT = 32, 64, 16


def reduce(run: Run, folder: Path) -> Run:
    """The same stages, objectives, rules and schedules on small towers and synthetic data.

    Args:
      run: any configuration.
      folder: where its small tokenizers are written, and a random teacher if it has one. Caches, which all processes
        share where each has a folder of its own, lie beside it.
    """
    tokenizer = write_tokenizer(_kind(run.model), folder / "tokenizer")
    preprocessing = replace(run.preprocessing, size=_SIZE)
    model = _small(run.model, tokenizer.vocab_size)
    teacher = run.teacher
    if teacher is not None:
        words = write_tokenizer(_kind(teacher.model), folder / "teacher_tokenizer")
        teacher = replace(
            teacher,
            bundle=str(folder / "teacher"),
            model=_small(teacher.model, words.vocab_size),
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


def _kind(model: DualEncoderConfig) -> TokenizerKind:
    if isinstance(model.text, ClipTextConfig):
        return "clip_bpe"
    return "xlmr" if model.text.position_offset == "after_padding" else "wordpiece"


def _small(model: DualEncoderConfig, vocab_size: int) -> DualEncoderConfig:
    image: VitConfig | ResNetConfig
    if isinstance(model.image, VitConfig):
        image = replace(model.image, image_size=_SIZE, patch_size=16, width=_WIDTH, layers=2, heads=2)
    else:
        image = replace(model.image, image_size=_SIZE, layers=(1, 1, 1, 1), width=8, heads=4)
    text: BertConfig | ClipTextConfig
    if isinstance(model.text, BertConfig):
        text = replace(model.text, vocab_size=vocab_size, width=_WIDTH, layers=2, heads=2, intermediate=2 * _WIDTH)
    else:
        text = replace(model.text, vocab_size=vocab_size, context_length=_CONTEXT, width=_WIDTH, layers=2, heads=2)
    head_width = None if model.head_width is None else _WIDTH
    return replace(model, image=image, text=text, embed_dim=_WIDTH, head_width=head_width)
