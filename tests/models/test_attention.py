"""Attention against a float64 oracle, and the choice of its implementation for each device."""

import re
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo
from jax.flatten_util import ravel_pytree
from jax.sharding import PartitionSpec as P

from jclip.errors import JclipError
from jclip.models import attention
from jclip.models.attention import attend
from jclip.models.bert import Bert, BertConfig
from jclip.models.clip_text import ClipText, ClipTextConfig
from jclip.models.compute import Compute
from jclip.models.vit import Vit, VitConfig
from jclip.parallel.mesh import make_mesh
from tests.models.parity import random_variables

ONES = jnp.ones((1, 2, 1, 1))
MASKS = {
    "none": {},
    "padding": {"lengths": True},
    "causal": {"causal": True},
    "both": {"lengths": True, "causal": True},
}
H100, A100, T4, AMD, CPU, TPU = (
    SimpleNamespace(platform=platform, device_kind=kind, compute_capability=capability)
    for platform, kind, capability in (
        ("gpu", "NVIDIA H100 80GB HBM3", "9.0"),
        ("gpu", "NVIDIA A100-SXM4-40GB", "8.0"),
        ("gpu", "Tesla T4", "7.5"),
        ("gpu", "AMD Instinct MI300X", "gfx942"),
        ("cpu", "cpu", None),
        ("tpu", "TPU v5 lite", None),
    )
)


@dataclass(frozen=True)
class AbsentDevice:
    """Device of a topology: a mesh can consist of it, and jax does not list it."""

    platform: str = "gpu"
    device_kind: str = "H100"
    compute_capability: str = "9.0"
    core_count: int = 132
    id: int = 0
    process_index: int = 0


def oracle(q, k, v, upstream, lengths=None, causal=False):
    """Returns attention and its gradients with respect to q, k and v, in float64."""
    q, k, v, upstream = (np.asarray(x, np.float64) for x in (q, k, v, upstream))
    seen = np.ones((len(q), 1, q.shape[1], k.shape[1]), bool)
    if lengths is not None:
        seen &= np.arange(k.shape[1]) < np.maximum(lengths, 1)[:, None, None, None]
    if causal:
        seen &= np.tril(np.ones(seen.shape[2:], bool))
    logits = np.einsum("bqhc,bkhc->bhqk", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(logits - logits.max()) * seen
    weights /= weights.sum(-1, keepdims=True)
    to_weights = np.einsum("bqhc,bkhc->bhqk", upstream, v)
    to_logits = weights * (to_weights - (weights * to_weights).sum(-1, keepdims=True)) / np.sqrt(q.shape[-1])
    return (
        np.einsum("bhqk,bkhc->bqhc", weights, v),
        np.einsum("bhqk,bkhc->bqhc", to_logits, k),
        np.einsum("bhqk,bqhc->bkhc", to_logits, q),
        np.einsum("bhqk,bqhc->bkhc", weights, upstream),
    )


def ours(q, k, v, upstream, **options):
    """Returns values and gradients of `attend`."""
    values, back = jax.vjp(lambda q, k, v: attend(q, k, v, **options), q, k, v)
    return values, *back(upstream)


def assert_like_the_oracle(length, mask, dtype, implementation):
    draw = np.random.default_rng(length)
    q, k, v, upstream = (jnp.asarray(draw.normal(size=(4, length, 2, 16)), dtype) for _ in range(4))
    masks = dict(mask)
    if masks.pop("lengths", None):
        masks["lengths"] = np.array([length, 1, 0, max(length - 2, 1)])
    expected = oracle(q, k, v, upstream, **masks)
    if "lengths" in masks:
        masks["lengths_b"] = jnp.asarray(masks.pop("lengths"))
    actual = jax.jit(partial(ours, **masks, implementation=implementation))(q, k, v, upstream)
    for one, other in zip(actual, expected, strict=True):
        assert one.dtype == dtype
        tolerance = (1e-5 if dtype == jnp.float32 else 0.02) * np.abs(other).max()
        np.testing.assert_allclose(np.asarray(one, np.float64), other, atol=tolerance)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("length", [7, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("device", [CPU, TPU], ids=["cpu", "tpu"])
def test_values_and_gradients(device, mask, length, monkeypatch):
    """Each kind of device has its own order of axes."""
    monkeypatch.setattr(attention, "_device", lambda: device)
    assert_like_the_oracle(length, MASKS[mask], jnp.float32, "auto")


@pytest.mark.parametrize(
    ("device", "platform", "products", "transposed"),
    [
        # Queries, keys and values are made contiguous for each head, and the result is put back.
        (CPU, "cpu", [[0, 1], [0, 1]], [(2, 2, 5, 4)] * 3 + [(2, 5, 2, 4)]),
        # As written: XLA's compilers for accelerators choose the order of axes.
        (TPU, "tpu", [[0, 2], [0, 2]], [(2, 5, 2, 4)]),
        (H100, "cuda", [[0, 2], [0, 2]], [(2, 5, 2, 4)]),
    ],
    ids=["cpu", "tpu", "cuda"],
)
def test_the_order_of_axes_on_each_device(device, platform, products, transposed, monkeypatch):
    """Checks the axes over which the first operand of each product is batched, and the shapes after transpositions."""
    monkeypatch.setattr(attention, "_device", lambda: device)
    x = jnp.ones((2, 5, 2, 4))
    text = jax.jit(partial(attend)).trace(x, x, x).lower(lowering_platforms=(platform,)).as_text()
    found = re.findall(r"dot_general .*batching_dims = \[([\d, ]+)\]", text)
    assert [[int(axis) for axis in axes.split(",")] for axes in found] == products
    shapes = re.findall(r"stablehlo.transpose .*-> tensor<([\dx]+)xf32>", text)
    assert [tuple(map(int, shape.split("x"))) for shape in shapes] == transposed


@pytest.mark.parametrize("mask", ["none", "both"])
def test_values_and_gradients_in_bfloat16(mask):
    assert_like_the_oracle(7, MASKS[mask], jnp.bfloat16, "xla")


def test_by_hand():
    # Equal logits: the mean of the values. One key is padding: the other value.
    values = jnp.array([2.0, 4.0]).reshape(1, 2, 1, 1)
    np.testing.assert_allclose(attend(ONES, ONES, values).ravel(), [3, 3])
    np.testing.assert_allclose(attend(ONES, ONES, values, lengths_b=jnp.array([1])).ravel(), [2, 2])
    np.testing.assert_allclose(attend(ONES, ONES, values, causal=True).ravel(), [2, 3])
    # Logits 0 and ln 3 · √4 / √4: weights 1/4 and 3/4.
    queries, keys = jnp.ones((1, 1, 1, 4)), jnp.array([0.0, np.log(3) / 2])[None, :, None, None] * jnp.ones(4)
    weighted = attend(queries, keys, jnp.array([0.0, 8.0]).reshape(1, 2, 1, 1))
    np.testing.assert_allclose(weighted.ravel(), [6], rtol=1e-6)


@pytest.mark.parametrize(
    ("batch", "queries", "keys", "heads", "channels", "padded"),
    [(1, 1, 1, 1, 1, False), (3, 5, 7, 2, 5, True), (2, 1, 7, 3, 4, True), (2, 5, 1, 1, 3, False)],
)
def test_any_shape(batch, queries, keys, heads, channels, padded):
    encode = jax.jit(lambda q, k, v, lengths: attend(q, k, v, lengths_b=lengths if padded else None))
    for seed in range(5):
        draw = np.random.default_rng(seed)
        q, k, v = (draw.normal(size=(batch, length, heads, channels)) for length in (queries, keys, keys))
        lengths = draw.integers(1, keys + 1, batch)
        actual = encode(*(jnp.asarray(x, jnp.float32) for x in (q, k, v)), lengths)
        np.testing.assert_allclose(actual, oracle(q, k, v, q, lengths if padded else None)[0], atol=1e-5)


def test_a_row_of_padding_attends_to_the_first_key():
    values = jnp.array([2.0, 4.0]).reshape(1, 2, 1, 1)
    np.testing.assert_allclose(attend(ONES, ONES, values, lengths_b=jnp.array([0])).ravel(), [2, 2])


def test_softmax_is_float32_in_bfloat16():
    # 257 equal weights of 1/257 would have another sum in bfloat16.
    x = jnp.ones((1, 257, 1, 2), jnp.bfloat16)
    out = attend(x, x, x)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(out, np.float32), 1, atol=0.01)
    jaxpr = str(jax.make_jaxpr(attend)(x, x, x))
    assert "f32[1,1,257,257] = exp" in jaxpr


def chosen(device, monkeypatch, *, dtype=jnp.bfloat16, channels=64, queries=50, drop=None, ask="auto"):
    monkeypatch.setattr(attention, "_device", lambda: device)
    q, k = (jax.ShapeDtypeStruct((2, length, 3, channels), dtype) for length in (queries, 50))
    return attention._choose(ask, q, k, drop)


@pytest.mark.parametrize(
    ("device", "case", "expected"),
    [
        (H100, {}, "cudnn"),
        (H100, {"dtype": jnp.float16}, "cudnn"),
        (H100, {"channels": 256}, "cudnn"),
        (A100, {"channels": 128}, "cudnn"),
        (A100, {"channels": 136}, "8, 16, … 128 channels, and these have 136"),
        (H100, {"channels": 20}, "8, 16, … 256 channels, and these have 20"),
        (H100, {"dtype": jnp.float32}, "bfloat16 or float16, and the dtype is float32"),
        (H100, {"drop": object()}, "cuDNN's kernel has no dropout"),
        (H100, {"queries": 1}, "cuDNN's kernel needs equal numbers of queries and keys"),
        (T4, {}, "compute capability 8.0, and this GPU has 7.5"),
        (AMD, {}, "an NVIDIA GPU, and this is AMD Instinct MI300X"),
        (CPU, {}, "an NVIDIA GPU, and this is cpu"),
        (TPU, {}, "an NVIDIA GPU, and this is TPU v5 lite"),
    ],
)
def test_auto_takes_what_the_device_supports(device, case, expected, monkeypatch):
    """A request for cuDNN where it is impossible gives the reason."""
    assert chosen(device, monkeypatch, **case, ask="xla") == "xla"
    if expected == "cudnn":
        assert chosen(device, monkeypatch, **case) == chosen(device, monkeypatch, **case, ask="cudnn") == "cudnn"
    else:
        assert chosen(device, monkeypatch, **case) == "xla"
        with pytest.raises(JclipError, match=f"'cudnn' is not possible here: .*{expected}; choose auto or xla"):
            chosen(device, monkeypatch, **case, ask="cudnn")


def test_the_device_is_that_of_the_mesh_or_the_default():
    assert attention._device().platform == "cpu"
    with jax.set_mesh(make_mesh()):
        assert attention._device() == jax.devices()[0]
    with jax.default_device(jax.devices()[3]):
        assert attention._device().platform == "cpu"


def test_the_device_of_a_mesh_that_is_not_here(monkeypatch):
    """A compile-only device is no device of `jax.devices`; it is found while jax traces scans, remat and shard_map."""
    absent = AbsentDevice()
    mesh = jax.sharding.Mesh(np.array([absent]), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    seen = []

    def look(x):
        seen.append(attention._device())
        return x

    @jax.jit
    def traced(x):
        x, _ = jax.lax.scan(lambda x, _: (jax.checkpoint(look)(x), None), x, length=1)
        return jax.shard_map(look, mesh=mesh.abstract_mesh, in_specs=P("data"), out_specs=P("data"))(x)

    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91200)
    with jax.set_mesh(mesh):
        jax.eval_shape(traced, jax.ShapeDtypeStruct((4,), jnp.float32))
        assert len(seen) > 1 and all(device is absent for device in seen)
        inputs = jax.ShapeDtypeStruct((2, 8, 2, 8), jnp.bfloat16)
        assert "_dot_product_attention_fwd" in str(jax.make_jaxpr(attend)(inputs, inputs, inputs))
    assert attention._device().platform == "cpu"


def test_an_abstract_device_has_no_capability():
    absent = jax.sharding.AbstractDevice(device_kind="H100", num_cores=132, platform="gpu")
    mesh = jax.sharding.AbstractMesh((1,), ("data",), abstract_device=absent)
    with jax.sharding.use_abstract_mesh(mesh):
        assert attention._device() == absent
        assert attention._choose("auto", ONES, ONES, None) == "xla"
    with jax.sharding.use_abstract_mesh(make_mesh().abstract_mesh):
        assert attention._device().platform == "cpu"


@pytest.mark.parametrize(
    ("length", "mask"),
    [
        *((7, mask) for mask in MASKS),
        (8, "both"),
        *(pytest.param(8, mask, marks=pytest.mark.slow) for mask in MASKS if mask != "both"),
    ],
)
def test_what_cudnn_is_given(mask, length, monkeypatch):
    """Inputs are padded to an even length, as cuDNN's gradient needs. XLA replaces cuDNN here."""
    monkeypatch.setattr(attention, "_device", lambda: H100)
    lengths = []

    def instead(q, k, v, *, implementation, **options):
        assert implementation == "cudnn"
        lengths.append(q.shape[1])
        return in_xla(q, k, v, **options)

    in_xla = jax.nn.dot_product_attention
    monkeypatch.setattr(jax.nn, "dot_product_attention", instead)
    assert_like_the_oracle(length, MASKS[mask], jnp.bfloat16, "cudnn")
    assert lengths == [8]


@pytest.mark.usefixtures("scanned")
@pytest.mark.parametrize("patches", [9, 16])
def test_a_vit_pads_its_tokens_once(patches, monkeypatch):
    """17 tokens become 18 before the first layer, and the results are those without cuDNN. XLA replaces cuDNN here."""
    model = Vit(VitConfig(14 * round(patches**0.5), 14, 64, 3, 2), 11, Compute(jnp.bfloat16))
    images = jax.random.normal(jax.random.key(0), (2, model.config.image_size, model.config.image_size, 3))
    variables = random_variables(model, images)

    def computed(model):
        loss = lambda variables: jnp.square(model.apply(variables, images)).sum()  # noqa: E731
        return jax.jit(jax.value_and_grad(loss))(variables)

    expected = computed(model.clone(compute=Compute(jnp.bfloat16, attention="xla")))
    monkeypatch.setattr(attention, "_device", lambda: H100)
    given, in_xla = [], jax.nn.dot_product_attention

    def instead(q, k, v, *, implementation, key_value_seq_lengths, **options):
        given.append((q.shape[1], key_value_seq_lengths is not None))
        return in_xla(q, k, v, key_value_seq_lengths=key_value_seq_lengths, **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", instead)
    actual = computed(model)
    assert set(given) == {(18, True) if patches == 16 else (10, False)}
    one, other = (np.asarray(ravel_pytree(each)[0]) for each in (actual, expected))
    assert np.linalg.norm(one - other) < 0.02 * np.linalg.norm(other)  # rounding: bfloat16 has 3 digits


def pretend_an_h100(monkeypatch):
    """Makes jclip, and jax's check of cuDNN, see an H100."""
    monkeypatch.setattr(attention, "_device", lambda: H100)
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91200)


TOWERS = {
    "image": Vit(VitConfig(42, 14, 64, 3, 2), 11, Compute(jnp.bfloat16)),  # 10 tokens, 9 of them patches
    "causal": ClipText(ClipTextConfig(99, 17, 64, 3, 2), 11, Compute(jnp.bfloat16)),
    "padded": Bert(BertConfig(99, 64, 3, 2, 96, 17, 2, 0, 1e-12), 11, compute=Compute(jnp.bfloat16)),
}
INPUTS = {"image": jnp.ones((2, 42, 42, 3)), "causal": jnp.ones((2, 17), int), "padded": jnp.ones((2, 17), int)}


QUICK = {("image", "none"), ("causal", "dots"), ("padded", "layers")}


@pytest.mark.usefixtures("scanned")
@pytest.mark.parametrize(
    ("tower", "remat"),
    [
        pytest.param(tower, remat, marks=[] if (tower, remat) in QUICK else [pytest.mark.slow])
        for tower in TOWERS
        for remat in ("none", "dots", "layers")
    ],
)
def test_a_tower_lowered_for_an_nvidia_gpu_calls_cudnn(tower, remat, monkeypatch):
    """The forward and the backward pass call it, and contain no other product of queries and keys."""
    pretend_an_h100(monkeypatch)
    model, inputs = TOWERS[tower].clone(compute=Compute(jnp.bfloat16, remat)), INPUTS[tower]
    variables = random_variables(model, inputs)

    def lowered(model, **options):
        loss = jax.grad(lambda variables: jnp.square(model.apply(variables, inputs, **options)).sum())
        return jax.jit(loss).trace(variables).lower(lowering_platforms=("cuda",)).as_text()

    text = lowered(model)
    assert {"__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"} == set(re.findall(r"__cudnn\$\w+", text))
    masks = {"image": "NO_MASK", "causal": "CAUSAL", "padded": "PADDING"}
    assert set(re.findall(r"mask_type[^A-Z]*([A-Z_]+)", text)) == {masks[tower]}
    assert not re.search(r"dot_general.*batching_dims", text)
    in_xla = lowered(model.clone(compute=Compute(jnp.bfloat16, remat, "xla")))
    assert "__cudnn" not in in_xla
    assert re.search(r"dot_general.*batching_dims", in_xla)


@pytest.mark.usefixtures("scanned")
def test_dropout_on_probabilities_is_left_to_xla(monkeypatch):
    pretend_an_h100(monkeypatch)
    model, ids = TOWERS["padded"], INPUTS["padded"]
    variables = random_variables(model, ids)

    def traced(model):
        options = {"rows_b": jnp.arange(2), "rngs": {"dropout": jax.random.key(0)}}
        return str(jax.make_jaxpr(lambda variables: model.apply(variables, ids, **options))(variables))

    assert "dot_product_attention" not in traced(model)
    with pytest.raises(JclipError, match="'cudnn' is not possible here: cuDNN's kernel has no dropout"):
        traced(model.clone(compute=Compute(jnp.bfloat16, attention="cudnn")))
    model = model.clone(
        compute=Compute(jnp.bfloat16, attention="cudnn"), config=replace(model.config, attention_dropout=0.0)
    )
    assert "dot_product_attention" in traced(model)


def test_an_unknown_implementation():
    with pytest.raises(JclipError, match="attention 'flash' is unknown: choose one of auto, xla, cudnn"):
        attend(ONES, ONES, ONES, implementation="flash")
