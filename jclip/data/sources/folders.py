"""Data folders as sources: array_record files, read through tensorflow-datasets without TensorFlow.

    data/my-pairs/                 the folder that a configuration names
      dataset_info.json, features.json, examples-train.array_record-00000-of-00001, …
      languages-train.npz          language of each record, if known

Random access to a record costs a seek, so examples may come in any order.
"""

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, overload

import numpy as np

from jclip.config import kind_of
from jclip.data.sources.class_names import check_stored, read_labels
from jclip.data.sources.kinds import LABELLED, PAIRS, PARALLEL, RecordKind
from jclip.data.sources.raw_examples import RawExamples
from jclip.data.sources.records import Labelled, Pair, Translation
from jclip.data.sources.source import Source
from jclip.errors import JclipError, first_line, unreadable
from jclip.images.preprocess import Preprocessing
from jclip.io.files import check_utf8
from jclip.marks import Folder, Mixing
from jclip.ranges import Positive, Share

Record = TypeVar("Record")

SEVERAL = "mul"
"""ISO 639's code for several languages: that of a record whose captions differ in language."""


class Shard(NamedTuple):
    """Finished array_record file of a split, and its number of records."""

    file: Path
    records: int


class Records(Sequence[Record], Generic[Record]):
    """Records of a data source, made from its examples on demand.

    Args:
      examples: indexed by number.
      make: returns the record of an example.
      shards: files that hold the examples, in order; empty if no folder holds them.
      split: name of the split, for the languages of a folder.
    """

    def __init__(
        self,
        examples: Sequence[Any],
        make: Callable[[Any], Record],
        shards: Sequence[Shard] = (),
        split: str = "",
    ):
        self._examples, self._make, self._shards, self._split = examples, make, shards, split

    def __len__(self) -> int:
        return len(self._examples)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)  # ends iteration
        number = index % len(self)
        try:
            return self._make(self._examples[number])
        except Exception as error:  # of whatever type the damage makes array_record, protobuf or tfds raise
            if isinstance(error, JclipError) or not self._shards:
                raise
            folder = self._shards[0].file.parent
            raise JclipError(
                f"{folder}: record {number}{self.where(number)} cannot be read ({first_line(error)}): import it "
                "again, or copy that file again"
            ) from None

    def where(self, number: int) -> str:
        """Returns a record's shard and index in it, for messages: " (index 3 of FILE)"; empty if not known."""
        for shard in self._shards:
            if number < shard.records:
                return f" (index {number} of {shard.file.name})"
            number -= shard.records
        return ""

    def noted_languages(self) -> tuple[list[str], np.ndarray] | None:
        """Returns the language of each record, as `read_languages` does, without reading the records.

        Raises JclipError if the folder's file of languages cannot be read, or has another number of records.
        """
        if not self._shards:
            return None
        folder = self._shards[0].file.parent
        noted = read_languages(folder, self._split)
        if noted is not None and len(noted[1]) != len(self):
            raise JclipError(
                f"{folder} has the languages of {len(noted[1])} records of split {self._split!r}, but the split has "
                f"{len(self)}: import it again"
            )
        return noted


@kind_of(Source)
@dataclass(frozen=True)
class PairFolder(Source):
    """Images with captions, in a folder that `jclip data import` or `write_pairs` wrote.

    Attributes:
      folder: path.
      split: name of a split.
      weight: share in a mixture.
    """

    folder: Folder
    split: str = "train"
    weight: Mixing[Positive] = 1.0

    gives: ClassVar[type] = Pair
    shared_ids: ClassVar[bool] = True

    def open(self, preprocessing: Preprocessing | None = None) -> Sequence[Pair]:
        """Returns its records, read on demand. Raises JclipError if the folder or the split is missing."""
        del preprocessing
        return read_split(Path(self.folder), self.split, PAIRS)


@kind_of(Source)
@dataclass(frozen=True)
class ParallelFolder(Source):
    """Parallel text, in a folder that `jclip data import` or `write_parallel` wrote.

    Attributes:
      folder: path.
      split: name of a split.
      english_share: probability that the student reads the English text itself (Chen et al. 2022, section 3.1).
      weight: share in a mixture.
    """

    folder: Folder
    split: str = "train"
    english_share: Mixing[Share] = 0.5
    weight: Mixing[Positive] = 1.0

    gives: ClassVar[type] = Translation

    def open(self, preprocessing: Preprocessing | None = None) -> Sequence[Translation]:
        """Returns its records, read on demand. Raises JclipError if the folder or the split is missing."""
        del preprocessing
        return read_split(Path(self.folder), self.split, PARALLEL)


@dataclass(frozen=True)
class LabelledFolder:
    """Images with classes, of a split of a folder, for evaluation."""

    folder: Folder
    split: str = "test"

    def open(self, preprocessing: Preprocessing | None = None) -> Sequence[Labelled]:
        """Returns its records, read on demand. Raises JclipError if the folder or the split is missing."""
        del preprocessing
        return read_split(Path(self.folder), self.split, LABELLED)

    def classes(self) -> list[str]:
        """Returns the names of its classes, by class number.

        Raises JclipError if the folder is missing, or its number of names is not its number of classes.
        """
        names = list(open_folder(Path(self.folder)).info.features["labels"].feature.names)
        check_stored(Path(self.folder), names)
        return names

    def labels(self) -> dict[str, list[str]]:
        """Returns class names by language, which only some benchmarks have. Raises JclipError if unreadable."""
        return read_labels(Path(self.folder))


def read_languages(folder: Path, split: str) -> tuple[list[str], np.ndarray] | None:
    """Reads the language of each record of a split, without reading the records.

    Returns language codes, and each record's index into them, uint16 (n,); None if languages are not known. Raises
    JclipError if the file cannot be read.
    """
    file = folder / f"languages-{split}.npz"
    if not file.exists():
        return None
    try:
        with np.load(file) as stored:
            return stored["names"].tolist(), stored["codes"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise unreadable(file, error, "as languages") from None


def open_folder(folder: Path) -> Any:
    """Returns tensorflow-datasets' builder of a folder. Raises JclipError if it is not a data set, or is damaged."""
    import tensorflow_datasets as tfds

    check_utf8(folder)
    if not (folder / "dataset_info.json").is_file():
        reason = "it has no dataset_info.json" if folder.is_dir() else "there is no such folder"
        raise JclipError(f"{folder} holds no data set ({reason}): name one that jclip data import wrote")
    try:
        return tfds.builder_from_directory(folder.absolute())  # a relative ~ would be expanded to the user's home
    except Exception as error:  # of whatever type the damage makes json, protobuf or tfds raise
        raise _damaged(folder, error) from None


def read_split(folder: Path, split: str, kind: RecordKind) -> Sequence[Any]:
    """Returns the records of a split, read on demand.

    Raises JclipError if the folder or the split is missing or damaged, or its records are of another kind.
    """
    builder = open_folder(folder)
    if not builder.info.splits:
        raise JclipError(f"{folder} has no splits: import it again")
    if split not in builder.info.splits:
        raise JclipError(f"{folder} has no split {split!r}: it has {', '.join(builder.info.splits)}; name one of them")
    if missing := [name for name in kind.features(("",)) if name not in builder.info.features and name in _ALWAYS]:
        raise JclipError(f"{folder} holds no {kind.what} (its records have no {missing[0]}): name another folder")
    try:
        files, counts = builder.info.splits[split].filepaths, builder.info.splits[split].shard_lengths
        shards = [Shard(Path(file), count) for file, count in zip(files, counts, strict=True)]
        return Records(RawExamples(builder, split), kind.record, shards, split)
    except Exception as error:  # dataset_info.json's entries about shards are parsed only here
        if isinstance(error, JclipError):
            raise
        raise _damaged(folder, error) from None


def _damaged(folder: Path, error: Exception) -> JclipError:
    return JclipError(
        f"{folder}: its dataset_info.json or features.json is damaged ({first_line(error)}): import it again"
    )


_ALWAYS = {"image", "captions", "english", "other", "labels"}  # features that folders of all versions have
