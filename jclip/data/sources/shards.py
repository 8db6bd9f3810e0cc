"""Records of array_record files as they are stored, for moving them from one file to another unchanged."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from jclip.data.sources.folders import SEVERAL
from jclip.data.sources.kinds import Kind
from jclip.errors import JclipError

_TOGETHER = 32  # records that are read at once


def read_shard(file: Path) -> Iterator[bytes]:
    """Yields the records of a file in order, serialized.

    Raises:
      JclipError: the file is damaged.
    """
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        reader = ArrayRecordReader(str(file))
        try:
            count = int(reader.num_records())
            for start in range(0, count, _TOGETHER):
                yield from reader.read(start, min(start + _TOGETHER, count))
        finally:
            reader.close()
    except (RuntimeError, ValueError, OSError, IndexError) as error:
        raise JclipError(f"{file} is damaged ({error}): import the folder again") from None


def write_raw_shard(file: Path, records: Iterable[bytes]) -> None:
    """Writes serialized records; the bytes are those that `folders.write_shard` gives."""
    from tensorflow_datasets.core import file_adapters

    file_adapters.ArrayRecordFileAdapter.write_examples(file, enumerate(records))


def several_features(kind: Kind) -> set[str]:
    """Returns the names of the features of which a record has a list."""
    import tensorflow_datasets as tfds

    return {name for name, one in kind.features(("",)).items() if isinstance(one, tfds.features.Sequence)}


def spoken(languages: Sequence[str]) -> str:
    """Returns the language of a record whose texts have these: `SEVERAL` where they differ."""
    return languages[0] if len(set(languages)) == 1 else SEVERAL
