"""The one engine: a checkpoint's tensors to our parameters by a mapping table, and back, accounting for every key.

Nothing is read before it is written: a parameter is a recipe for its pieces (`Lazy`), layer by layer, so that a
conversion needs the memory of its largest tensor, not of the checkpoint. Values are carried exactly, in their dtype.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce

import numpy as np

from jclip.conversion.rows import FUSED, Row, Table
from jclip.errors import JclipError
from jclip.io.tensors import Lazy


@dataclass(frozen=True)
class Imported:
    """A checkpoint under our names.

    Attributes:
      tensors: path -> parameter, not read yet.
      keys: the keys that they are made of.
      dropped: key -> why it is not used.
    """

    tensors: dict[str, Lazy]
    keys: tuple[str, ...]
    dropped: dict[str, str]


def import_tensors(
    table: Table,
    wanted: Mapping[str, tuple[int, ...]],
    theirs: Mapping[str, Lazy],
    *,
    title: str = "this family",
    dropped: Sequence[tuple[str, str]],
    name_of: Callable[[str], str],
) -> Imported:
    """A checkpoint's tensors as parameters.

    Args:
      table: of the family.
      wanted: path -> shape of every parameter of the model, running statistics included.
      theirs: key -> tensor, in the table's spelling.
      title: of the family, for messages.
      dropped: (regex, reason): keys that are expected and not used.
      name_of: what to call a key in an error: the file, and the key as it is spelt there.

    Returns:
      The parameters. A tensor with NaN or infinity is found when it is read: a JclipError then.

    Raises:
      JclipError: a tensor is missing, of another shape, not of floating point, or one that nothing accounts for.
    """
    rows = {row.ours: row for row in table}
    assert rows.keys() == wanted.keys(), sorted(rows.keys() ^ wanted.keys())
    tensors, used = {}, {}
    for path, shape in wanted.items():
        row = rows[path]
        keys = _keys(row, shape)
        used.update(dict.fromkeys(keys, path))
        for key in keys:
            _check(theirs, key, row.their_shape(shape[1:] if row.stacked else shape), title, name_of)
        dtype = _holding_all(theirs[key].dtype for key in keys)
        tensors[path] = Lazy(shape, dtype, partial(_pieces, row, [theirs[key] for key in keys], dtype, keys, name_of))
    reasons = {}
    for key in theirs:
        if key not in used:
            reasons[key] = _reason(key, title, dropped, name_of)
    return Imported(tensors, tuple(used), reasons)


def export_tensors(table: Table, ours: Mapping[str, Lazy]) -> dict[str, Lazy]:
    """Our parameters as a checkpoint's tensors: undoes `import_tensors`, bit for bit.

    Raises:
      JclipError: a parameter has no place there.
    """
    if strangers := sorted(ours.keys() - {row.ours for row in table}):
        raise JclipError(f"{strangers[0]} has no place in such a checkpoint: it cannot be written there")
    sources: dict[str, list[tuple[Row, int | None]]] = {}
    for row in table:
        layers = range(ours[row.ours].shape[0]) if row.stacked else [None]
        for layer in layers:
            key = row.theirs if layer is None else row.theirs.replace("{i}", str(layer))
            sources.setdefault(key, []).append((row, layer))
    return {key: _exported(parts, ours) for key, parts in sources.items()}


def _keys(row: Row, shape: tuple[int, ...]) -> list[str]:
    return [row.theirs.replace("{i}", str(layer)) for layer in range(shape[0])] if row.stacked else [row.theirs]


def _check(
    theirs: Mapping[str, Lazy], key: str, shape: tuple[int, ...], title: str, name_of: Callable[[str], str]
) -> None:
    if key not in theirs:
        raise JclipError(f"{name_of(key)} is missing: the file is not whole, or not of {title}")
    tensor = theirs[key]
    if tensor.shape != shape:
        raise JclipError(
            f"{name_of(key)} has shape {tensor.shape}, but this model needs {shape}: the file is damaged, or not of "
            f"{title}"
        )
    if tensor.dtype.kind not in "fV" or tensor.dtype.itemsize > 8:  # "V": bfloat16, which numpy does not know
        raise JclipError(f"{name_of(key)} is {tensor.dtype}, not floating point: take weights that are not quantised")


def _holding_all(dtypes: Iterable[np.dtype]) -> np.dtype:
    """The smallest that holds the values of all; float16 and bfloat16 together need float32."""
    try:
        return reduce(np.promote_types, dtypes)
    except np.exceptions.DTypePromotionError:
        return np.dtype(np.float32)


def _reason(key: str, title: str, dropped: Sequence[tuple[str, str]], name_of: Callable[[str], str]) -> str:
    for pattern, reason in dropped:
        if re.fullmatch(pattern, key):
            return reason
    raise JclipError(
        f"{name_of(key)} has no place in this model: the file is of another version, or not of {title} (see --family)"
    )


def _pieces(
    row: Row, tensors: Sequence[Lazy], dtype: np.dtype, keys: Sequence[str], name_of: Callable[[str], str]
) -> Iterator[np.ndarray]:
    for tensor, key in zip(tensors, keys, strict=True):
        in_order = not row.axes and row.part is None  # then there is no need for the whole at once
        for piece in tensor.parts() if in_order else (_ours(row, tensor.read()),):
            if not np.isfinite(piece).all():
                raise JclipError(f"{name_of(key)} holds NaN or infinity: fetch it again, or take an earlier checkpoint")
            yield np.ascontiguousarray(piece, dtype=dtype)


def _ours(row: Row, value: np.ndarray) -> np.ndarray:
    if row.part is not None:
        value = np.split(value, FUSED)[row.part]
    return value.transpose(row.axes) if row.axes else value


def _exported(parts: list[tuple[Row, int | None]], ours: Mapping[str, Lazy]) -> Lazy:
    row, _ = parts[0]
    first = ours[row.ours]
    shape = row.their_shape(first.shape[1:] if row.stacked else first.shape)
    dtype = _holding_all(ours[row.ours].dtype for row, _ in parts)

    def pieces() -> Iterator[np.ndarray]:
        # A fused tensor is its thirds, one above the other.
        for row, layer in sorted(parts, key=lambda part: part[0].part or 0):
            tensor = ours[row.ours]
            if layer is None and not row.axes:
                yield from (np.ascontiguousarray(piece, dtype=dtype) for piece in tensor.parts())
                continue
            value = tensor.read() if layer is None else tensor.layer(layer)
            back = np.argsort(row.axes) if row.axes else None
            yield np.ascontiguousarray(value if back is None else value.transpose(back), dtype=dtype)

    return Lazy(shape, dtype, pieces)
