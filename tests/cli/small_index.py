"""Index of a few drawn images, made with the tiny model of `small_bundle`."""

import os
from pathlib import Path

from PIL import Image

from jclip.loading import load
from jclip.search.decoding import content_hash
from jclip.search.entries import Entry
from jclip.search.index import IndexFacts
from jclip.search.writing import write_index
from tests.cli.small_bundle import write_bundle

COLOURS = {"red": "#e00000", "green": "#00a000", "blue": "#0000e0", "white": "#ffffff", "black": "#000000"}
NAMES = {
    "red": b"a/red.png",
    "green": b"a/deep/green \xff\n.png",
    "blue": "b/蓝 - <b>.png".encode(),
    "white": b"b/\x1b[2J.png",
    "black": b"b/it's.png",
}


def write_all(folder):
    """Writes FOLDER/bundle, FOLDER/pictures and FOLDER/index; the red image has a copy, a/copy.png."""
    model = load(write_bundle(folder / "bundle"))
    pictures = os.fsencode(folder / "pictures")
    entries, features = [], []
    for number, (name, colour) in enumerate(COLOURS.items()):
        file = os.path.join(pictures, NAMES[name])
        os.makedirs(os.path.dirname(file), exist_ok=True)
        Image.new("RGB", (40, 20), colour).save(os.fsdecode(file))
        features.append(os.fsdecode(file))
        entries.append(_entry(number + 1, number, file, name))
    copy = os.path.join(pictures, b"a/copy.png")
    Image.new("RGB", (40, 20), COLOURS["red"]).save(os.fsdecode(copy))
    entries.append(_entry(9, 0, copy, "red"))
    vectors_nd = model.encode_image(features)
    facts = IndexFacts(model.identity, model.name, str(folder / "bundle"), vectors_nd.shape[1], "apply", "jclip test")
    write_index(folder / "index", facts, vectors_nd, entries)


def _entry(id, vector, file, name):
    place = Path(os.fsdecode(file))
    data = place.read_bytes()
    return Entry(
        id, vector, place, "image", len(data), 10**18 + id, content_hash(data), 40, 20, name, {"n": id}, 86400 * id
    )
