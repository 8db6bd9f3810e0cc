"""Images on a terminal: kitty's graphics protocol, iTerm2's inline images, and sixels.

kitty: https://sw.kovidgoyal.net/kitty/graphics-protocol/. iTerm2: https://iterm2.com/documentation-images.html. Sixels:
the DEC VT330/VT340 graphics programming manual, chapter 14.
"""

import base64
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image

from jclip.search.thumbnails import encoded

_CHUNK = 4096  # characters of a command of kitty
_COLOURS = 255
_BAND = 6  # rows of pixels in a row of sixels
_KONSOLE = 220400  # the first version with sixels


def kitty(image: Image.Image) -> str:
    """Returns an RGB image as commands of kitty's graphics protocol, which transmit and display a PNG."""
    data = base64.b64encode(encoded(image, "PNG")).decode()
    chunks = [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]
    first = "a=T,f=100,q=2,"  # q: the terminal sends no answer
    return "".join(
        f"\x1b_G{'' if number else first}m={int(number < len(chunks) - 1)};{chunk}\x1b\\"
        for number, chunk in enumerate(chunks)
    )


def iterm2(image: Image.Image) -> str:
    """Returns an RGB image as an inline image of iTerm2."""
    data = encoded(image, "PNG")
    facts = f"inline=1;size={len(data)};width={image.width}px;height={image.height}px"
    return f"\x1b]1337;File={facts}:{base64.b64encode(data).decode()}\a"


def sixel(image: Image.Image) -> str:
    """Returns an RGB image as sixels, in at most 255 colours."""
    reduced = image.quantize(_COLOURS)
    palette = np.asarray(reduced.getpalette(), np.int64).reshape(-1, 3)
    colours_hw = np.asarray(reduced)
    parts = [f'\x1bP0;1q"1;1;{image.width};{image.height}']
    for colour in np.unique(colours_hw):
        red, green, blue = np.rint(palette[colour] * 100 / 255).astype(int)
        parts.append(f"#{colour};2;{red};{green};{blue}")
    for top in range(0, image.height, _BAND):
        band_hw = colours_hw[top : top + _BAND]
        rows = [f"#{colour}{_row(band_hw == colour)}" for colour in np.unique(band_hw)]
        parts.append("$".join(rows) + "-")
    return "".join(parts) + "\x1b\\"


PROTOCOLS: dict[str, Callable[[Image.Image], str]] = {"kitty": kitty, "iterm2": iterm2, "sixel": sixel}
"""Functions that return an RGB image as a terminal's commands, by the name of the protocol."""


def protocol_of(environment: Mapping[str, str]) -> str | None:
    """Returns the protocol that the terminal of an environment is known to have; None for others.

        >>> protocol_of({"TERM": "xterm-kitty"}), protocol_of({"TERM": "xterm-256color"})
        ('kitty', None)

    Inside tmux and screen it is None, because they do not pass images on by default.
    """
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if environment.get("TMUX") or environment.get("STY") or term.startswith(("screen", "tmux")):
        return None
    if term in ("xterm-kitty", "xterm-ghostty") or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2":  # LC_… passes through ssh
        return "iterm2"
    konsole = environment.get("KONSOLE_VERSION", "")
    if term in ("foot", "foot-extra", "mlterm") or (konsole.isdecimal() and int(konsole) >= _KONSOLE):
        return "sixel"
    return None


def _row(pixels_hw: np.ndarray) -> str:
    """Returns a row of sixels, given the pixels that have the current colour; repetitions are shortened."""
    weights = 1 << np.arange(len(pixels_hw))
    values_w = weights @ pixels_hw.astype(np.int64)
    starts = np.flatnonzero(np.diff(values_w, prepend=-1))
    lengths = np.diff(starts, append=len(values_w))
    letters = [chr(63 + value) for value in values_w[starts]]
    return "".join(
        f"!{length}{letter}" if length > 3 else letter * length for length, letter in zip(lengths, letters, strict=True)
    )
