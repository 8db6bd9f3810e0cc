"""Pairs and parallel text on disk: array_record files through tensorflow-datasets, without TensorFlow.

    data/my-pairs/                 the folder that a configuration names
      dataset_info.json, features.json, examples-train.array_record-00000-of-00001, …

Random access into them costs a seek, so that the order of the examples can be any.
"""

import contextlib
import io
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, overload

import numpy as np

from jclip.data.sources.class_names import check_stored, read_labels
from jclip.data.sources.examples import Examples
from jclip.data.sources.kinds import LABELLED, PAIRS, PARALLEL, Kind, StoredPair
from jclip.data.sources.records import Labelled, Pair, Translation
from jclip.errors import JclipError, unreadable
from jclip.images.preprocess import Preprocessing
from jclip.io.files import check_utf8, whole_folder
from jclip.ranges import Positive, Share

Record = TypeVar("Record")


@dataclass(frozen=True)
class PairFolder:
    """Pictures with captions that `write_pairs` wrote.

    Attributes:
      folder: where.
      split: of the folder.
      weight: in a mixture.
    """

    folder: str
    split: str = "train"
    weight: Positive = 1.0

    def open(self, preprocessing: Preprocessing | None = None) -> Sequence[Pair]:
        """Its records, read when they are asked for.

        Raises:
          JclipError: the folder or the split is missing.
        """
        del preprocessing
        return read_split(Path(self.folder), self.split, PAIRS)


@dataclass(frozen=True)
class ParallelFolder:
    """Parallel text that `write_parallel` wrote.

    Attributes:
      folder: where.
      split: of the folder.
      english_share: how often the student reads the English text itself (Chen et al. 2022, section 3.1).
      weight: in a mixture.
    """

    folder: str
    split: str = "train"
    english_share: Share = 0.5
    weight: Positive = 1.0

    def open(self, preprocessing: Preprocessing | None = None) -> Sequence[Translation]:
        """Its records, read when they are asked for.

        Raises:
          JclipError: the folder or the split is missing.
        """
        del preprocessing
        return read_split(Path(self.folder), self.split, PARALLEL)


@dataclass(frozen=True)
class LabelledFolder:
    """Pictures with classes, for evaluation.

    Attributes:
      folder: where.
      split: of the folder.
    """

    folder: str
    split: str = "test"

    def open(self, preprocessing: Preprocessing | None = None) -> Sequence[Labelled]:
        """Its records, read when they are asked for.

        Raises:
          JclipError: the folder or the split is missing.
        """
        del preprocessing
        return read_split(Path(self.folder), self.split, LABELLED)

    def classes(self) -> list[str]:
        """The names of its classes, by number.

        Raises:
          JclipError: the folder is missing, or has another number of names than of classes.
        """
        names = list(open_folder(Path(self.folder)).info.features["labels"].feature.names)
        check_stored(Path(self.folder), names)
        return names

    def labels(self) -> dict[str, list[str]]:
        """What its classes are called, by language; empty but for benchmarks that come with such names.

        Raises:
          JclipError: they cannot be read.
        """
        return read_labels(Path(self.folder))


class Records(Sequence[Record], Generic[Record]):
    """Examples of a data source, each made into a record when it is asked for.

    Args:
      examples: by number.
      make: a record of an example.
      shards: the files that hold them, in order; none for examples that no folder holds.
    """

    def __init__(self, examples: Sequence[Any], make: Callable[[Any], Record], shards: Sequence["Shard"] = ()):
        self._examples, self._make, self._shards = examples, make, shards

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
            raise IndexError(index)  # which is how iteration knows the end
        number = index % len(self)
        try:
            return self._make(self._examples[number])
        except Exception as error:  # of whatever type the damage makes array_record, protobuf or tfds raise
            if isinstance(error, JclipError) or not self._shards:
                raise
            folder = self._shards[0].file.parent
            raise JclipError(
                f"{folder}: record {number}{self.where(number)} cannot be read ({_first_line(error)}): import it "
                "again, or copy that file anew"
            ) from None

    def where(self, number: int) -> str:
        """The shard of a record and its place in it, for messages: " (index 3 of FILE)"; empty where not known."""
        for shard in self._shards:
            if number < shard.records:
                return f" (index {number} of {shard.file.name})"
            number -= shard.records
        return ""


class Shard(NamedTuple):
    """A finished array_record file of a split, and how many records it has."""

    file: Path
    records: int


def write_pairs(folder: Path, pairs: Iterable[StoredPair], split: str = "train") -> None:
    """Writes pairs as array_record files.

    Raises:
      JclipError: the folder is there, or its name is not UTF-8.
    """
    _write(folder, PAIRS, split, pairs)


def write_parallel(folder: Path, sentences: Iterable[Translation], split: str = "train") -> None:
    """Writes parallel text as array_record files, as `write_pairs` does."""
    _write(folder, PARALLEL, split, sentences)


def write_shard(file: Path, kind: Kind, records: Iterable[Any], classes: Sequence[str] = ()) -> None:
    """Writes one array_record file, whose bytes depend on the records alone."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import example_serializer, file_adapters

    features = tfds.features.FeaturesDict(kind.features(classes))
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())

    def serialized() -> Iterator[bytes]:
        for record in records:
            example = serializer.get_tf_example(features.encode_example(kind.example(record)))
            # By default the order of the features is another in each process.
            yield example.SerializeToString(deterministic=True)

    file_adapters.ArrayRecordFileAdapter.write_examples(file, enumerate(serialized()))


def count_records(shard: Path) -> int:
    """How many records an array_record file has; 0 where it is no whole one."""
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        reader = ArrayRecordReader(str(shard))
        try:
            return int(reader.num_records())
        finally:
            reader.close()
    except (RuntimeError, ValueError, OSError):
        return 0


def gather_shards(
    partial: Path, kind: Kind, splits: Mapping[str, Sequence[Shard]], classes: Sequence[str] = ()
) -> None:
    """Makes a folder of shards that `write_shard` wrote; they stay where they are, too.

    Args:
      partial: the folder, which is there and is being written.
      kind, classes: of the records.
      splits: the shards of each, in order.
    """
    import tensorflow_datasets as tfds

    class Examples(tfds.core.ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        VERSION = tfds.core.Version("1.0.0")
        name = "examples"
        pkg_dir_path = Path(__file__).parent

        def _info(self) -> Any:
            return _described(self, kind.features(classes))

        def _shard_iterators_per_split(self, dl_manager: Any) -> Any:
            raise NotImplementedError("the shards are written")

        def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
            found = []
            for split, shards in splits.items():
                template = self._get_filename_template(split_name=split)
                for number, shard in enumerate(shards):
                    _link(shard.file, Path(template.sharded_filepath(shard_index=number, num_shards=len(shards))))
                size = sum(shard.file.stat().st_size for shard in shards)
                lengths = [shard.records for shard in shards]
                found.append(
                    tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size, filename_template=template)
                )
            self.info.set_splits(tfds.core.splits.SplitDict(found))

    _prepare(Examples, partial)


SEVERAL = "mul"  # ISO 639's code for several languages


def write_languages(folder: Path, split: str, languages: np.ndarray) -> None:
    """Notes the language of each record, `SEVERAL` where its captions have different ones, unless none is known."""
    names, codes = np.unique(languages, return_inverse=True)
    if any(names):
        np.savez(folder / f"languages-{split}.npz", names=names, codes=codes.astype(np.uint16))


def read_languages(folder: Path, split: str) -> tuple[list[str], np.ndarray] | None:
    """The language of each record of a split, without reading the records: for sampling by language.

    Returns:
      Names, and for each record the number of its name, uint16; None where languages are not known.

    Raises:
      JclipError: they cannot be read.
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
    """The tensorflow-datasets builder that reads a folder.

    Raises:
      JclipError: it holds no data set, or a damaged one.
    """
    import tensorflow_datasets as tfds

    check_utf8(folder)
    if not (folder / "dataset_info.json").is_file():
        reason = "it has no dataset_info.json" if folder.is_dir() else "there is no such folder"
        raise JclipError(f"{folder} holds no data set ({reason}): name one that jclip data import wrote")
    try:
        return tfds.builder_from_directory(folder.absolute())  # or it takes a ~ for the user's home
    except Exception as error:  # of whatever type the damage makes json, protobuf or tfds raise
        raise _damaged(folder, error) from None


def read_split(folder: Path, split: str, kind: Kind) -> Sequence[Any]:
    """The records of a split, read when they are asked for.

    Raises:
      JclipError: the folder or the split is missing, or damaged, or its records are of another kind.
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
        return Records(Examples(builder, split), kind.record, shards)
    except Exception as error:  # what the description says of the shards is looked at only here
        if isinstance(error, JclipError):
            raise
        raise _damaged(folder, error) from None


def _damaged(folder: Path, error: Exception) -> JclipError:
    return JclipError(
        f"{folder}: its dataset_info.json or features.json is damaged ({_first_line(error)}): import it again"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


_ALWAYS = {"image", "captions", "english", "other", "labels"}  # later versions added other features


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
    """tensorflow-datasets without its progress bars and its remarks on standard output."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _write(folder: Path, kind: Kind, split: str, records: Iterable[Any]) -> None:
    import tensorflow_datasets as tfds

    class Examples(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        VERSION = tfds.core.Version("1.0.0")
        name = "examples"
        pkg_dir_path = Path(__file__).parent

        def _info(self) -> Any:
            return _described(self, kind.features(()))

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {split: self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
            yield from enumerate(map(kind.example, records))

    check_utf8(folder)
    with whole_folder(folder, replace=False) as partial:
        _prepare(Examples, partial)


def _described(builder: Any, features: dict[str, Any]) -> Any:
    import tensorflow_datasets as tfds

    described = tfds.features.FeaturesDict(features)
    return builder.dataset_info_from_configs(features=described, description="Examples.", disable_shuffling=True)


def _prepare(builder_class: Callable[..., Any], partial: Path) -> None:
    with quiet_tfds():
        builder = builder_class(data_dir=partial.absolute() / "tfds", file_format="array_record")
        builder.download_and_prepare()
    # tfds lays its files under DATA_DIR/examples/1.0.0; what is named in a configuration is the folder itself.
    for file in Path(builder.data_dir).iterdir():
        file.rename(partial / file.name)
    shutil.rmtree(partial / "tfds")


def _link(file: Path, name: Path) -> None:
    """Another name for a file, or a copy where the file system knows no links."""
    try:
        os.link(file, name)
    except OSError:
        shutil.copyfile(file, name)
