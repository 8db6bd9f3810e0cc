"""An ONNX export as a model: `jclip.load(folder)` runs it with onnxruntime.

Axes: b batch, l tokens, d features.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from jclip.bundle import Bundle, check_parts
from jclip.encoding import Encoder
from jclip.errors import JclipError
from jclip.export.beside import TOKENIZER
from jclip.export.record import Record, read_record
from jclip.images.opening import cores
from jclip.images.preprocess import Preprocessing
from jclip.inference import Model
from jclip.names import TowerName
from jclip.plain import shown
from jclip.tokenizers.text import Tokenizer, load_tokenizer

_IMAGES, _TOKENS = 4, 800
"""Inputs of a tower at once, at least one image a core. More fall out of the processor's caches, and are slower."""


class OnnxModel(Model):
    """Model whose features are computed by onnxruntime, on the CPU.

    It has no parameters: `variables` and `bundle.params` are empty, and it cannot be saved as a bundle.

    Args:
      folder: folder of the export.
      record: its record.
      batch_size: number of images or texts encoded at once.
      tower: "image" or "text" to load that tower alone; None for all.

    Raises:
      JclipError: the folder is not an ONNX export, or a file is missing or damaged, or refers to files outside.
    """

    def __init__(self, folder: Path, record: Record, batch_size: int = 256, *, tower: TowerName | None = None):
        if record.format != "onnx":
            kind = shown(record.format)
            raise JclipError(f"{folder} is an export as {kind}, which jclip does not run: load its bundle")
        towers = record.config.towers
        if tower not in (None, *towers):
            raise JclipError(f"tower is {tower!r}, but this export has {' and '.join(towers)}: give one, or None")
        self._folder, self._record, self._batch_size, self.tower = folder, record, batch_size, tower
        tokenizer = load_tokenizer(folder / TOKENIZER)
        self.bundle = Bundle(record.config, {}, tokenizer, record.preprocessing, record.context_length)
        check_parts(self.bundle)
        self.variables, self._origin = {}, None
        self.similarity_scale = record.similarity_scale
        wanted = [name for name in towers if tower in (None, name)]
        sessions = {name: Tower(folder / file_name(name), record.embed_dim) for name in wanted}
        self._encoder = _OnnxEncoder(record, tokenizer, sessions, batch_size)

    def __reduce__(self) -> tuple[Any, ...]:
        bundle = self.bundle
        record = replace(self._record, preprocessing=bundle.preprocessing, context_length=bundle.context_length)
        arguments = self._folder, record, self._batch_size
        return partial(OnnxModel, tower=self.tower), arguments, {"source": self.source}

    @cached_property
    def identity(self) -> str:
        """The source model's identity; of an int8 export, with a suffix, because its features differ."""
        return self._record.identity + ("-int8" if self._record.own.get("int8") else "")

    @property
    def name(self) -> str:
        """The source model's name."""
        return self._record.name

    @property
    def embed_dim(self) -> int:
        """Number of dimensions of the features."""
        return self._record.embed_dim

    @property
    def apply(self) -> Callable[..., Any]:
        """Raises JclipError, because the parameters are in the graphs."""
        raise JclipError(f"{self._folder} is an ONNX export, which has no function for jax: load the bundle")


def load_onnx(folder: Path, *, batch_size: int = 256, tower: TowerName | None = None) -> OnnxModel:
    """Loads an ONNX export. Raises JclipError if it is not one, is damaged, or has no such tower."""
    return OnnxModel(folder, read_record(folder), batch_size, tower=tower)


def file_name(tower: str) -> str:
    """Returns the name of a tower's file: "image.onnx"."""
    return f"{tower}.onnx"


def pixel_values(preprocessing: Preprocessing, images_bhwc: np.ndarray) -> np.ndarray:
    """Returns normalised float32 (b, 3, h, w) of uint8 images (b, h, w, 3)."""
    mean, std = (np.array(each, np.float32) for each in (preprocessing.mean, preprocessing.std))
    values_bhwc = (images_bhwc.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(values_bhwc.transpose(0, 3, 1, 2))


class Tower:
    """Session of onnxruntime for one tower's file.

    Raises JclipError if the file is missing or damaged, has operators that onnxruntime lacks, or names weights
    outside of its folder.

    Args:
      file: file of the graph.
      embed_dim: width that its features must have; None for any.

    Attributes:
      reads_uint8: True if the graph includes the preprocessing of images.
    """

    def __init__(self, file: Path, embed_dim: int | None = None):
        import onnxruntime

        check_graph(file)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cores()
        options.log_severity_level = 3  # errors
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common class
            raise _damaged(file, error) from None
        (only,) = self._session.get_inputs()
        self._file, self._input, self.reads_uint8 = file, only.name, only.type == "tensor(uint8)"
        self._embed_dim = embed_dim

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Returns the features of a batch, (b, d). Raises JclipError if the graph fails."""
        try:
            (features_bd,) = self._session.run(None, {self._input: batch})
        except Exception as error:
            raise _damaged(self._file, error) from None
        shape = len(batch), self._embed_dim or features_bd.shape[-1]
        if features_bd.shape != shape or features_bd.dtype != np.float32:
            raise _damaged(self._file, f"it gives {features_bd.dtype} {features_bd.shape}, which are not features")
        return np.asarray(features_bd)


def check_graph(file: Path) -> None:
    """Raises JclipError if an ONNX file is damaged, or names a file of weights that is not beside it."""
    import onnx

    if not file.is_file():
        raise JclipError(f"{file} is missing: export the model again")
    try:
        model = onnx.load(str(file), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, or an OSError
        raise _damaged(file, error) from None
    if len(model.graph.input) != 1 or len(model.graph.output) != 1:
        raise _damaged(file, "it has more than one input or output")
    for tensor in _tensors(model):
        for pair in tensor.external_data:
            if pair.key == "location" and not _is_beside(file, pair.value):
                raise _damaged(file, f"it names weights in another folder, {shown(pair.value)}")


def _is_beside(file: Path, location: str) -> bool:
    data = file.parent / location
    return location == Path(location).name and data.is_file() and not data.is_symlink()


def _tensors(message: Any) -> Iterator[Any]:
    """Yields all tensors in a protobuf message: weights, and attributes of nodes, in subgraphs and functions too."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else (value,):
                yield from _tensors(inner)


def _damaged(file: Path, why: object) -> JclipError:
    said = " ".join(str(why).split())[:300]
    return JclipError(f"{file} cannot be run as ONNX ({shown(said)}): export the model again")


class _OnnxEncoder(Encoder):
    """Encoder whose functions are sessions. Shapes are not compiled, so batches and texts are not padded further."""

    def __init__(self, record: Record, tokenizer: Tokenizer, towers: dict[str, Tower], batch_size: int):
        super().__init__(record.config, tokenizer, record.preprocessing, record.context_length, batch_size)
        self._towers, self._embed_dim = towers, record.embed_dim

    def _image_function(self, preprocessing: Preprocessing) -> Callable[..., Any]:
        tower = self._towers["image"]

        def encode(variables: dict[str, Any], images_bhwc: np.ndarray) -> np.ndarray:
            del variables
            pixels = images_bhwc if tower.reads_uint8 else pixel_values(preprocessing, images_bhwc)
            return _in_parts(tower, pixels, max(_IMAGES, cores()))

        return encode

    def _text_function(self) -> Callable[..., Any]:
        tower, pad_id = self._towers["text"], self._tokenizer.pad_id

        def encode(variables: dict[str, Any], ids_bl: np.ndarray) -> np.ndarray:
            del variables
            length = int(np.flatnonzero((ids_bl != pad_id).any(axis=0))[-1]) + 1
            texts = max(_TOKENS, _TOKENS // _IMAGES * cores()) // length
            return _in_parts(tower, ids_bl[:, :length].astype(np.int64), max(1, texts))

        return encode

    def _in_batches(
        self, function: Any, variables: dict[str, Any], count: int, rows: Callable[[Sequence[int]], np.ndarray]
    ) -> np.ndarray:
        starts = range(0, count, self._batch_size)
        batches = (range(start, min(start + self._batch_size, count)) for start in starts)
        return np.concatenate([function(variables, rows(batch)) for batch in batches])

    def _no_features(self, function: Any, variables: dict[str, Any], example: np.ndarray) -> np.ndarray:
        return np.zeros((0, self._embed_dim), np.float32)


def _in_parts(tower: Tower, batch: np.ndarray, most: int) -> np.ndarray:
    """Returns the features of a batch, of which the tower gets at most `most` inputs at once, in equal parts."""
    return np.concatenate([tower(part) for part in np.array_split(batch, -(-len(batch) // most))])
