"""Writes data folders: whole ones from records, and shards that an import gathers into one."""

import contextlib
import io
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jclip.data.sources.folders import SEVERAL, Shard
from jclip.data.sources.kinds import PAIRS, PARALLEL, RecordKind, StoredPair
from jclip.data.sources.records import Translation
from jclip.errors import JclipError
from jclip.io.files import check_utf8, link_or_copy, whole_folder

_READ_AT_ONCE = 32  # records


def write_pairs(folder: Path, pairs: Iterable[StoredPair], split: str = "train") -> None:
    """Writes pairs as a data folder of array_records. Raises JclipError if it exists, or its name is not UTF-8."""
    _write(folder, PAIRS, split, pairs)


def write_parallel(folder: Path, sentences: Iterable[Translation], split: str = "train") -> None:
    """Writes parallel text as a data folder of array_records. Raises JclipError as `write_pairs` does."""
    _write(folder, PARALLEL, split, sentences)


def write_shard(file: Path, kind: RecordKind, records: Iterable[Any], classes: Sequence[str] = ()) -> None:
    """Writes one array_record file; its bytes depend on the records alone."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import example_serializer

    features = tfds.features.FeaturesDict(kind.features(classes))
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())

    def serialized() -> Iterator[bytes]:
        for record in records:
            example = serializer.get_tf_example(features.encode_example(kind.example(record)))
            # By default the order of the features differs between processes.
            yield example.SerializeToString(deterministic=True)

    write_raw_shard(file, serialized())


def write_raw_shard(file: Path, records: Iterable[bytes]) -> None:
    """Writes an array_record file of serialized records."""
    from tensorflow_datasets.core import file_adapters

    file_adapters.ArrayRecordFileAdapter.write_examples(file, enumerate(records))


def read_raw_shard(file: Path) -> Iterator[bytes]:
    """Yields the serialized records of an array_record file in order. Raises JclipError if the file is damaged."""
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        with contextlib.closing(ArrayRecordReader(str(file))) as reader:
            count = int(reader.num_records())
            for start in range(0, count, _READ_AT_ONCE):
                yield from reader.read(start, min(start + _READ_AT_ONCE, count))
    except (RuntimeError, ValueError, OSError, IndexError) as error:
        raise JclipError(f"{file} is damaged ({error}): import the folder again") from None


def count_records(shard: Path) -> int:
    """Returns the number of records of an array_record file; 0 if it is incomplete or missing."""
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        with contextlib.closing(ArrayRecordReader(str(shard))) as reader:
            return int(reader.num_records())
    except (RuntimeError, ValueError, OSError):
        return 0


def gather_shards(
    partial: Path, kind: RecordKind, splits: Mapping[str, Sequence[Shard]], classes: Sequence[str] = ()
) -> None:
    """Makes a data folder in the existing folder `partial`, from shards of `write_shard`, which stay in place."""
    import tensorflow_datasets as tfds

    class Examples(tfds.core.ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        VERSION = tfds.core.Version("1.0.0")
        name = "examples"
        pkg_dir_path = Path(__file__).parent

        def _info(self) -> Any:
            return _dataset_info(self, kind.features(classes))

        def _shard_iterators_per_split(self, dl_manager: Any) -> Any:
            raise NotImplementedError("the shards exist already")

        def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
            found = []
            for split, shards in splits.items():
                template = self._get_filename_template(split_name=split)
                for number, shard in enumerate(shards):
                    link_or_copy(
                        shard.file, Path(template.sharded_filepath(shard_index=number, num_shards=len(shards)))
                    )
                size = sum(shard.file.stat().st_size for shard in shards)
                lengths = [shard.records for shard in shards]
                shape = {"shard_lengths": lengths, "num_bytes": size, "filename_template": template}
                found.append(tfds.core.SplitInfo(name=split, **shape))
            self.info.set_splits(tfds.core.splits.SplitDict(found))

    _prepare(Examples, partial)


def write_languages(folder: Path, split: str, languages: np.ndarray) -> None:
    """Writes the language of each record (see `language_of`), unless none is known."""
    names, codes = np.unique(languages, return_inverse=True)
    if any(names):
        np.savez(folder / f"languages-{split}.npz", names=names, codes=codes.astype(np.uint16))


def language_of(languages: Sequence[str]) -> str:
    """Returns the language of a record from those of its texts; `SEVERAL` if they differ."""
    return languages[0] if len(set(languages)) == 1 else SEVERAL


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
    """Silences tensorflow-datasets' progress bars and its output on stdout."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _write(folder: Path, kind: RecordKind, split: str, records: Iterable[Any]) -> None:
    import tensorflow_datasets as tfds

    class Examples(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        VERSION = tfds.core.Version("1.0.0")
        name = "examples"
        pkg_dir_path = Path(__file__).parent

        def _info(self) -> Any:
            return _dataset_info(self, kind.features(()))

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {split: self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
            yield from enumerate(map(kind.example, records))

    check_utf8(folder)
    with whole_folder(folder, replace=False) as partial:
        _prepare(Examples, partial)


def _dataset_info(builder: Any, features: dict[str, Any]) -> Any:
    import tensorflow_datasets as tfds

    described = tfds.features.FeaturesDict(features)
    return builder.dataset_info_from_configs(features=described, description="Examples.", disable_shuffling=True)


def _prepare(builder_class: Callable[..., Any], partial: Path) -> None:
    with quiet_tfds():
        builder = builder_class(data_dir=partial.absolute() / "tfds", file_format="array_record")
        builder.download_and_prepare()
    # tfds writes to DATA_DIR/examples/1.0.0; a configuration names the folder itself.
    for file in Path(builder.data_dir).iterdir():
        file.rename(partial / file.name)
    shutil.rmtree(partial / "tfds")
