"""Mesh of the devices, with named axes."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
from jax.sharding import AxisType, Mesh

from jclip.errors import JclipError


@dataclass(frozen=True)
class MeshShape:
    """Number of devices along each axis of the mesh. One may be -1: all remaining devices.

    Attributes:
      data: splits the batch; parameters are replicated.
      fsdp: splits the batch and the parameters.
      tensor: splits parameters; the batch is replicated.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


def make_mesh(shape: MeshShape = MeshShape(), devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a mesh of all devices, or of those given, with the axes of `MeshShape`.

    The last axis gets the fastest links. All axes have the type Auto: XLA chooses the sharding of intermediate arrays.
    With jax's default, Explicit, the towers would have to declare it. Raises JclipError if the sizes are not valid,
    their product is not the number of devices, or the devices are of several TPU slices.
    """
    devices = jax.devices() if devices is None else list(devices)
    slices = {getattr(device, "slice_index", 0) for device in devices if device.platform == "tpu"}
    if len(slices) > 1:  # jax.make_mesh arranges one
        raise JclipError(f"the devices are of {len(slices)} TPU slices; jclip trains on one: use a larger slice")
    sizes = mesh_sizes(shape, len(devices))
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes), devices=devices)


def mesh_sizes(shape: MeshShape, devices: int) -> dict[str, int]:
    """Returns the number of devices along each axis of a mesh of this number of devices; raises as `make_mesh` does."""
    sizes = dataclasses.asdict(shape)
    shown = " x ".join(f"{name}={size}" for name, size in sizes.items())
    if any(size < 1 and size != -1 for size in sizes.values()) or list(sizes.values()).count(-1) > 1:
        raise JclipError(f"a mesh of {shown} is not possible: give sizes of 1 or more, and -1 at most once")
    fixed = math.prod(size for size in sizes.values() if size != -1)
    sizes = {name: devices // fixed if size == -1 else size for name, size in sizes.items()}
    if math.prod(sizes.values()) != devices:
        raise JclipError(f"a mesh of {shown} does not fit {devices} devices: the product must be {devices}")
    return sizes
