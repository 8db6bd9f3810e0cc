"""Maps a checkpoint's tensors to a bundle's parameters by a table, and back. Each key is mapped, dropped, or an error.

Parameters are `Lazy`: nothing is read until it is written, layer by layer, so a conversion needs the memory of its
largest tensor. Values keep their dtype and every bit.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce

import numpy as np

from jclip.conversion.towers.rows import FUSED, MappingRow, MappingTable
from jclip.errors import JclipError
from jclip.io.tensors import Lazy


@dataclass(frozen=True)
class MappedTensors:
    """Tensors of a checkpoint under a bundle's paths.

    Attributes:
      tensors: parameters by path, not read yet.
      keys: keys of the tensors that are used.
      dropped: reason for each key that is not used.
    """

    tensors: dict[str, Lazy]
    keys: tuple[str, ...]
    dropped: dict[str, str]


def import_tensors(
    table: MappingTable,
    wanted: Mapping[str, tuple[int, ...]],
    theirs: Mapping[str, Lazy],
    dropped: Sequence[tuple[str, str]],
    name_of: Callable[[str], str],
    title: str = "this family",
) -> MappedTensors:
    """Maps a checkpoint's tensors to parameters.

    Raises JclipError if a tensor is missing, has another shape, is not floating point, or is not part of the model.
    Reading a parameter that contains NaN or infinity raises it too.

    Args:
      table: the family's mapping table.
      wanted: shape of every parameter and running statistic of the model, by path.
      theirs: tensors by key, in the table's spelling.
      title: name of the family for messages.
      dropped: (regex, reason) of keys that are expected and not used.
      name_of: returns a key's file and original name for messages.
    """
    rows = {row.ours: row for row in table}
    if rows.keys() != wanted.keys():
        raise RuntimeError(f"the mapping table and the model differ: {sorted(rows.keys() ^ wanted.keys())}")
    tensors, used = {}, {}
    for path, shape in wanted.items():
        row = rows[path]
        keys = _keys(row, shape)
        used.update(dict.fromkeys(keys, path))
        for key in keys:
            _check(theirs, key, row.their_shape(shape[1:] if row.stacked else shape), title, name_of)
        dtype = _common_dtype(theirs[key].dtype for key in keys)
        tensors[path] = Lazy(shape, dtype, partial(_pieces, row, [theirs[key] for key in keys], dtype, keys, name_of))
    reasons = {key: _reason(key, title, dropped, name_of) for key in theirs if key not in used}
    return MappedTensors(tensors, tuple(used), reasons)


def export_tensors(table: MappingTable, ours: Mapping[str, Lazy]) -> dict[str, Lazy]:
    """Maps parameters to a checkpoint's tensors, the inverse of `import_tensors`.

    Raises JclipError if the table has no row for a parameter.
    """
    if strangers := sorted(ours.keys() - {row.ours for row in table}):
        raise JclipError(f"{strangers[0]} has no key in such a checkpoint: keep the bundle")
    sources: dict[str, list[tuple[MappingRow, int | None]]] = {}
    for row in table:
        layers = range(ours[row.ours].shape[0]) if row.stacked else [None]
        for layer in layers:
            key = row.theirs if layer is None else row.theirs.replace("{i}", str(layer))
            sources.setdefault(key, []).append((row, layer))
    return {key: _exported(parts, ours) for key, parts in sources.items()}


def _keys(row: MappingRow, shape: tuple[int, ...]) -> list[str]:
    return [row.theirs.replace("{i}", str(layer)) for layer in range(shape[0])] if row.stacked else [row.theirs]


def _check(
    theirs: Mapping[str, Lazy], key: str, shape: tuple[int, ...], title: str, name_of: Callable[[str], str]
) -> None:
    if key not in theirs:
        raise JclipError(f"{name_of(key)} is missing: the file is incomplete, or not of {title}")
    tensor = theirs[key]
    if tensor.shape != shape:
        raise JclipError(
            f"{name_of(key)} has shape {tensor.shape}, but this model needs {shape}: the file is damaged, or not of "
            f"{title}"
        )
    if tensor.dtype.kind not in "fV" or tensor.dtype.itemsize > 8:  # "V": bfloat16, which numpy does not know
        raise JclipError(f"{name_of(key)} is {tensor.dtype}, not floating point: use weights that are not quantised")


def _common_dtype(dtypes: Iterable[np.dtype]) -> np.dtype:
    """Returns the smallest dtype that holds all values exactly: float32 for float16 with bfloat16."""
    try:
        return reduce(np.promote_types, dtypes)
    except np.exceptions.DTypePromotionError:
        return np.dtype(np.float32)


def _reason(key: str, title: str, dropped: Sequence[tuple[str, str]], name_of: Callable[[str], str]) -> str:
    for pattern, reason in dropped:
        if re.fullmatch(pattern, key):
            return reason
    raise JclipError(f"{name_of(key)} is not part of this model: it is of another version, or not of {title}")


def _pieces(
    row: MappingRow, tensors: Sequence[Lazy], dtype: np.dtype, keys: Sequence[str], name_of: Callable[[str], str]
) -> Iterator[np.ndarray]:
    for tensor, key in zip(tensors, keys, strict=True):
        in_order = not row.axes and row.part is None  # then blocks can be copied without reading the whole tensor
        for piece in tensor.parts() if in_order else (_ours(row, tensor.read()),):
            if not np.isfinite(piece).all():
                raise JclipError(f"{name_of(key)} holds NaN or infinity: fetch it again, or use an earlier checkpoint")
            yield np.ascontiguousarray(piece, dtype=dtype)


def _ours(row: MappingRow, value: np.ndarray) -> np.ndarray:
    if row.part is not None:
        value = np.split(value, FUSED)[row.part]
    return value.transpose(row.axes) if row.axes else value


def _exported(parts: list[tuple[MappingRow, int | None]], ours: Mapping[str, Lazy]) -> Lazy:
    row, _ = parts[0]
    first = ours[row.ours]
    shape = row.their_shape(first.shape[1:] if row.stacked else first.shape)
    dtype = _common_dtype(ours[row.ours].dtype for row, _ in parts)

    def pieces() -> Iterator[np.ndarray]:
        for row, layer in sorted(parts, key=lambda part: part[0].part or 0):  # query, key, value of a fused tensor
            tensor = ours[row.ours]
            if layer is None and not row.axes:
                yield from (np.ascontiguousarray(piece, dtype=dtype) for piece in tensor.parts())
                continue
            value = tensor.read() if layer is None else tensor.layer(layer)
            inverse = np.argsort(row.axes) if row.axes else None
            yield np.ascontiguousarray(value if inverse is None else value.transpose(inverse), dtype=dtype)

    return Lazy(shape, dtype, pieces)
