"""Examples of a data folder as plain values.

The reader of tensorflow-datasets makes arrays of everything; for images that takes longer than reading the file.
"""

from collections.abc import Collection, Sequence
from typing import Any


class RawExamples(Sequence[dict[str, Any]]):
    """Examples of a split of an array_record folder: each feature's value or list of values; bytes and integers."""

    def __init__(self, builder: Any, split: str):
        import tensorflow_datasets as tfds

        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        self._stored = builder.as_data_source(split, deserialize_method=raw)
        self._lists = list_features(builder.info.features)

    def __len__(self) -> int:
        return len(self._stored)

    def __getitem__(self, index: Any) -> Any:
        return parse_example(self._stored[index], self._lists)


def parse_example(raw: bytes, lists: Collection[str]) -> dict[str, Any]:
    """Parses a serialized example: returns each feature's value, or the list of its values if it is in `lists`."""
    from tensorflow_datasets.proto import tf_example_pb2

    features = tf_example_pb2.Example.FromString(raw).features.feature
    values = {name: one.bytes_list.value or one.int64_list.value for name, one in features.items()}
    return {name: value if name in lists else value[0] for name, value in values.items()}


def list_features(features: Any) -> set[str]:
    """Returns the names of the features that hold lists."""
    import tensorflow_datasets as tfds

    return {name for name, one in features.items() if isinstance(one, tfds.features.Sequence)}
