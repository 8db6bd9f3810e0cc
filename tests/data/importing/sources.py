"""Small sources in every format, all with the same images and captions."""

import base64
import csv
import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from jclip.data.importing.engine import Plan, import_data
from jclip.data.importing.formats import open_source
from jclip.data.importing.limits import Limit
from jclip.data.importing.parts import Reading
from jclip.data.sources.folders import PairFolder

CAPTIONS = [f"红色 {n}" for n in range(12)]


def picture(number, form="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 5, 3), 20 * number % 256, np.uint8)).save(buffer, form)
    return buffer.getvalue()


def cn_clip(folder, captions=CAPTIONS, split="train", pictures=picture):
    """Writes cn_clip's files: image 100 + n has caption n; even n in standard base64, odd n in its URL-safe form."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{split}_imgs.tsv").open("w", encoding="utf-8") as file:
        for number in range(len(captions)):
            encode = base64.urlsafe_b64encode if number % 2 else base64.b64encode
            file.write(f"{100 + number}\t{encode(pictures(number)).decode()}\n")
    with (folder / f"{split}_texts.jsonl").open("w", encoding="utf-8") as file:
        for number, caption in enumerate(captions):
            line = {"text_id": 7 * number, "text": caption, "image_ids": [100 + number]}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return folder


def table(folder, captions=CAPTIONS):
    """Writes a TSV with two rows for each image, not adjacent; the second caption is longer and has a newline."""
    (folder / "pictures").mkdir(parents=True)
    for number in range(len(captions)):
        (folder / "pictures" / f"{number}.png").write_bytes(picture(number))
    with (folder / "pairs.tsv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, delimiter="\t")
        rows.writerow(["title", "filepath"])
        for ending in ("", " wieder\nda"):
            rows.writerows([f"{caption}{ending}", f"pictures/{n}.png"] for n, caption in enumerate(captions))
    return folder / "pairs.tsv"


def tars(folder, captions=CAPTIONS, count=3):
    """Writes tars with captions in txt and json by turns, and images as jpg, png and webp."""
    folder.mkdir(parents=True)
    forms = ("jpg", "png", "webp")
    for number in range(count):
        with tarfile.open(folder / f"{number:03d}.tar", "w") as tar:
            for n in range(number, len(captions), count):
                form = forms[n % 3]
                _add(tar, f"deep/{n:05d}.{form}", picture(n, {"jpg": "JPEG"}.get(form, form)))
                if n % 2:
                    _add(tar, f"deep/{n:05d}.json", json.dumps({"caption": captions[n]}).encode())
                else:
                    _add(tar, f"deep/{n:05d}.txt", captions[n].encode())
    return folder


def _add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def parquet(file, captions=CAPTIONS, rows=5):
    import pyarrow
    import pyarrow.parquet

    file.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": picture(n), "path": f"{n}.png"} for n in range(len(captions))]
    columns = pyarrow.table({"image": images, "caption": captions, "lang": ["zh"] * len(captions)})
    pyarrow.parquet.write_table(columns, file, row_group_size=rows)
    return file


def class_folders(folder, splits=("train", "test"), classes=("000", "001", "002"), each=2):
    for s, split in enumerate(splits):
        for c, name in enumerate(classes):
            for n in range(each):
                place = folder / split / name / f"{n}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(picture(s * 6 + c * each + n))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Returns the contents of every file of a folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def imported(name, source, target, limit=None, shard_bytes=700, **reading):
    """Imports and returns the report; by default nothing may be skipped."""
    reader = open_source(name, source, Reading(**reading))[1]
    return import_data(reader, target, Plan(name or "", shard_bytes=shard_bytes, limit=limit or Limit(count=0)))


def pairs(folder, split="train"):
    return list(PairFolder(str(folder), split).open())
