"""Lengths of loops, as TPU's compiler writes them: without a note."""

import pytest

from jclip.accelerators.account import account

LOOP = """HloModule m

%condition (c: (s32[], f32[8,8], s32[])) -> pred[] {{
  %c = (s32[], f32[8,8]{{1,0}}, s32[]) parameter(0)
  %i = s32[] get-tuple-element(%c), index=0
  %bound = s32[] {bound}
  ROOT %test = pred[] compare(%i, %bound), direction={direction}
}}

%body (b: (s32[], f32[8,8], s32[])) -> (s32[], f32[8,8], s32[]) {{
  %b = (s32[], f32[8,8]{{1,0}}, s32[]) parameter(0)
  %i = s32[] get-tuple-element(%b), index=0
  %n = s32[] get-tuple-element(%b), index=2
  %step = s32[] constant({step})
  %next = s32[] add(%i, %step)
  %x = f32[8,8]{{1,0}} get-tuple-element(%b), index=1
  %y = f32[8,8]{{1,0}} dot(%x, %x), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  ROOT %r = (s32[], f32[8,8]{{1,0}}, s32[]) tuple(%next, %y, %n)
}}

ENTRY %main (x: f32[8,8]) -> f32[8,8] {{
  %x = f32[8,8]{{1,0}} parameter(0)
  %zero = s32[] constant({start})
  %first = s32[] copy(%zero)
  %n = s32[] constant(7)
  %tuple = (s32[], f32[8,8]{{1,0}}, s32[]) tuple(%first, %x, %n)
  %loop = (s32[], f32[8,8]{{1,0}}, s32[]) while(%tuple), condition=%condition, body=%body
  ROOT %y = f32[8,8]{{1,0}} get-tuple-element(%loop), index=1
}}
"""
CARRIED = "get-tuple-element(%c), index=2"


@pytest.mark.parametrize(
    ("bound", "direction", "start", "step", "trips"),
    [
        ("constant(12)", "LT", 0, 1, 12),
        ("constant(12)", "LE", 0, 1, 13),
        ("constant(12)", "NE", 0, 1, 12),
        ("constant(12)", "LT", 2, 3, 4),
        ("constant(12)", "LT", 2, 4, 3),
        ("constant(12)", "LT", 20, 1, 0),
        (CARRIED, "LT", 0, 1, 7),
    ],
)
def test_length(bound, direction, start, step, trips):
    text = LOOP.format(bound=bound, direction=direction, start=start, step=step)
    found = account(text)
    assert (found.products, found.unknown) == (trips * 2 * 8**3, ())


@pytest.mark.parametrize(
    ("bound", "direction", "step"), [("constant(12)", "GT", 1), ("constant(12)", "LT", -1), ("custom-call()", "LT", 1)]
)
def test_length_that_is_not_in_the_text(bound, direction, step):
    found = account(LOOP.format(bound=bound, direction=direction, start=0, step=step))
    assert found.products == 2 * 8**3
    assert any("counted once" in sentence for sentence in found.unknown)
