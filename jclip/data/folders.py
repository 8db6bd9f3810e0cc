"""Pairs and parallel text on disk: array_record files through tensorflow-datasets, without TensorFlow.

    data/my-pairs/                 the folder that a configuration names
      dataset_info.json, features.json, examples-train.array_record-00000-of-00001, …

Random access into them costs a seek, so that the order of the examples can be any.
"""

import contextlib
import io
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, overload

import numpy as np

from jclip.data.images import Preprocessing
from jclip.data.records import Pair, Translation
from jclip.errors import JclipError
from jclip.files import whole_folder

Record = TypeVar("Record")


class StoredPair(NamedTuple):
    """A picture as the encoded bytes that it came in, and its captions."""

    image: bytes
    captions: tuple[str, ...]
    image_id: int
    text_id: int


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
    weight: float = 1.0

    def open(self, preprocessing: Preprocessing | None = None) -> Sequence[Pair]:
        """Its records, read when they are asked for.

        Raises:
          JclipError: the folder or the split is missing.
        """
        del preprocessing
        return Records(_examples(Path(self.folder), self.split, undecoded="image"), _pair)


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
    english_share: float = 0.5
    weight: float = 1.0

    def open(self, preprocessing: Preprocessing | None = None) -> Sequence[Translation]:
        """Its records, read when they are asked for.

        Raises:
          JclipError: the folder or the split is missing.
        """
        del preprocessing
        return Records(_examples(Path(self.folder), self.split), _translation)


class Records(Sequence[Record], Generic[Record]):
    """Examples of a data source, each made into a record when it is asked for."""

    def __init__(self, examples: Sequence[Any], make: Callable[[Any], Record]):
        self._examples, self._make = examples, make

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
        return self._make(self._examples[index % len(self)])


def write_pairs(folder: Path, pairs: Iterable[StoredPair], split: str = "train") -> None:
    """Writes pairs as array_record files.

    Raises:
      JclipError: the folder is there already.
    """
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(),
        "captions": tfds.features.Sequence(tfds.features.Text()),
        "image_id": tfds.features.Scalar(np.int64),
        "text_id": tfds.features.Scalar(np.int64),
    }
    _write(folder, features, split, ({**pair._asdict(), "captions": list(pair.captions)} for pair in pairs))


def write_parallel(folder: Path, sentences: Iterable[Translation], split: str = "train") -> None:
    """Writes parallel text as array_record files.

    Raises:
      JclipError: the folder is there already.
    """
    import tensorflow_datasets as tfds

    features = {name: tfds.features.Text() for name in Translation._fields}
    _write(folder, features, split, (sentence._asdict() for sentence in sentences))


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
    """tensorflow-datasets without its progress bars and its remarks on standard output."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _write(folder: Path, features: dict[str, Any], split: str, examples: Iterator[dict[str, Any]]) -> None:
    import tensorflow_datasets as tfds

    class Examples(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        VERSION = tfds.core.Version("1.0.0")
        name = "examples"
        pkg_dir_path = Path(__file__).parent

        def _info(self) -> Any:
            described = tfds.features.FeaturesDict(features)
            return self.dataset_info_from_configs(features=described, description="Examples.", disable_shuffling=True)

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {split: self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
            yield from enumerate(examples)

    with whole_folder(folder, replace=False) as partial:
        with quiet_tfds():
            builder = Examples(data_dir=partial / "tfds", file_format="array_record")
            builder.download_and_prepare()
        # tfds lays its files under DATA_DIR/examples/1.0.0; what is named in a configuration is the folder itself.
        for file in Path(builder.data_dir).iterdir():
            file.rename(partial / file.name)
        shutil.rmtree(partial / "tfds")


def _examples(folder: Path, split: str, undecoded: str = "") -> Sequence[Any]:
    import tensorflow_datasets as tfds

    if not (folder / "dataset_info.json").is_file():
        raise JclipError(f"{folder} holds no data set (it has no dataset_info.json): name another folder")
    builder = tfds.builder_from_directory(folder)
    if split not in builder.info.splits:
        raise JclipError(f"{folder} has no split {split!r}: it has {', '.join(builder.info.splits)}")
    decoders = {undecoded: tfds.decode.SkipDecoding()} if undecoded else None
    return builder.as_data_source(split, decoders=decoders)


def _pair(example: dict[str, Any]) -> Pair:
    captions = [_text(caption) for caption in example["captions"]]
    return Pair((example["image"],), captions, (int(example["image_id"]),), int(example["text_id"]))


def _translation(example: dict[str, Any]) -> Translation:
    return Translation(*(_text(example[name]) for name in Translation._fields))


def _text(value: bytes | str) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
