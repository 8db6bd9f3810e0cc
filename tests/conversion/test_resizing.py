"""Position embeddings at another size, against each library's own interpolation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import jclip
from jclip.conversion import CheckpointOptions, convert, verify
from jclip.conversion.importing import import_model
from jclip.conversion.towers.resizing import resized
from jclip.errors import JclipError
from jclip.images.preprocess import normalise, to_array
from tests.conversion import checkpoints
from tests.models.parity import unit

SIZES = [(16, 24), (7, 14), (14, 7), (24, 16), (5, 3), (3, 8), (1, 4), (6, 6)]
WAYS = {
    "cn_clip": {"align_corners": True},
    "hf": {"align_corners": False},
    "open_clip": {"align_corners": False, "antialias": True},
}


def quiet(what):
    pass


def test_resizing_by_hand():
    positions = np.arange(15, dtype=np.float32).reshape(5, 3)
    np.testing.assert_array_equal(resized(positions, 2, "hf"), positions)
    # cn_clip aligns corners: the corners of a 2x2 grid are those of a 3x3 grid.
    grown = resized(positions, 3, "cn_clip")
    np.testing.assert_allclose(grown[[0, 1, 3, 7, 9]], positions, atol=1e-5)


@pytest.mark.parametrize(("old", "new"), SIZES)
@pytest.mark.parametrize("how", WAYS)
def test_interpolation_is_pytorchs(how, old, new):
    positions = np.random.default_rng(old).normal(size=(1 + old * old, 9)).astype(np.float32)
    grid = torch.from_numpy(positions[1:].reshape(1, old, old, 9)).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, size=(new, new), mode="bicubic", **WAYS[how])[0].permute(1, 2, 0).reshape(-1, 9)
    ours = resized(positions, new, how)
    np.testing.assert_array_equal(ours[0], positions[0])
    np.testing.assert_allclose(ours[1:], expected, atol=6e-6)


def test_cn_clip_resizes_the_same():
    from cn_clip.clip.model import resize_pos_embed

    state = {"visual.positional_embedding": torch.randn(1 + 16 * 16, 12)}
    before = state["visual.positional_embedding"].numpy().copy()

    class Model:
        class visual:
            grid_size = 24

    resize_pos_embed(state, Model(), prefix="")
    np.testing.assert_allclose(resized(before, 24, "cn_clip"), state["visual.positional_embedding"], atol=6e-6)


def test_open_clip_resizes_the_same(tmp_path):
    from open_clip.model import resize_pos_embed

    model = checkpoints.open_clip_model(tmp_path, quick_gelu=True)  # a grid of 3x3
    state = {"visual.positional_embedding": torch.randn(1 + 7 * 7, 128)}
    before = state["visual.positional_embedding"].numpy().copy()
    resize_pos_embed(state, model)
    np.testing.assert_allclose(resized(before, 3, "open_clip"), state["visual.positional_embedding"], atol=6e-6)


def test_a_model_at_another_size_equals_transformers(checkpoint_of, tmp_path):
    """30 pixels to 50: a grid of 3x3 to one of 5x5."""
    source, _, encode = checkpoint_of("chinese_clip_hf")
    made = convert(str(source), tmp_path / "bundle", CheckpointOptions(image_size=50), quiet)
    assert made["changed"] == {"image/position_embedding": "interpolated from 30 to 50 pixels as hf does"}
    ours = jclip.load(tmp_path / "bundle")
    assert ours.bundle.preprocessing.size == ours.bundle.config.image.image_size == 50
    pictures = checkpoints.images(50)
    pixels = np.asarray(
        normalise(ours.bundle.preprocessing, np.stack([to_array(ours.bundle.preprocessing, p) for p in pictures]))
    )
    with torch.inference_mode():
        tensor = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
        theirs = encode.model.get_image_features(tensor, interpolate_pos_encoding=True).pooler_output
    np.testing.assert_allclose(ours.encode_image(pictures), unit(theirs.numpy()), atol=2e-5)
    assert all(check.holds for check in verify(tmp_path / "bundle", [str(source)], report=quiet))


def test_impossible_image_sizes_are_refused(checkpoint_of):
    source, _, _ = checkpoint_of("clip_hf")
    with pytest.raises(JclipError, match="--image-size: 33 is not a multiple of patch_size 10"):
        import_model(str(source), CheckpointOptions(image_size=33))
    source, options, _ = checkpoint_of("cn_clip_resnet")
    with pytest.raises(JclipError, match="--image-size does not apply to a ResNet: omit it"):
        import_model(str(source), replace(options, image_size=96))
