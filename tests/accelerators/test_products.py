"""FLOPs of single instructions, in the forms in which TPU's compiler writes products as convolutions."""

from hypothesis import given
from hypothesis import strategies as st

from jclip.accelerators.account import account


def products(image, kernel, result, attributes):
    return account(f"""HloModule m

ENTRY %main (x: {image}, y: {kernel}) -> {result} {{
  %x = {image} parameter(0)
  %y = {kernel} parameter(1)
  ROOT %z = {result} convolution(%x, %y), {attributes}
}}
""").products


def test_matmul():
    assert products("f32[4,8]", "f32[8,16]", "f32[4,16]", "dim_labels=bf_io->bf") == 2 * 4 * 8 * 16


def test_batched_matmul_with_a_dilated_input():
    """Logits of attention: (batch 32, length 52, heads 12, channels 64)."""
    window = "window={size=32x12 stride=31x11 lhs_dilate=32x12}, dim_labels=0b1f_0o1i->01bf"
    found = products("bf16[32,52,12,64]", "bf16[32,52,12,64]", "f32[32,12,52,52]", window)
    assert found == 2 * 32 * 12 * 52 * 52 * 64


def test_projection_with_a_reversed_kernel():
    """Heads to width: each of 12 outputs meets one place of the kernel; the others are padding."""
    window = "window={size=1x12 pad=0_0x11_11 rhs_reversal=0x1}, dim_labels=0bf1_1oi0->0b1f"
    found = products("bf16[32,52,768,1]", "bf16[12,64,768,1]", "bf16[32,52,12,64]", window)
    assert found == 2 * 32 * 52 * 768 * 12 * 64


def test_depthwise():
    found = products(
        "f32[2,8,8,6]", "f32[3,3,1,6]", "f32[2,6,6,6]",
        "window={size=3x3}, dim_labels=b01f_01io->b01f, feature_group_count=6",
    )  # fmt: skip
    assert found == 2 * (2 * 6 * 6 * 6) * (3 * 3)


SMALL = st.integers(1, 5)


@given(st.integers(1, 9), SMALL, SMALL, SMALL, SMALL, st.integers(-3, 4), st.integers(-3, 4))
def test_pairs_of_positions_are_those_that_one_would_count(size, kernel, stride, left, right, before, after):
    padded, reach = (size - 1) * left + 1 + before + after, (kernel - 1) * right + 1
    outputs = max(0, (padded - reach) // stride + 1)
    window = f"window={{size={kernel} stride={stride} pad={before}_{after} lhs_dilate={left} rhs_dilate={right}}}"
    labels = f"{window}, dim_labels=b0f_0io->b0f"
    positions = (output * stride + place * right - before for output in range(outputs) for place in range(kernel))
    counted = sum(at % left == 0 and 0 <= at // left < size for at in positions)
    assert products(f"f32[1,{size},1]", f"f32[{kernel},1,1]", f"f32[1,{outputs},1]", labels) == 2 * counted


def test_custom_calls_that_multiply_nothing():
    """The packed indices of TPU's gathers; of another custom call it is said that it is not counted."""

    def unknown(target):
        return account(f"""HloModule m

ENTRY %main (x: s32[8]) -> s32[8] {{
  %x = s32[8] parameter(0)
  ROOT %y = s32[8] custom-call(%x), custom_call_target="{target}"
}}
""").unknown

    assert unknown("GatherScatterIndicesBitpacked") == ()
    assert unknown("theirs") == ("y: the products of theirs are not counted",)
