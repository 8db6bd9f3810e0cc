"""Images on terminals: each protocol read back, and the terminals that are known."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from jclip.search.terminal_images import iterm2, kitty, protocol_of, sixel


@pytest.fixture(params=[(7, 13), (1, 1), (40, 6), (200, 150)])
def image(request):
    width, height = request.param
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2] = (255, 0, 0)
    pixels[height // 2 :] = (0, 102, 204)
    if width == 200:
        pixels = np.random.default_rng(0).integers(256, size=pixels.shape, dtype=np.uint8)
    return Image.fromarray(pixels)


def test_kitty(image):
    commands = re.findall("\x1b_G(.*?);(.*?)\x1b\\\\", kitty(image))
    assert "".join(f"\x1b_G{keys};{data}\x1b\\" for keys, data in commands) == kitty(image)
    keys = [keys for keys, _ in commands]
    assert keys[0].startswith("a=T,f=100,q=2,m=") and keys[-1].endswith("m=0")
    assert set(keys[1:-1]) <= {"m=1"} and all(len(data) <= 4096 for _, data in commands)
    read = Image.open(io.BytesIO(base64.b64decode("".join(data for _, data in commands))))
    np.testing.assert_array_equal(np.asarray(read), np.asarray(image))


def test_iterm2(image):
    found = re.fullmatch(
        "\x1b]1337;File=inline=1;size=([0-9]+);width=([0-9]+)px;height=([0-9]+)px:(.*)\a", iterm2(image)
    )
    data = base64.b64decode(found[4])
    assert [int(found[number]) for number in (1, 2, 3)] == [len(data), *image.size]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(image))


def decoded(text):
    """Returns the pixels of sixels, in percent."""
    width, height, body = re.fullmatch('\x1bP0;1q"1;1;([0-9]+);([0-9]+)(.*)\x1b\\\\', text).groups()
    pixels = np.full((int(height) + 6, int(width), 3), -1)
    palette, colour, top, left = {}, None, 0, 0
    for token in re.findall(r"#[0-9]+;2;[0-9]+;[0-9]+;[0-9]+|#[0-9]+|![0-9]+.|.", body):
        if token.startswith("#") and ";" in token:
            number, _, *rgb = map(int, token[1:].split(";"))
            palette[number] = rgb
        elif token.startswith("#"):
            colour = int(token[1:])
        elif token in "$-":
            left, top = 0, top + 6 * (token == "-")
        else:
            count, letter = (int(token[1:-1]), token[-1]) if token.startswith("!") else (1, token)
            bits = ord(letter) - 63
            assert 0 <= bits < 64
            for row in range(6):
                if bits >> row & 1:
                    pixels[top + row, left : left + count] = palette[colour]
            left += count
    assert (pixels[int(height) :] == -1).all()
    return pixels[: int(height)]


def test_sixel(image):
    shown = decoded(sixel(image)) * 2.55
    assert shown.min() >= 0  # every pixel has a colour
    few = len(np.unique(np.asarray(image).reshape(-1, 3), axis=0)) <= 255
    assert np.abs(shown - np.asarray(image)).mean() < (1.5 if few else 25)  # noise has more than 255 colours


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "dumb"}, None),
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm2"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "230804"}, "sixel"),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "210401"}, None),
        ({"TERM": "xterm-256color", "KONSOLE_VERSION": "x"}, None),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, None),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/x,1,0"}, None),
        ({"TERM": "screen-256color", "LC_TERMINAL": "iTerm2"}, None),
        ({"TERM": "tmux-256color", "TERM_PROGRAM": "iTerm.app"}, None),
    ],
)
def test_known_terminals(environment, expected):
    assert protocol_of(environment) == expected
