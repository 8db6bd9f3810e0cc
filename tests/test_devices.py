"""docs/devices.md shows docs/compiled.json; the lines, the next batch and the devices needed, by hand."""

import contextlib
import io
import re
from dataclasses import replace

import pytest

from docs import cells, compiled, devices
from docs.cells import RECIPES, SHOWN, Cell, confirmed, following_batch
from docs.compiled import Key, Line, Series, Step, Times, series
from docs.devices import places, smallest
from docs.tables import gib, rewritten
from jclip.accelerators.compiler import CompilerFailed
from jclip.accelerators.targets import TARGETS, parse_place
from jclip.configs.loading import load_config
from jclip.console import Console

GIB = 2**30
STEP = Step(
    needed=4 * GIB, state=GIB, whole=GIB, gradients=GIB, flops=16 * 10**11, times={"v5e": Times(1.0, 0.5, 0.0)},
    sent={"all-reduce": 7 * 10**9}, seconds=40.0,
)  # fmt: skip


def steps(*needed: tuple[int, int]) -> Series:
    """Returns steps for a v5e, with its 15.75 GiB, from pairs per device and GiB; the time grows with the pairs."""
    found = [
        (
            pairs,
            replace(STEP, needed=size * GIB, flops=pairs * 10**11, times={"v5e": Times(pairs / 16, pairs / 32, 0.0)}),
        )
        for pairs, size in needed
    ]
    return Series(TARGETS["v5e"], 8, tuple(found))


@pytest.mark.parametrize("file", [devices.FILE, devices.LAUNCH])
def test_the_pages_show_what_was_compiled(file):
    found = compiled.RECORDS.read()
    parts = devices.tables(found) | {"devices": devices.excerpt(found)}
    text = file.read_text(encoding="utf-8")
    assert rewritten(text, parts) == text, "run: python -m docs.devices --draw"


@pytest.mark.parametrize(
    ("place", "pairs", "kinds"),
    [
        ("v5e:2x4", 64, ("collective-permute", "all-gather", "reduce-scatter")),
        ("v5e:16x16", 64, ("all-reduce",)),
        ("h100:8", 128, ("all-gather", "reduce-scatter")),
    ],
)
def test_the_architecture_says_what_was_compiled_on_fsdp(place, pairs, kinds):
    words = {"collective-permute": "permutes", "all-gather": "gathers"}
    text = " ".join((devices.FILE.parent / "architecture.md").read_text(encoding="utf-8").split())
    sent = compiled.RECORDS.read()[Key("chinese_clip/vit_b_16", "everything", place, "fsdp", "dots", pairs)].sent
    for kind in kinds:
        assert f" {sent[kind] / 2**20:,.0f} MiB of {words.get(kind, kind + 's')}" in text


def test_the_page_has_every_target():
    names = re.findall(r"<!-- ([\w-]+) -->", devices.FILE.read_text(encoding="utf-8"))
    assert set(names) == {*SHOWN, "split", "deviation", "measured", "end"}
    assert {compiled.program_of(name) for name in SHOWN} < set(TARGETS)


def test_every_compiled_step_is_that_of_a_recipe():
    for key, step in compiled.RECORDS.read().items():
        assert key.stage in {stage.name for stage in load_config(key.recipe).stages}
        assert step.state <= step.whole and step.needed > step.state
        assert set(step.times) == ({parse_place(key.place).target.name, *_sharing(key)} if step.flops else set())


def _sharing(key: Key) -> tuple[str, ...]:
    return compiled.SHARED.get(parse_place(key.place).target.name, ())


def test_steps_are_written_and_read(tmp_path):
    written = {Key("a", "b", "v5e:2x4", "data", "dots", pairs): replace(STEP, needed=pairs) for pairs in (32, 16)}
    records = replace(compiled.RECORDS, file=tmp_path / "steps.json")
    assert records.read() == {}
    for key, step in written.items():
        records.add(key, step)
    assert records.read() == written and [key.pairs for key in records.read()] == [16, 32]


def test_lines_through_three_points_bend_at_the_middle_one():
    line = Line(((0, 0.0), (10, 10.0), (20, 40.0)))
    assert [line.at(x) for x in (-5, 0, 5, 10, 15, 20, 30)] == [-10, 0, 5, 10, 25, 40, 60]
    assert [line.largest_within(y) for y in (9.5, 10, 25, 59)] == [9, 10, 15, 29]
    assert Line(((8, 10.0), (16, 9.0))).largest_within(11) >= 1 << 20
    assert Line(((8, 10.0), (16, 10.0))).largest_within(9) == 0


def test_neighbours_do_not_decide_how_a_line_continues():
    # 680 and 688 pairs differ by a fusion: the line through them alone falls, and is below 0 from 1,088 pairs on.
    line = Line(((0, 0.0), (680, 80.0), (688, 78.4)))
    assert line.at(1376) == pytest.approx(156.8)


def test_every_estimate_is_above_zero():
    steps = compiled.RECORDS.read()
    for cell in cells.cells(RECIPES, SHOWN):
        found = cell.line(steps)
        if not found or not found.accounted:
            continue
        for pairs in (8, 16, 64, 256, 1024, cells.MOST, found.largest(cells.DEVICES)):
            sent = [line.at(pairs) for line in found.sent.values()]
            assert min(*found.times(pairs), *sent) >= 0, (cell, pairs)
            assert min(found.needed(pairs, 8), found.flops(pairs), found.seconds(pairs, 8)) > 0, (cell, pairs)


def test_only_compiled_batches_that_are_apart_from_others_count_for_the_deviation():
    cell = Cell("chinese_clip/vit_b_16", load_config("chinese_clip/vit_b_16").stages[1], TARGETS["a100"], "dots")
    follower = replace(cell, target=TARGETS["h100"])

    def known(cell: Cell, *needed: tuple[int, int]) -> dict[Key, Step]:
        times = {cell.target.name: Times(1.0, 1.0, 0.0)}
        return {cell.key("data", pairs): replace(step, times=times) for pairs, step in steps(*needed).steps}

    # The line through 4 and 24 GiB is at 14 for 96 pairs, which need 10.
    told = devices.deviation(known(cell, (16, 4), (96, 10), (176, 24)))
    assert told.startswith("1 of the compiled batches has") and "within 40.0% (median 40.0%)" in told
    assert told.endswith(" is chinese_clip/vit_b_16 (everything) on a100 with 96 pairs.\n")
    assert devices.deviation(known(cell, (16, 4), (168, 10), (176, 24))) == ""
    # The line of an H100 begins where that of the A100 does: with no pairs, which is not compiled.
    assert devices.deviation(known(cell, (16, 4), (96, 14)) | known(follower, (96, 10), (176, 24))) == ""


def test_measured_steps_are_beside_their_estimates():
    assert devices.measured({}) == ""
    key = Key("chinese_clip/vit_b_16", "everything", "a100:8", "data", "dots", 16)
    known = {
        replace(key, pairs=pairs): replace(step, times={"a100": Times(pairs / 900, 0.0, 0.0)}, sent={})
        for pairs, step in steps((16, 4), (96, 14)).steps
    }
    # cn_clip takes 1.477 and 0.96 s for 450 pairs; the estimate is 0.5 s.
    assert " take 1.9 to 3.0 times the estimate " in devices.measured(known)


def test_state_is_divided_and_what_is_replicated_is_not():
    # 9 GiB in all, of which 1 is on every device and 8 are split: 2 GiB on each of 8 devices. So is 1 GiB of gradients.
    step = replace(STEP, whole=9 * GIB, state=2 * GIB, needed=5 * GIB)
    found = Series(TARGETS["v5e"], 8, ((16, step), (32, replace(step, needed=6 * GIB))), "fsdp")
    assert [found.state(count) / GIB for count in (1, 8, 32)] == [9, 2, 1.25]
    more = 7 + 7 / 8, 0, -0.75 - 3 / 32
    assert [found.needed(32, count) / GIB for count in (1, 8, 32)] == [6 + each for each in more]
    assert found.largest(8) == 32 + int(16 * (0.95 * 15.75 - 6))


def test_frozen_parameters_in_the_hosts_memory_are_not_split_over_devices():
    step = replace(STEP, whole=40 * GIB, state=2 * GIB)  # 38 GiB are frozen, and the step does not take them
    found = Series(TARGETS["v5e"], 8, ((16, step),))
    assert [found.state(count) / GIB for count in (1, 8, 32)] == [2, 2, 2]
    assert [found.needed(16, count) / GIB for count in (1, 8, 32)] == [4, 4, 4]
    assert [replace(found, mesh="fsdp").state(count) / GIB for count in (8, 32)] == [2, 0.5]


def test_what_fits_leaves_as_much_memory_as_the_choice_of_remat_does():
    step = replace(STEP, needed=TARGETS["v5e"].memory * 95 // 100)
    found = Series(TARGETS["v5e"], 8, ((16, step),))
    assert found.fits(16, 8) and confirmed(found) == 16
    found = Series(TARGETS["v5e"], 8, ((16, replace(step, needed=step.needed + 2)),))
    assert not found.fits(16, 8) and confirmed(found) == 0


def test_steps_on_more_devices_are_beside_their_estimate():
    key = Key("chinese_clip/vit_b_16", "everything", "v5e:2x4", "fsdp", "dots", 16)
    split = replace(STEP, state=GIB // 8)
    known = {key: split, replace(key, pairs=32): replace(split, needed=6 * GIB)}
    known[replace(key, place="v5e:16x16", mesh="data")] = STEP
    assert devices.split_deviation(known) == ""
    # 1 GiB of state and 1 GiB of gradients are divided by 64 in place of 8.
    known[replace(key, place="v5e:8x8")] = replace(split, needed=int((4 - 2 / 8 + 2 / 64) * GIB * 0.9))
    assert devices.split_deviation(known).endswith(" by -10%.\n")


def test_what_is_sent_grows_with_the_devices():
    # 70 MB of gradients, and 0.7 MB for each pair of seven other devices.
    sent = [{"all-reduce": 70_000_000, "all-gather": pairs * 700_000} for pairs in (16, 32)]
    both = [replace(STEP, sent=each, times={"h100": Times(1.0, 0.0, 0.0)}) for each in sent]
    found = Series(TARGETS["h100"], 8, ((16, both[0]), (32, both[1])))
    assert found.links(64, 8) == pytest.approx((70e6 + 64 * 0.7e6) / 450e9)
    # 64 devices: 63/64 instead of 7/8 of the gradients, and nine times the features. Eight devices share the network.
    assert found.links(64, 64) == pytest.approx((70e6 * 63 / 64 / (7 / 8) + 64 * 0.7e6 * 9) / 400e9)
    assert found.links(64, 1) == 0
    permuted = Series(
        TARGETS["h100"], 8, ((16, replace(STEP, sent={"collective-permute": 7}, times={"h100": Times(1, 0, 0)})),)
    )
    assert permuted.rate("collective-permute", 64) == 50e9


def test_time_is_that_of_the_target_which_shares_the_program():
    key = Key("chinese_clip/vit_b_16", "everything", "a100:8", "data", "dots", 16)
    step = replace(STEP, times={"a100": Times(1.0, 0.5, 0.0), "a100-40": Times(1.0, 0.7, 0.0)}, sent={})
    known = {key: step, replace(key, place="a100:8x8", pairs=8): step}
    found = series(known, *key_of(key), "a100-40", "data", "dots")
    assert found and found.target.name == "a100-40" and found.seconds(16, 8) == 1.7
    assert series(known, *key_of(key), "h200", "data", "dots") is None


def test_the_compilers_own_count_of_cycles_is_preferred():
    assert Times(1.0, 0.5, 0.0).computing == 1.5 and Times(1.0, 0.5, 2.0).computing == 2.0


def key_of(key: Key) -> tuple[str, str]:
    return key.recipe, key.stage


def test_the_second_batch_nearly_fills_the_memory_and_the_third_is_where_the_line_ends():
    # 4 GiB, of which 2 are state and gradients: 1/8 GiB a pair, so (0.75 x 15.75 - 2) x 8 pairs, in eights.
    assert following_batch(steps((16, 4))) == 72
    assert following_batch(steps((16, 4), (72, 10))) is None  # a step that fills 60 % of the memory
    # The line has 138 pairs at 95 % of the memory, and so about 109 at 75 %; and 78 and 61.
    assert following_batch(steps((16, 4), (72, 9))) == 104
    assert following_batch(steps((16, 4), (96, 18))) == 56
    assert following_batch(steps((16, 4), (96, 18), (56, 17))) is None  # enough was tried
    assert following_batch(steps((16, 20))) == 8  # smaller than the first
    assert following_batch(steps((16, 10))) == 8  # it would be the same batch again
    assert confirmed(steps((16, 4), (96, 14))) == 96 and confirmed(steps((16, 4), (96, 16))) == 16


def test_what_other_targets_need_gives_the_batch_that_nearly_fills_the_memory():
    # 2 GiB are state and gradients; a pair needs 1/4 GiB elsewhere: (0.75 x 15.75 - 2) x 4 pairs, in eights.
    assert following_batch(steps((16, 4)), GIB / 4) == 32
    stage = load_config("chinese_clip/vit_b_16").stages[1]
    cell = Cell("chinese_clip/vit_b_16", stage, TARGETS["v5e"], "layers")
    assert cell.next_batch({}) == cells.FIRST
    elsewhere = replace(cell, target=TARGETS["a100"])
    known = {replace(cell, remat="dots").key("data", pairs): step for pairs, step in steps((16, 4), (96, 14)).steps}
    assert cell.next_batch(known) == 96  # what fits with "dots": 103, in eights
    known |= {elsewhere.key("data", pairs): step for pairs, step in steps((16, 3), (32, 4)).steps}
    # The line of "dots" begins at 2 GiB; elsewhere "layers" needs 1/16 GiB a pair.
    assert cell.next_batch(known) == 152


def test_after_a_crash_a_smaller_batch_is_compiled(monkeypatch, tmp_path):
    cell = Cell("chinese_clip/vit_b_16", load_config("chinese_clip/vit_b_16").stages[1], TARGETS["v5e"], "dots")
    known = {cell.key("data", 16): dict(steps((16, 4)).steps)[16]}
    tried = []

    def compile_step(process, key):
        tried.append(key.pairs)
        if key.pairs > 50:
            raise CompilerFailed("ended by SIGSEGV")
        return replace(STEP, needed=11 * GIB)

    monkeypatch.setattr(cells, "RECORDS", replace(cells.RECORDS, file=tmp_path / "compiled.json"))
    monkeypatch.setattr(cells, "compile_step", compile_step)
    monkeypatch.setattr(cells, "CompilerProcess", contextlib.nullcontext)
    console = Console(file=io.StringIO())
    cells.compile_all([cell], known, console)
    assert tried == [72, 48] and cells.RECORDS.read().keys() == {cell.key("data", 48)}
    monkeypatch.setattr(cells, "compile_step", lambda process, key: compile_step(process, replace(key, pairs=1 << 20)))
    cells.compile_all([cell], {key: step for key, step in known.items() if key.pairs == 16}, console)
    assert len(tried) == 5  # it gives up


def test_targets_begin_where_their_leader_does():
    stage = load_config("chinese_clip/vit_b_16").stages[1]
    cell = Cell("chinese_clip/vit_b_16", stage, TARGETS["v6e"], "dots")
    leader = replace(cell, target=TARGETS["v5e"])
    known = {leader.key("data", pairs): step for pairs, step in steps((16, 4), (96, 14)).steps}
    # 2 GiB without pairs, and 1/8 GiB for each: (0.75 x 31.25 - 2) x 8 pairs.
    assert TARGETS["v6e"].memory == 31.25 * GIB and cell.next_batch(known) == 168
    known[cell.key("data", 168)] = replace(STEP, needed=23 * GIB, times={"v6e": Times(1.0, 1.0, 0.0)})
    found = cell.line(known)
    assert found and found.needed(84, 8) == 12.5 * GIB and cell.next_batch(known) is None
    assert replace(cell, target=TARGETS["h100"]).next_batch(known) == cells.FIRST  # of another kind


def test_one_batch_makes_a_line_with_the_origin_of_other_steps():
    other = steps((16, 4), (32, 6))  # 2 GiB and no time without pairs
    found = steps((64, 6)).with_origin(other)
    assert found.accounted and [found.needed(pairs, 8) / GIB for pairs in (0, 32, 64)] == [2, 4, 6]
    assert found.seconds(32, 1) == pytest.approx(3) and found.flops(32) == pytest.approx(32 * 10**11)
    assert found.sent["all-reduce"].at(0) == 7 * 10**9
    assert found.largest(8) == 207 and following_batch(found) == 160
    begun = replace(other, target=replace(other.target, bandwidth=2 * other.target.bandwidth))
    assert steps((64, 6)).with_origin(begun).seconds(0, 1) == pytest.approx(2 * other.seconds(0, 1))
    assert steps((64, 6)).with_origin(None) == steps((64, 6))


def test_places_divide_the_batch():
    assert [place.name for place in places(TARGETS["v5e"], 1024)][:4] == ["v5e:1x1", "v5e:2x2", "v5e:2x4", "v5e:4x4"]
    found = [place.devices for place in places(TARGETS["h100"], 4608)]
    assert found[:8] == [1, 2, 3, 4, 6, 8, 16, 24] and max(found) <= 4608


def test_the_smallest_place_takes_the_batch():
    # 1/8 GiB a pair beside 2 GiB: 103 pairs a device, so 1,024 pairs on 16 devices, since 8 would have 128 each.
    found = steps((16, 4), (32, 6))
    assert found.largest(8) == 103
    place = smallest(found, 1024)
    assert place and place.name == "v5e:4x4"
    place = smallest(found, 8 * 104)  # 15 GiB on 8 devices, of which 14.96 are for the step
    assert place and place.name == "v5e:4x4"
    assert smallest(found, 32_768) is None  # 256 devices would have 128 each


def test_parameters_are_split_where_they_do_not_fit():
    stage = load_config("chinese_clip/vit_h_14").stages[1]
    cell = Cell("chinese_clip/vit_h_14", stage, TARGETS["v5e"], "dots")
    key = cell.key("data", cells.FIRST)
    assert key.place == "v5e:2x4" and cell.mesh({}) == "data"
    assert cell.mesh({key: replace(STEP, needed=16 * GIB)}) == "fsdp"
    elsewhere = replace(key, place="h100:8", mesh="fsdp", remat="layers")
    assert cell.mesh({elsewhere: replace(STEP, whole=12 * GIB, gradients=4 * GIB)}) == "fsdp"
    assert cell.mesh({elsewhere: replace(STEP, whole=8 * GIB, gradients=4 * GIB)}) == "data"


def test_rows_are_written_for_what_is_known():
    stage = load_config("chinese_clip/vit_b_16").stages[1]
    cell = Cell("chinese_clip/vit_b_16", stage, TARGETS["v5e"], "dots")
    known = {cell.key("data", pairs): step for pairs, step in steps((16, 4), (96, 14)).steps}
    (row,) = [line for line in devices.target_table("v5e", known).splitlines() if "vit_b_16" in line]
    # 103 pairs fit, so 16,384 pairs need 256 devices with 64 each: 10 GiB, and 64 x (1/16 + 1/32) s + links.
    recipe, batch, mesh, arithmetic, largest, shape, memory, *_ = map(str.strip, row.strip("|").split("|"))
    assert (recipe, batch, mesh) == ("chinese_clip/vit_b_16 2", "16,384", "data")
    assert (arithmetic, largest, shape, memory) == ("100", "96", "16x16", "10.0")
    assert devices.target_table("v5p", known) == "Not compiled yet.\n"


def test_the_largest_batch_is_that_of_the_line_or_of_a_larger_compiled_one():
    def largest(*needed: tuple[int, int]) -> str:
        return devices._largest(steps(*needed))

    assert largest((16, 4), (96, 14)) == "96"  # 103, in eights
    assert largest((16, 4), (32, 6)) == "~96"  # no batch near 103 is compiled
    assert largest((16, 4), (96, 20), (104, 14)) == "104"  # the line crosses the memory at 70
    assert largest((16, 20), (32, 24)) == "none"


def test_the_devices_column_has_no_larger_batch_than_the_largest_one():
    known = compiled.RECORDS.read()
    for cell in cells.cells(RECIPES, SHOWN):
        found = cell.line(known)
        if found and found.accounted and (place := smallest(found, cell.stage.batch_size)):
            largest = int(devices._largest(found).strip("~").replace(",", ""))
            on_eight = cell.mesh(known) == "data" or place.devices == cells.DEVICES
            assert not on_eight or cell.stage.batch_size // place.devices < largest + 8


def test_a_cell_has_its_steps_and_no_others():
    stage = load_config("chinese_clip/vit_b_16").stages[1]
    cell = Cell("chinese_clip/vit_b_16", stage, TARGETS["a100-40"], "dots")
    key = Key("chinese_clip/vit_b_16", "everything", "a100:8", "fsdp", "dots", 123)
    assert cell.has(key) and cell.has(replace(key, mesh="data", pairs=16))
    for other in (replace(key, place="a100:8x8"), replace(key, remat="layers"), replace(key, stage="image-frozen")):
        assert not cell.has(other)


def test_the_page_is_right_about_the_jump_of_rn50():
    text = devices.FILE.read_text(encoding="utf-8")
    known = compiled.RECORDS.read()
    for place, pairs in (("h100:8", 2336), ("h100:8", 2344), ("a100:8", 3144)):
        step = known[Key("chinese_clip/rn50", "everything", place, "data", "dots", pairs)]
        assert f"{pairs:,}" in text and f" {gib(step.needed)}" in text


def test_cells_are_every_stage():
    # Eight models with two stages, of which one continues another with one stage; RN50 is for GPUs only.
    assert len(cells.cells(RECIPES, ["a100"], ["dots"])) == 15
    assert len(cells.cells(RECIPES, ["v5e"], ["dots"])) == 13
    assert len(cells.cells(RECIPES, ["v5e", "a100"])) == 56
    assert len(cells.cells(RECIPES, ["v5e", "h100"])) == 41  # an H100 has no "layers"
