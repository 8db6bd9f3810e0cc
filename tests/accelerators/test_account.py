"""Accounts of compiled programs: those that XLA makes here, and excerpts in the forms of TPU and CUDA."""

from contextlib import suppress
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jclip.accelerators.account import Communication, account
from jclip.configs import load
from jclip.errors import JclipError
from jclip.parallel.mesh import MeshShape, make_mesh
from jclip.parallel.sharding import on_mesh
from jclip.train.planning.flops import count_flops
from jclip.train.planning.reduced import reduce
from tests.train.assembled import shapes_of


def compiled(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().as_text()


def test_one_matmul():
    found = account(compiled(jnp.matmul, jnp.ones((64, 32)), jnp.ones((32, 16))))
    assert found.products == 2 * 64 * 32 * 16
    assert found.traffic == 4 * (64 * 32 + 32 * 16 + 64 * 16)
    assert (found.collectives, found.unknown, found.cycles) == ((), (), 0)


def test_a_loop_counts_every_iteration_and_reads_one_layer_each_time():
    def f(stack, x):
        return jax.lax.scan(lambda x, layer: (jnp.tanh(x @ layer), None), x, stack)[0]

    found = account(compiled(f, jnp.ones((6, 128, 128)), jnp.ones((64, 128))))
    assert found.products == 6 * 2 * 64 * 128 * 128
    layer, state = 4 * 128 * 128, 4 * 64 * 128
    # At least each layer and the state, read and written; at most a copy of the layer and a state for tanh.
    assert 6 * (layer + 2 * state) <= found.traffic <= 6 * (3 * layer + 6 * state) + 10_000


def test_nested_loops_and_a_conditional():
    def f(x):
        inner = partial(jax.lax.fori_loop, 0, 3, lambda _, x: x @ x)
        x = jax.lax.scan(lambda x, _: (inner(x), None), x, length=5)[0]
        return jax.lax.cond(x[0, 0] > 0, lambda: x @ x, lambda: x @ x @ x)

    assert account(compiled(f, jnp.ones((64, 64)))).products == (5 * 3 + 2) * 2 * 64**3


def test_convolution():
    image, kernel = jnp.ones((2, 32, 32, 3)), jnp.ones((8, 8, 3, 16))
    f = partial(
        jax.lax.conv_general_dilated, window_strides=(8, 8), padding="VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    assert account(compiled(f, image, kernel)).products == 2 * (2 * 4 * 4 * 16) * (8 * 8 * 3)


def test_padding_is_not_multiplied():
    f = partial(jax.lax.conv_general_dilated, window_strides=(1, 1), padding=((1, 1), (1, 1)))
    found = account(compiled(f, jnp.ones((1, 1, 3, 3)), jnp.ones((1, 1, 3, 3))))
    assert found.products == 2 * (2 + 3 + 2) ** 2


def test_a_loop_of_unknown_length_counts_once_and_says_so():
    def f(x):
        return jax.lax.while_loop(lambda x: x[0, 0] < 100, lambda x: x @ x, x)

    found = account(compiled(f, jnp.ones((64, 64))))
    assert found.products == 2 * 64**3
    assert len(found.unknown) == 1
    assert "the loop's length is not in the text; it is counted once" in found.unknown[0]


COLLECTIVES = {
    "all-reduce": (lambda x: jax.lax.psum(x, "data"), 2 * 3 / 4),
    "all-gather": (lambda x: jax.lax.all_gather(x, "data", tiled=True), 4 * 3 / 4),
    "reduce-scatter": (lambda x: jax.lax.psum_scatter(x, "data", tiled=True), 3 / 4),
    "all-to-all": (lambda x: jax.lax.all_to_all(x, "data", 0, 0, tiled=True), 3 / 4),
    "collective-permute": (lambda x: jax.lax.ppermute(x, "data", [(i, (i + 1) % 4) for i in range(4)]), 1),
}


@pytest.mark.parametrize("kind", COLLECTIVES)
def test_a_collective(kind):
    """Each over the four devices of "data"; a device has 16 x 8 floats."""
    function, factor = COLLECTIVES[kind]
    mesh = make_mesh(MeshShape(data=4, tensor=2))
    f = jax.shard_map(function, mesh=mesh, in_specs=P("data", "tensor"), out_specs=P("data", "tensor"), check_vma=False)
    found = account(compiled(f, jax.ShapeDtypeStruct((64, 16), jnp.float32)))
    assert found.by_kind() == {kind: Communication(1, 1, 4 * 16 * 8 * factor)}
    (one,) = found.collectives
    numbers = np.arange(8).reshape(4, 2)
    if kind == "collective-permute":
        pairs = {(int(numbers[i, j]), int(numbers[(i + 1) % 4, j])) for i in range(4) for j in range(2)}
        assert set(one.groups) == pairs
    else:
        assert {frozenset(group) for group in one.groups} == {frozenset(column) for column in numbers.T.tolist()}
        assert one.devices == 4
    assert one.spans(4)
    assert not one.spans(8)


def test_a_collective_in_a_loop():
    mesh = make_mesh(MeshShape(data=8))

    def f(x):
        return jax.lax.fori_loop(0, 5, lambda _, x: x + jax.lax.psum(x, "data"), x)

    f = jax.shard_map(f, mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=False)
    found = account(compiled(f, jax.ShapeDtypeStruct((64,), jnp.float32)))
    assert found.by_kind() == {"all-reduce": Communication(1, 5, 5 * 2 * 4 * 8 * 7 / 8)}


def test_devices_share_the_products():
    mesh = make_mesh(MeshShape(data=8))
    x = jax.ShapeDtypeStruct((64, 32), jnp.float32, sharding=NamedSharding(mesh, P("data")))
    assert account(compiled(jnp.matmul, x, jnp.ones((32, 16)))).products == 2 * 8 * 32 * 16


@pytest.mark.parametrize(
    ("recipe", "stage"),
    [
        ("chinese_clip/vit_b_16", 1),
        pytest.param("chinese_clip/rn50", 1, marks=pytest.mark.slow),
        pytest.param("altclip/vit_l_14", 0, marks=pytest.mark.slow),
        pytest.param("altclip/vit_l_14", 1, marks=pytest.mark.slow),
    ],
)
def test_a_step_has_the_products_of_its_jaxpr(recipe, stage, tmp_path):
    """The jaxpr counts some products that are not needed, and the compiler makes others, such as sums by matmuls."""
    part = shapes_of(reduce(load(recipe), tmp_path), stage)
    state = on_mesh(part.state_shapes, part.shardings)
    rest = (part.program.constants, part.program.batch, jax.eval_shape(lambda: jax.random.key(0)))
    with jax.set_mesh(part.mesh):
        asked = count_flops(part.step, part.state_shapes, *rest) / part.mesh.size
        found = account(part.compiled.lower(state, *rest).compile().as_text())
    assert found.unknown == ()
    assert found.products == pytest.approx(asked, rel=0.05)


HERE = Path(__file__).parent


def test_collectives_inside_tpu_fusions():
    """A gather in two parts is one, and an all-reduce that is cut at once is a reduce-scatter."""
    wire = 4 * 64 * 128 * 7 / 8
    assert account((HERE / "tpu.hlo").read_text()).by_kind() == {
        "all-gather": Communication(1, 1, wire),
        "reduce-scatter": Communication(1, 1, wire),
    }


def test_a_chain_that_goes_on_in_a_loop_is_one_collective():
    """The loop computes meanwhile. A collective that is begun and ended in the loop is executed in each iteration."""

    def part(chain, operand="x"):
        return f"""f32[64]{{0}} all-gather(%{operand}), channel_id={chain}, replica_groups=[1,8]<=[8],
 dimensions={{0}}, frontend_attributes={{chain_id="{chain}"}}""".replace("\n", "")

    times = '{"known_trip_count":{"n":"5"}}'
    text = f"""HloModule m, num_partitions=8

%body (b: (f32[8])) -> (f32[8]) {{
  %b = (f32[8]{{0}}) parameter(0)
  %x = f32[8]{{0}} get-tuple-element(%b), index=0
  %first = {part(1)}
  %own = {part(2)}
  %owned = {part(2)}
  ROOT %r = (f32[8]{{0}}) tuple(%x)
}}

%condition (c: (f32[8])) -> pred[] {{
  %c = (f32[8]{{0}}) parameter(0)
  ROOT %t = pred[] constant(true)
}}

ENTRY %main (x: f32[8]) -> f32[64] {{
  %x = f32[8]{{0}} parameter(0)
  %start = (f32[8]{{0}}) tuple(%x)
  %loop = (f32[8]{{0}}) while(%start), condition=%condition, body=%body, backend_config={times}
  ROOT %last = {part(1)}
}}
"""
    assert sorted(each.times for each in account(text).collectives) == [1, 5]


def test_cycles_of_tpu_fusions():
    text = """HloModule m

%f (p: f32[8,128]) -> f32[8,128] {
  ROOT %p = f32[8,128]{1,0:T(8,128)} parameter(0)
}

ENTRY %main (x: f32[8,128]) -> f32[8,128] {
  %x = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %y = f32[8]{0} fusion(%x), kind=kLoop, calls=%f, backend_config={"window_config":{"estimated_cycles":"41"}}
}
"""
    assert account(text).cycles == 41


def test_cuda_library_calls():
    found = account((HERE / "cuda.hlo").read_text())
    products = {each.name: each.products for each in found.work}
    attention, convolution = 2 * 2 * 3 * 6 * 6 * 8, 2 * (2 * 6 * 6 * 16) * (3 * 3 * 4)
    assert products == {
        "gemm": 2 * 16 * 64 * 32, "fmha": 2 * attention, "back": 5 * attention,
        "conv": convolution, "dx": convolution, "dw": convolution, "other": 0,
    }  # fmt: skip
    assert next(each.traffic for each in found.work if each.name == "gemm") == 2 * (16 * 32 + 32 * 64 + 16 * 64)
    assert [sentence.partition(":")[0] for sentence in found.unknown] == ["other"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not HLO",
        "HloModule m\n",
        "HloModule m\n\nENTRY %main (x: f32[2]) -> f32[2] {\n}\n",
        "HloModule m\n\nENTRY %main () -> f32[2] {\n  ROOT %x = f32[2]{0} add(%a, %b)\n}\n",
        "HloModule m\n\nENTRY %main () -> f32[2] {\n  ROOT %x = f32[2]{0} fusion(), kind=kLoop, calls=%gone\n}\n",
        "HloModule m\n\nENTRY %main () -> f32[2] {\n  ROOT %x = f32[2]{0} call(), to_apply=%main\n}\n",
        "HloModule m\n\nENTRY %main () -> f32[2] {\n  ROOT %x = [2 dot(%x, %x)\n}\n",
    ],
)
def test_text_that_cannot_be_read(text):
    with pytest.raises(JclipError, match="its version of XLA may print it differently"):
        account(text)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.text(alphabet='%(){}[],="x1 ', max_size=3))
def test_damaged_text_is_read_or_refused(start, length, new):
    for file in HERE.glob("*.hlo"):
        text = file.read_text()
        start = start % len(text)
        damaged = text[:start] + new + text[start + length % 100 :]
        with suppress(JclipError):
            account(damaged)
