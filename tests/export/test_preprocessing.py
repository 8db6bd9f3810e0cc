"""Preprocessing inside the image graph, against Pillow's."""

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from jclip.export.beside import steps_of
from jclip.export.exporting import export
from jclip.export.formats import ExportOptions, format_named
from jclip.export.onnx.graph import Graph
from jclip.export.onnx.preprocessing import normalised, resized
from jclip.export.onnx_model import load_onnx
from jclip.images.preprocess import Preprocessing, to_array
from tests.export import small_models

SIZES = [
    (480, 640),
    (640, 480),
    (32, 32),
    (33, 31),
    (31, 33),
    (1, 1),
    (1, 90),
    (200, 45),
    (45, 200),
    (35, 32),
    (34, 30),
]


def session(preprocessing, place, *, values):
    graph = Graph()
    images = resized(graph, preprocessing, graph.input("images", np.uint8, ("batch", "height", "width", 3)))
    if values:
        images = normalised(graph, preprocessing, images)
    graph.output(
        "out", images, np.float32 if values else np.uint8, ("batch", 3, preprocessing.size, preprocessing.size)
    )
    graph.save(place / "preprocessing.onnx")
    return onnxruntime.InferenceSession(place / "preprocessing.onnx", providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("how", ["squash", "crop"])
def test_as_pillow_resizes(how, tmp_path):
    """At most a tenth of a percent of the values differ, by one or two of 255 steps, even on noise."""
    preprocessing, draw = Preprocessing(size=32, resize=how), np.random.default_rng(0)
    run, total, wrong = session(preprocessing, tmp_path, values=False), 0, 0
    for height, width in SIZES:
        images = draw.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        (found,) = run.run(None, {"images": images})
        wanted = np.stack([to_array(preprocessing, image) for image in images])
        steps = np.abs(found.transpose(0, 2, 3, 1).astype(int) - wanted)
        assert steps.max() <= 2, (height, width)
        total, wrong = total + steps.size, wrong + np.count_nonzero(steps)
    assert wrong / total < 0.001


def test_normalised_by_hand(tmp_path):
    preprocessing = Preprocessing(size=1, mean=(0.5, 0.0, 1.0), std=(0.5, 1.0, 2.0))
    images = np.array([[[[255, 51, 0]]]], np.uint8)
    (found,) = session(preprocessing, tmp_path, values=True).run(None, {"images": images})
    np.testing.assert_allclose(found, np.array([1.0, 0.2, -0.5], np.float32).reshape(1, 3, 1, 1), rtol=1e-6)


def test_inside_an_export(tmp_path):
    model = small_models.model("clip", tmp_path)
    options = ExportOptions(with_preprocessing=True)
    record = export(model, tmp_path / "out", format_named("onnx"), options, lambda words: None)
    assert record.own["towers"]["image"]["input"] == {
        "name": "images", "dtype": "uint8", "shape": ["batch", "height", "width", 3]
    }  # fmt: skip
    assert record.own["resized_difference"] < 0.01
    exported = load_onnx(tmp_path / "out")
    image = Image.effect_mandelbrot((90, 41), (-2, -1, 1, 1), 60).convert("RGB")
    # jclip resizes on the host; the graph sees the final size and does nothing.
    np.testing.assert_allclose(exported.encode_image([image]), model.encode_image([image]), rtol=0, atol=1e-5)
    inside = exported._encoder._towers["image"](np.asarray(image)[None])
    np.testing.assert_allclose(inside, model.encode_image([image]), rtol=0, atol=0.01)


def test_steps_of_every_choice():
    trimmed = Preprocessing(size=24, resize="crop", background=(255, 0, 9), trim=True, orientation="apply")
    steps = {step["step"]: step for step in steps_of(trimmed)}
    names = "decode trim_transparent flatten_alpha resize centre_crop to_rgb divide normalise transpose"
    assert list(steps) == names.split()
    assert steps["decode"]["exif_orientation"] == "apply" and steps["flatten_alpha"]["background"] == [255, 0, 9]
    assert steps["resize"]["shorter_side"] == 24 and steps["centre_crop"]["height_width"] == [24, 24]
