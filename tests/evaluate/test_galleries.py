"""Thumbnails of the report."""

import io

from PIL import Image

from jclip.evaluate.report.galleries import thumbnail


def test_transparent_pixels_are_white_on_the_page():
    file = io.BytesIO()
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(file, "PNG")
    with Image.open(io.BytesIO(thumbnail(file.getvalue()))) as small:
        assert small.convert("RGB").getextrema() == ((255, 255),) * 3
