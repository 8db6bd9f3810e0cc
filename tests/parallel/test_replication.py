"""The share of parameters that is replicated, worked out by hand."""

import jax
import jax.numpy as jnp
import pytest

from jclip.errors import JclipError
from jclip.parallel.mesh import MeshShape, make_mesh
from jclip.parallel.replication import replication
from jclip.parallel.sharding import param_shardings

RULES = {"split": "fsdp+tensor", "half": "fsdp,-"}


def found(shape, **sizes):
    leaves = {"a": {name: jax.ShapeDtypeStruct(size, jnp.float32) for name, size in sizes.items()}}
    mesh = make_mesh(shape)
    rules = tuple((f"a/{name}", RULES.get(name, "copy")) for name in sizes)
    return replication(leaves, param_shardings(leaves, mesh, rules), mesh)


def test_the_share_by_hand():
    """On 4 devices: 12 KiB in four parts, 12 KiB in two, 8 KiB whole, and 16 bytes, too few to be listed."""
    of = found(MeshShape(data=2, fsdp=2, tensor=2), split=(3072,), half=(64, 48), whole=(2048,), tiny=(4,))
    total = (3072 + 3072 + 2048 + 4) * 4
    # Excess per device: of `half` one quarter, of `whole` and `tiny` three. At worst: three quarters of everything.
    assert of.share == pytest.approx((12288 * 1 / 4 + (8192 + 16) * 3 / 4) / (total * 3 / 4))
    assert of.total == total
    assert of.parts == (("a/whole", 8192, 4), ("a/half", 12288, 2))
    told = "fsdp=2 x tensor=2: 37.53% of the parameters' 32 KiB are replicated, mostly a/whole (8 KiB)"
    assert str(of) == told


def test_shares_of_nothing_and_everything():
    half = found(MeshShape(data=4, fsdp=2), split=(3072,), half=(64, 48))
    assert half.share == 0 and half.parts == ()
    assert found(MeshShape(data=4, fsdp=2), whole=(2048,)).share == 1
    # Without an axis to split over, copies are intended: this is plain data parallelism.
    alone = found(MeshShape(), whole=(2048,))
    assert alone.share == 0 and alone.parts == () and alone.devices == 1


def test_small_parameters_count_together():
    """A thousand vectors, each too small to be listed, are a large share together."""
    of = found(MeshShape(data=1, fsdp=8), split=(64,), **{f"tiny_{i}": (9,) for i in range(1000)})
    assert of.share > 0.99


def test_too_much_is_an_error():
    of = found(MeshShape(data=2, fsdp=2, tensor=2), split=(8192,), whole=(2048,))
    assert of.share == pytest.approx(0.2)
    of.check(0.21)
    with pytest.raises(JclipError, match=r"fsdp=2 x tensor=2 replicates 20% of the parameters, above max_replicated="):
        of.check(0.19)
    with pytest.raises(JclipError, match=r"max_replicated=0\.19 \(a/whole\): choose sizes that divide"):
        of.check(0.19)
