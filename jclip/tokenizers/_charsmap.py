"""Checks SentencePiece's precompiled normalisation map.

The `tokenizers` library accepts any bytes, and panics at the first text whose lookup leaves them.

    bytes 0 to 3       size of the trie in bytes, n
    bytes 4 to 3 + n   the trie: a double array (Darts), little-endian uint32 units
    the rest           replacements, UTF-8, each ended by a zero; a leaf's value is the offset of its replacement
"""

import struct

import numpy as np


def check_charsmap(data: bytes) -> None:
    """Raises ValueError if the lookup of a text could leave the map, or the map is damaged. Accepts empty data."""
    if not data:
        return
    size = struct.unpack_from("<I", data)[0] if len(data) >= 4 else 0
    if size % 4 or not 0 < size <= len(data) - 4:
        raise ValueError("its precompiled_charsmap is cut off")
    replacements = data[4 + size :]
    try:
        replacements.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("its precompiled_charsmap holds replacements that are not UTF-8") from None
    values = _values(np.frombuffer(data, "<u4", size // 4, 4).astype(np.int64))
    begins = np.append(np.frombuffer(replacements, np.uint8) & 0xC0 != 0x80, True)  # starts of characters, and the end
    if (values >= len(begins)).any() or not begins[values].all():
        raise ValueError("its precompiled_charsmap refers to a replacement that does not exist")


def _values(units: np.ndarray) -> np.ndarray:
    """Returns the values of all reachable leaves, breadth first."""
    letters = np.arange(1, 256)  # a zero ends the library's walk
    seen = np.zeros(len(units), bool)
    values = [np.zeros(0, np.int64)]
    bases = _offsets(units[:1])
    while len(bases):
        _check_inside(bases | 255, units)
        seen[bases] = True
        places = bases[:, None] ^ letters
        fits = units[places] & 0x800000FF == letters
        found, next_bases = units[places[fits]], places[fits] ^ _offsets(units[places[fits]])
        leaves = next_bases[found >> 8 & 1 == 1]
        _check_inside(leaves, units)
        values.append(units[leaves] & 0x7FFFFFFF)
        bases = np.unique(next_bases)
        bases = bases[(bases >= len(units)) | ~seen[np.minimum(bases, len(units) - 1)]]
    return np.concatenate(values)


def _offsets(units: np.ndarray) -> np.ndarray:
    return units >> 10 << ((units & 0x200) >> 6)


def _check_inside(places: np.ndarray, units: np.ndarray) -> None:
    if (places >= len(units)).any():
        raise ValueError("its precompiled_charsmap refers to units outside itself")
