"""Renders the gallery of a report.html as docs/gallery.png. Needs Chromium, and fonts for ten languages.

python benchmarks/gallery_picture.py runs/demo/report.html docs/gallery.png
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

WIDTH, TALLEST, MARGIN = 1060, 4000, 12
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking")


def main(report: str, picture: str) -> None:
    """Extracts the gallery from the page and takes a screenshot of it."""
    page = Path(report).read_text(encoding="utf-8")
    head, gallery = (
        re.search(r"<head>.*?</head>", page, re.S),
        re.search(r'<figure class="wide">.*?</figure>', page, re.S),
    )
    if head is None or gallery is None:
        raise SystemExit(f"{report} has no gallery: use the report of `jclip demo`")
    with tempfile.TemporaryDirectory() as folder:
        alone, shot = Path(folder) / "gallery.html", Path(folder) / "shot.png"
        alone.write_text(f"<!doctype html><html>{head[0]}<body>{gallery[0]}</body></html>", encoding="utf-8")
        command = ["chromium", *OPTIONS, f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{TALLEST}"]
        subprocess.run([*command, f"--screenshot={shot}", alone.as_uri()], check=True, capture_output=True)
        image = Image.open(shot).convert("RGB")
    left, top, right, bottom = ImageChops.difference(
        image, Image.new("RGB", image.size, image.getpixel((0, 0)))
    ).getbbox()
    image = image.crop((max(left - MARGIN, 0), max(top - MARGIN, 0), min(right + MARGIN, WIDTH), bottom + MARGIN))
    image.quantize(256).save(picture, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
