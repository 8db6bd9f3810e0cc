"""The reader of HLO text."""

import pytest

from jclip.accelerators.account import account
from jclip.accelerators.hlo_text import Array, leaves, read_module, read_shape


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("f32[3,5]{1,0}", 60),
        ("f32[3,5]{1,0:T(8,128)}", 4 * 8 * 128),
        ("bf16[32,197,768]{2,1,0:T(8,128)(2,1)S(1)}", 2 * 32 * 200 * 768),
        ("bf16[12,32,52,768]{3,1,2,0:T(8,128)(2,1)}", 2 * 12 * 52 * 32 * 768),  # 32 and 768 are the last in memory
        ("f32[768]{0:T(1024)}", 4 * 1024),
        ("f32[]{:T(128)}", 4 * 128),
        ("pred[7]{0}", 7),
        ("s4[3]{0:E(4)}", 2),
        ("f8e4m3fn[3]{0}", 3),
        ("f32[<=8]{0}", 32),
        ("token[]", 0),
    ],
)
def test_sizes(text, stored):
    (array,) = leaves(read_shape(text))
    assert array.stored == stored


def test_nested_tuples():
    shape = read_shape("((f32[2]{0}, /*index=1*/bf16[]), u32[]{:S(2)})")
    assert shape == ((Array("f32", (2,), "0"), Array("bf16", ())), Array("u32", (), ":S(2)"))
    assert [leaf.in_memory for leaf in leaves(shape)] == [True, True, False]


def test_memory_spaces():
    """Space 1 is on the chip for TPU, whose arrays have tiles, and main memory for collectives on CUDA."""
    assert not read_shape("f32[8,128]{1,0:T(8,128)S(1)}").in_memory
    assert read_shape("f32[8,128]{1,0:S(1)}").in_memory
    assert not read_shape("f32[8,128]{1,0:T(8,128)S(5)}").in_memory


def test_names_and_metadata_are_data():
    """Text in quotes looks like HLO, and is not read."""
    text = r"""HloModule m

FileNames
1 "ENTRY %evil (x: f32[2]) -> f32[2] {"

%f (p: f32[2]) -> f32[2] {
  ROOT %p = f32[2]{0} parameter(0)
}

ENTRY %main (x: f32[2]) -> f32[2] {
  %x = f32[2]{0} parameter(0), metadata={op_name="%y = f32[9] dot(%x), calls=%g, }\") dot("}
  ROOT %y = f32[2]{0} fusion(%x), metadata={op_name="calls=%g, {\"a\":1}"}, calls=%f, backend_config={"b":"}, c"}
}
"""
    module = read_module(text)
    root = module.entry.root
    assert (root.opcode, root.called, root.config) == ("fusion", ("f",), {"b": "}, c"})
    assert list(module.entry.instructions) == ["x", "y"]
    assert list(module.computations) == ["f", "main"]
    assert module.entry.parameters[0].name == "x"


def test_an_instruction_may_span_lines():
    """As a Pallas kernel's metadata do; and quoted text may have lines that look like HLO."""
    text = r"""HloModule m

%f (p: f32[2]) -> f32[2] {
  ROOT %p = f32[2]{0} parameter(0)
}, execution_thread="host"

ENTRY %main (x: f32[2]) -> f32[2] {
  %x = f32[2]{0} parameter(0)
  %kernel.1 = (f32[2], f32[2]) custom-call(%x), custom_call_target="tpu_custom_call", frontend_attributes={m={
"xprof_metadata":"{\"block_q\": 128, \"block_kv\": null}"
}}, metadata={op_name="jit(f)/pallas_call"}, backend_config={"custom_call_config":{"cost_estimate":{"flops":"7"}}}

  %y = f32[2]{0} get-tuple-element(%kernel.1), index=1, frontend_attributes={kernel_metadata={
"ir":"module {
  %z = f32[9] add(%y, %y)
}
ENTRY %evil (x: f32[2]) -> f32[2] {"
}}
  ROOT %r = f32[2]{0} fusion(%y), calls=%f
}
"""
    module = read_module(text)
    assert list(module.computations) == ["f", "main"]
    assert list(module.entry.instructions) == ["x", "kernel.1", "y", "r"]
    assert module.entry.root.called == ("f",)
    kernel = module.entry.instructions["kernel.1"]
    assert (kernel.operands, kernel.attributes["custom_call_target"]) == (("x",), '"tpu_custom_call"')
    assert kernel.config["custom_call_config"]["cost_estimate"] == {"flops": "7"}
    assert account(text).products == 7
