"""Small data sets in cn_clip's files, and cn_clip's own programs to run on them."""

import base64
import io
import json
import runpy
import sys
import warnings
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


def png(number: int, side: int = 16) -> bytes:
    """Returns an image that differs for each number."""
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_images(file: Path, numbers, alphabet=base64.b64encode):
    """Writes cn_clip's file of images: ID<tab>BASE64 lines."""
    file.write_text("".join(f"{number}\t{alphabet(png(number)).decode()}\n" for number in numbers))


def write_texts(file: Path, texts):
    """Writes cn_clip's file of texts from (text_id, text, image_ids)."""
    lines = [{"text_id": number, "text": text, "image_ids": ids} for number, text, ids in texts]
    written = "".join(json.dumps(line, ensure_ascii=not _whole(line["text"])) + "\n" for line in lines)
    file.write_text(written, encoding="utf-8")


def _whole(text: str) -> bool:
    return not any("\ud800" <= sign <= "\udfff" for sign in text)


def many_to_many(folder: Path, pictures=12, split="test"):
    """Writes a gallery with two captions for each image; every third caption belongs to a second image too.

    Returns (image ids, texts as (text_id, text, image_ids)).
    """
    folder.mkdir(exist_ok=True)
    numbers = [100 + 7 * i for i in range(pictures)]
    write_images(folder / f"{split}_imgs.tsv", numbers)
    texts = []
    for i in range(2 * pictures):
        ids = [numbers[i % pictures]] + ([numbers[(i + 1) % pictures]] if i % 3 == 0 else [])
        texts.append((1000 + i, f"red apple {i}", ids))
    write_texts(folder / f"{split}_texts.jsonl", texts)
    return numbers, texts


def program(name: str, *arguments) -> None:
    """Runs one of cn_clip.eval's programs in this process, on the CPU: .cuda() moves nothing."""
    file = Path(find_spec("cn_clip").submodule_search_locations[0]) / "eval" / f"{name}.py"
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        patch.setattr(sys, "argv", [str(file), *map(str, arguments)])
        if name.startswith("make_topk"):
            patch.setattr("torch.Tensor.cuda", lambda self, *a, **k: self)
        runpy.run_path(str(file), run_name="__main__")


def their_score(program_name: str, answers: Path, predictions: Path, out: Path) -> dict:
    """Returns the scores that cn_clip's evaluation.py or evaluation_tr.py writes."""
    program(program_name, answers, predictions, out)
    return json.loads(out.read_text())
