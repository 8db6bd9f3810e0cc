"""Examples of a data folder as plain values. tensorflow-datasets reads them too, but makes arrays of everything, which
for pictures takes longer than reading the file.
"""

from collections.abc import Collection, Sequence
from typing import Any


class Examples(Sequence[dict[str, Any]]):
    """A split's examples: by feature its value, or the list of its values; bytes and whole numbers.

    Args:
      builder: of tensorflow-datasets, for an array_record folder.
      split: its name.
    """

    def __init__(self, builder: Any, split: str):
        import tensorflow_datasets as tfds

        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        self._stored = builder.as_data_source(split, deserialize_method=raw)
        lists = tfds.features.Sequence
        self._several = {name for name, feature in builder.info.features.items() if isinstance(feature, lists)}

    def __len__(self) -> int:
        return len(self._stored)

    def __getitem__(self, index: Any) -> Any:
        return parsed(self._stored[index], self._several)


def parsed(raw: bytes, several: Collection[str]) -> dict[str, Any]:
    """Returns the features of a serialized example by name: a value, or a list for the names in `several`."""
    from tensorflow_datasets.proto import tf_example_pb2

    features = tf_example_pb2.Example.FromString(raw).features.feature
    values = {name: one.bytes_list.value or one.int64_list.value for name, one in features.items()}
    return {name: value if name in several else value[0] for name, value in values.items()}
