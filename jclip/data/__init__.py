"""Data folders: image-text pairs, parallel text, labelled images.

Names:
  PairFolder: a source of image-text pairs: a folder that `jclip data import` or `write_pairs` wrote.
  ParallelFolder: a source of sentences in English and another language.
  LabelledFolder: a source of images with classes.
  StoredPair: an encoded image with its captions, for `write_pairs`.
  Translation: an English sentence with its translation, for `write_parallel`.
  write_pairs: writes image-text pairs to a data folder.
  write_parallel: writes parallel text to a data folder.

For your own sources and objectives:
  kind_of: registers a class, so that configurations can name it.
  Source, Record: interfaces of a source and of its records.
  Pair: a record of images with captions.
  Folder, Mixing: marks of a source's fields: a folder, which may move; a field that does not change the records.
  Examples: interface of what a batch takes from a record.
  PairExamples, ParallelExamples: examples of images with captions, and of parallel text.
"""

from typing import TYPE_CHECKING

from jclip.lazy import lazy

if TYPE_CHECKING:
    from jclip.config import kind_of as kind_of
    from jclip.data.batches.examples import Examples as Examples
    from jclip.data.batches.examples import PairExamples as PairExamples
    from jclip.data.batches.examples import ParallelExamples as ParallelExamples
    from jclip.data.sources.folders import LabelledFolder as LabelledFolder
    from jclip.data.sources.folders import PairFolder as PairFolder
    from jclip.data.sources.folders import ParallelFolder as ParallelFolder
    from jclip.data.sources.kinds import StoredPair as StoredPair
    from jclip.data.sources.records import Pair as Pair
    from jclip.data.sources.records import Record as Record
    from jclip.data.sources.records import Translation as Translation
    from jclip.data.sources.source import Source as Source
    from jclip.data.sources.writing import write_pairs as write_pairs
    from jclip.data.sources.writing import write_parallel as write_parallel
    from jclip.marks import Folder as Folder
    from jclip.marks import Mixing as Mixing

__all__, __getattr__, __dir__ = lazy(__name__, __file__, needs=("array_record", "tensorflow_datasets"))
