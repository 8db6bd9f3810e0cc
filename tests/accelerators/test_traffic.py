"""Memory traffic: hand-worked programs, and XLA's own count where it has no loops to count once."""

import jax
import jax.numpy as jnp
import pytest

from jclip.accelerators.account import account


def body(*lines, results="f32[8,128]", before=""):
    """Returns a program whose entry has these lines; "STACK" is f32[12,8,128] in main memory."""
    inside = "\n".join(f"  {line}" for line in lines)
    text = f"""HloModule m
{before}
ENTRY %main (stack: STACK, i: s32[]) -> {results} {{
  %stack = STACK parameter(0)
  %i = s32[] parameter(1)
  %zero = s32[] constant(0)
{inside}
}}
"""
    return text.replace("STACK", "f32[12,8,128]{2,1,0:T(8,128)}").replace("LAYER", "f32[1,8,128]{2,1,0:T(8,128)}")


LAYER = 4 * 8 * 128
SLICE = """
%read (p: STACK, j: s32[]) -> LAYER {
  %p = STACK parameter(0)
  %j = s32[] parameter(1)
  %o = s32[] constant(0)
  %s = LAYER dynamic-slice(%p, %j, %o, %o), dynamic_slice_sizes={1,8,128}
  ROOT %n = LAYER negate(%s)
}
"""
UPDATE = """
%write (p: STACK, u: LAYER, j: s32[]) -> STACK {
  %p = STACK parameter(0)
  %u = LAYER parameter(1)
  %j = s32[] parameter(2)
  %o = s32[] constant(0)
  ROOT %d = STACK dynamic-update-slice(%p, %u, %j, %o, %o)
}
"""
INDEX = 4  # bytes of a position


@pytest.mark.parametrize(
    ("lines", "before", "traffic"),
    [
        (("ROOT %y = STACK negate(%stack)",), "", 2 * 12 * LAYER),
        (("ROOT %y = STACK multiply(%stack, %stack)",), "", 2 * 12 * LAYER),  # read once
        (("ROOT %y = STACK bitcast(%stack)",), "", 0),
        (
            ("ROOT %y = LAYER dynamic-slice(%stack, %i, %zero, %zero), dynamic_slice_sizes={1,8,128}",),
            "",
            2 * LAYER + 2 * INDEX,
        ),
        (("ROOT %y = LAYER fusion(%stack, %i), kind=kLoop, calls=%read",), SLICE, 2 * LAYER + INDEX),
        (
            (
                "%u = LAYER broadcast(%i), dimensions={}",
                "ROOT %y = STACK fusion(%stack, %u, %i), kind=kLoop, calls=%write",
            ),
            UPDATE,
            (LAYER + INDEX) + (2 * LAYER + INDEX),
        ),
        # Moved to the chip and used there: only the copy reads main memory.
        (
            (
                "%start = (f32[12,8,128]{2,1,0:T(8,128)S(1)}, STACK, u32[]{:S(2)}) copy-start(%stack)",
                "%done = f32[12,8,128]{2,1,0:T(8,128)S(1)} copy-done(%start)",
                "ROOT %y = f32[12,8,128]{2,1,0:T(8,128)S(1)} negate(%done)",
            ),
            "",
            12 * LAYER,
        ),
        (
            (
                "%u = LAYER broadcast(%i), dimensions={}",
                "%begun = ((STACK, LAYER, s32[], s32[], s32[]), STACK, u32[]{:S(2)}) "
                "dynamic-update-slice-start(%stack, %u, %i, %zero, %zero)",
                "ROOT %y = STACK dynamic-update-slice-done(%begun)",
            ),
            "",
            (LAYER + INDEX) + (2 * LAYER + 2 * INDEX),
        ),
        (
            (
                "%start = ((STACK), f32[3,8,128]{2,1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%stack), slice={[0:3]}",
                "ROOT %y = f32[3,8,128]{2,1,0:T(8,128)S(1)} slice-done(%start)",
            ),
            "",
            3 * LAYER,
        ),
    ],
)
def test_by_hand(lines, before, traffic):
    assert account(body(*lines, before=before)).traffic == traffic


def test_gather_and_scatter_touch_rows():
    text = """HloModule m

ENTRY %main (table: f32[1000,16], ids: s32[4], rows: f32[4,16]) -> f32[1000,16] {
  %table = f32[1000,16]{1,0} parameter(0)
  %ids = s32[4]{0} parameter(1)
  %rows = f32[4,16]{1,0} parameter(2)
  %found = f32[4,16]{1,0} gather(%table, %ids), offset_dims={1}, slice_sizes={1,16}
  ROOT %sum = f32[1000,16]{1,0} scatter(%table, %ids, %rows), to_apply=%add
}
"""
    rows, ids = 4 * 4 * 16, 4 * 4
    found = {each.name: each.traffic for each in account(text).work}
    assert found == {"found": 2 * rows + ids, "sum": 3 * rows + ids}


def test_views_inside_nested_fusions_are_read_once():
    """The form in which TPU's compiler writes a matmul."""
    text = """HloModule m

%view (p: f32[8,128]) -> f32[8,128] {
  %p = f32[8,128]{1,0} parameter(0)
  ROOT %b = f32[8,128]{1,0} bitcast(%p)
}

%product (p: f32[8,128], q: f32[128,8]) -> f32[8,8] {
  %p = f32[8,128]{1,0} parameter(0)
  %q = f32[128,8]{1,0} parameter(1)
  %seen = f32[8,128]{1,0} fusion(%p), kind=kLoop, calls=%view
  ROOT %c = f32[8,8]{1,0} convolution(%seen, %q), dim_labels=bf_io->bf
}

ENTRY %main (x: f32[8,128], y: f32[128,8]) -> f32[8,8] {
  %x = f32[8,128]{1,0} parameter(0)
  %y = f32[128,8]{1,0} parameter(1)
  ROOT %r = f32[8,8]{1,0} fusion(%x, %y), kind=kOutput, calls=%product
}
"""
    found = account(text)
    assert (found.products, found.traffic) == (2 * 8 * 8 * 128, 4 * (2 * 8 * 128 + 8 * 8))


def test_agrees_with_xla_where_there_are_no_loops():
    def loss(params, x):
        for w in params:
            x = jax.nn.gelu(x @ w)
        return (x**2).mean()

    def step(params, x):
        return jax.tree.map(lambda w, g: w - 0.1 * g, params, jax.grad(loss)(params, x))

    compiled = jax.jit(step).lower([jnp.ones((256, 256))] * 3, jnp.ones((64, 256))).compile()
    found = account(compiled.as_text())
    assert found.traffic == pytest.approx(compiled.cost_analysis()["bytes accessed"], rel=0.05)
    assert found.products == (3 * 3 - 1) * 2 * 64 * 256 * 256
