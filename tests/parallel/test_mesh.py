from types import SimpleNamespace

import jax
import pytest
from jax.sharding import AxisType

from jclip.errors import JclipError
from jclip.parallel.mesh import MeshShape, make_mesh


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (MeshShape(), (8, 1, 1)),
        (MeshShape(fsdp=4), (2, 4, 1)),
        (MeshShape(data=1, fsdp=-1, tensor=2), (1, 4, 2)),
        (MeshShape(data=2, fsdp=2, tensor=2), (2, 2, 2)),
    ],
)
def test_sizes_of_the_axes(shape, expected):
    mesh = make_mesh(shape)
    assert dict(mesh.shape) == dict(zip(("data", "fsdp", "tensor"), expected, strict=True))
    assert mesh.axis_types == (AxisType.Auto,) * 3


def test_a_mesh_of_some_devices():
    mesh = make_mesh(devices=jax.devices()[2:4])
    assert list(mesh.devices.flat) == jax.devices()[2:4]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (MeshShape(fsdp=3), "data=-1 x fsdp=3 x tensor=1 does not fit 8 devices: the product must be 8"),
        (MeshShape(data=2), "data=2 x fsdp=1 x tensor=1 does not fit 8 devices"),
        (MeshShape(fsdp=16), "data=-1 x fsdp=16 x tensor=1 does not fit 8 devices"),
        (MeshShape(fsdp=-1), "give sizes of 1 or more, and -1 at most once"),
        (MeshShape(tensor=0), "give sizes of 1 or more"),
    ],
)
def test_impossible_shapes_are_refused(shape, message):
    with pytest.raises(JclipError, match=message) as caught:
        make_mesh(shape)
    assert "\n" not in str(caught.value)


def test_several_slices_are_refused():
    """jax.make_mesh has no order for them."""
    slices = [SimpleNamespace(platform="tpu", slice_index=each // 4) for each in range(8)]
    with pytest.raises(JclipError, match="the devices are of 2 TPU slices; jclip trains on one"):
        make_mesh(devices=slices)
