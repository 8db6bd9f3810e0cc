import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from jclip.errors import JclipError
from jclip.losses.contrastive import contrastive_loss
from jclip.parallel.mesh import MeshShape, make_mesh
from jclip.parallel.sharding import (
    batch_sharding,
    bytes_per_device,
    check_batch,
    follow,
    param_shardings,
    replicated,
)
from jclip.rules import RuleError, paths_of

MESH = MeshShape(data=2, fsdp=2, tensor=2)
FSDP = ((".*", "fsdp"),)


def shapes(**leaves):
    return {"a": {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in leaves.items()}}


@pytest.mark.parametrize(
    ("placement", "shape", "expected"),
    [
        ("copy", (4, 6), P()),
        ("-,tensor", (3, 6), P(None, "tensor")),
        ("fsdp,tensor", (4, 6), P("fsdp", "tensor")),
        ("fsdp", (4, 6), P(None, "fsdp")),
        ("fsdp", (4, 7), P("fsdp", None)),
        ("fsdp", (6, 4, 6), P("fsdp", None, None)),
        ("fsdp", (3, 7), P(None, None)),
        ("fsdp+tensor", (4, 6), P(("fsdp", "tensor"), None)),  # 6 is larger, but 4 does not divide it
        ("fsdp+tensor", (4, 8), P(None, ("fsdp", "tensor"))),
        ("tensor+fsdp", (8,), P(("tensor", "fsdp"))),
        ("tensor+fsdp", (3, 6), P(None, "tensor")),
        ("-,fsdp,tensor", (3, 4, 6), P(None, "fsdp", "tensor")),
        ("-,fsdp,tensor", (3, 4, 7), P(None, "fsdp", None)),  # 7 units stay whole
        ("-,tensor+fsdp", (3, 6), P(None, "tensor")),
        ("-,tensor", (3, 7), P(None, None)),
        ("fsdp", (), P()),
        ("copy", (), P()),
    ],
)
def test_placements(placement, shape, expected):
    found = param_shardings(shapes(kernel=shape), make_mesh(MESH), ((".*", placement),))
    assert found["a"]["kernel"].spec == expected


def test_the_multilingual_table_is_split_along_its_width():
    # 250002 is divisible by 2, but not by 4.
    found = param_shardings(shapes(table=(250002, 1024)), make_mesh(MeshShape(fsdp=4)), FSDP)
    assert found["a"]["table"].spec == P(None, "fsdp")


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        (
            "-,-,tensor",
            r"'-,-,tensor' names 3 dimensions, but the shape is \(4, 7\): give 'fsdp', 'copy', or",
        ),
        ("tesnor,-", "the mesh has no axis 'tesnor', only data, fsdp, tensor"),
        ("fsdp+tesnor", "the mesh has no axis 'tesnor', only data, fsdp, tensor"),
        ("tensor,fsdp+tensor", r"'tensor,fsdp\+tensor' names tensor twice"),
        ("fsdp,fsdp", "'fsdp,fsdp' names fsdp twice"),
    ],
)
def test_placements_that_do_not_fit_are_refused(placement, message):
    with pytest.raises(JclipError, match=f"sharding of a/kernel: {message}"):
        param_shardings(shapes(kernel=(4, 7)), make_mesh(MESH), ((".*", placement),))


def test_slots_are_sharded_like_their_parameters():
    params, mesh = shapes(kernel=(4, 8), bias=(8,)), make_mesh(MeshShape(fsdp=4))
    places = param_shardings(params, mesh, FSDP)
    slots = jax.eval_shape(optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(0.1)).init, params)
    (adam, _) = follow(slots, params, places, mesh)
    assert adam.mu == adam.nu == places
    assert adam.count.is_fully_replicated
    # A slot with a parameter's name but another shape, such as a factored moment.
    assert follow({"row": shapes(kernel=(4,))}, params, places, mesh)["row"]["a"]["kernel"].is_fully_replicated
    # Both matrices of 4 x 8 and both vectors of 8 in quarters, and the count.
    assert bytes_per_device(adam_shapes := slots[0], adam) == 2 * 4 * (32 + 8) // 4 + adam_shapes.count.dtype.itemsize


def test_misspelt_rules_are_refused():
    with pytest.raises(RuleError, match="sharding: rule 'b/.*' matches no parameter"):
        param_shardings(shapes(kernel=(4, 7)), make_mesh(MESH), (("b/.*", "fsdp"), *FSDP))
    with pytest.raises(RuleError, match="sharding: no rule matches 'a/kernel': end the rules with one for"):
        param_shardings(shapes(kernel=(4, 7), bias=(7,)), make_mesh(MESH), (("a/bias", "fsdp"),))


def test_the_batch_is_split_over_data_and_fsdp():
    placed = jax.device_put(np.arange(8.0).reshape(8, 1), batch_sharding(make_mesh(MESH)))
    assert {shard.data.shape for shard in placed.addressable_shards} == {(2, 1)}
    assert replicated(make_mesh(MESH)).is_fully_replicated


@pytest.mark.parametrize(
    ("size", "shape", "message"),
    [
        (100, MeshShape(), "batch of 100 is not divisible by 8 devices: use 96 or 104"),
        (7, MeshShape(), "batch of 7 is not divisible by 8 devices: use 8"),
        (0, MeshShape(), "batch of 0 is not divisible by 8 devices: use 8"),
        (6, MESH, "batch of 6 is not divisible by 4 devices: use 4 or 8"),
    ],
)
def test_batches_that_do_not_divide_are_refused(size, shape, message):
    with pytest.raises(JclipError, match=f"^{message}$"):
        check_batch(size, make_mesh(shape))


@pytest.mark.parametrize(("size", "shape"), [(8, MeshShape()), (4, MESH), (1, MeshShape(data=1, tensor=8))])
def test_batches_that_divide(size, shape):
    check_batch(size, make_mesh(shape))


def init(key):
    image, text = (
        {"up": jax.random.normal(k, (8, 16)) / 3, "down": jax.random.normal(k, (16, 4)) / 4, "bias": jnp.zeros(3)}
        for k in jax.random.split(key)
    )
    return {"image": image, "text": text, "logit_scale": jnp.log(10.0)}


def tower(params, x):
    return jnp.tanh(x @ params["up"]) @ params["down"] + jnp.pad(params["bias"], (0, 1))


RULES = (("logit_scale", "copy"), (".*/up", "fsdp,tensor"), (".*", "fsdp"))


def one_step(mesh, impl):
    """Returns parameters that were created already sharded, and those after one step of gradient descent."""
    key = jax.random.key(0)
    places = param_shardings(jax.eval_shape(init, key), mesh, RULES)
    params = jax.jit(init, out_shardings=places)(key)
    rng = np.random.default_rng(0)
    batch = rng.normal(size=(16, 8)).astype(np.float32), rng.normal(size=(16, 8)).astype(np.float32)

    def step(params, images, texts):
        def loss(params):
            features = tower(params["image"], images), tower(params["text"], texts)
            return contrastive_loss(*features, params["logit_scale"], impl=impl, mesh=mesh)[0]

        return jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params))

    return params, jax.jit(step, out_shardings=places)(params, *jax.device_put(batch, batch_sharding(mesh)))


@pytest.mark.parametrize("impl", ["dense", "ring"])
def test_a_step_on_eight_devices_is_the_step_on_one(impl):
    created, stepped = one_step(make_mesh(MESH), impl)
    for tree in (created, stepped):
        assert {shard.data.shape for shard in tree["image"]["up"].addressable_shards} == {(4, 8)}
        assert {shard.data.shape for shard in tree["text"]["down"].addressable_shards} == {(8, 4)}
    _, alone = one_step(make_mesh(devices=jax.devices()[:1]), "dense")
    for path, leaf in paths_of(alone).items():
        np.testing.assert_allclose(paths_of(stepped)[path], leaf, rtol=1e-5, atol=1e-6, err_msg=path)
        assert (np.asarray(leaf) != np.asarray(paths_of(created)[path])).any(), path
