"""Batches for tests, of pairs or of parallel text."""

from jclip.data.batches.examples import PairExamples, ParallelExamples
from jclip.data.batches.loader import Batches
from jclip.data.batches.opened import open_sources
from jclip.data.sources.records import Translation
from jclip.images.on_host import Decoder, HostAugmentation
from jclip.images.preprocess import Preprocessing
from jclip.tokenizers.padding import Texts


def make_batches(
    *sources,
    tokenizer,
    context_length=12,
    buckets=(),
    seed=1,
    stage=0,
    preprocessing=Preprocessing(size=8),  # noqa: B008 (frozen)
    augmentation=HostAugmentation(),  # noqa: B008 (frozen)
    teacher_context_length=12,
    **options,
):
    opened = open_sources(sources, preprocessing)
    if sources[0].gives is Translation:
        examples = ParallelExamples(opened, Texts(tokenizer, teacher_context_length))
    else:
        examples = PairExamples(opened, Decoder(preprocessing, augmentation, seed, stage))
    texts = Texts(tokenizer, context_length, buckets)
    return Batches(opened, examples, seed=seed, stage=stage, texts=texts, **{"batch_size": 8, **options})
