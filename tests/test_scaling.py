"""docs/scaling.md shows what was compiled; the model of the losses, fitted to costs that follow it."""

import io
import re
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from docs import compiled, losses, published, scaling
from docs.compiled import Series, Step, Times
from docs.losses import Cost, Key
from docs.scaling_model import Scaled, fitted
from docs.tables import milliseconds, rewritten
from jclip.accelerators.compiler import CompilerFailed
from jclip.accelerators.targets import TARGETS, parse_place
from jclip.configs.loading import load_config
from jclip.console import Console
from jclip.units import format_size
from tests.test_devices import STEP, steps

ROOT = Path(__file__).parents[1]


def test_the_page_shows_what_was_compiled():
    text = scaling.FILE.read_text(encoding="utf-8")
    parts = scaling.tables(compiled.RECORDS.read(), losses.RECORDS.read())
    assert rewritten(text, parts) == text, "run: python -m docs.scaling --draw"
    assert set(re.findall(r"<!-- ([\w-]+) -->", text)) == {*parts, "end"}


def test_what_a_compiler_refuses_does_not_stop_the_others(tmp_path, monkeypatch):
    """The first loss and the first step fail; the others are compiled, and the files have them."""
    refused: dict[type, object] = {}

    def compile_one(result, process, key):
        if refused.setdefault(type(key), key) == key:
            raise CompilerFailed(f"refused: {key.place}")
        return result

    for module, name, result in ((losses, "compile_loss", cost("ring", 8, 8)), (compiled, "compile_step", STEP)):
        monkeypatch.setattr(module, "RECORDS", replace(module.RECORDS, file=tmp_path / f"{name}.json"))
        monkeypatch.setattr(scaling, name, partial(compile_one, result))
    monkeypatch.setattr(scaling, "CompilerProcess", lambda place: nullcontext())
    told = io.StringIO()
    scaling.compile_all({}, {}, Console(file=told))
    assert losses.RECORDS.read().keys() == set(losses.wanted()) - set(refused.values())
    assert compiled.RECORDS.read().keys() == set(scaling.wanted()) - set(refused.values())
    assert told.getvalue().count("refused: v5e") == 2


def test_every_compiled_loss_is_wanted():
    assert set(losses.RECORDS.read()) <= set(losses.wanted())


def cost(form: str, pairs: int, devices: int) -> Cost:
    """Returns a cost of 2 logits, 3 features and 1,000 bytes; 1.5 features are sent."""
    columns = losses.columns(form, pairs, devices)
    needed = 4 * (2 * pairs * columns + 3 * 512 * (columns if form == "dense" else pairs)) + 1000
    sent = 3 * 512 * 2 * pairs * (devices - 1)
    return Cost(needed, {"all-gather": sent}, {"all-gather": 4 * losses.rounds(form, pairs, devices)}, 0.1, 1.0)


PLACES = {"v5e:2x4": 8, "v5e:8x8": 64, "v5e:16x16": 256}


@pytest.fixture(name="costs")
def _costs():
    return {
        Key(form, place, pairs): cost(form, pairs, devices)
        for form in losses.FORMS
        for place, devices in PLACES.items()
        for pairs in (128, 300, 2048, 32_768 // devices)
    }


@pytest.mark.parametrize("form", losses.FORMS)
def test_the_fit_finds_the_model(costs, form):
    found = fitted(costs, form, "tpu")
    assert found.error < 1e-6
    assert found.needed(100, 1024) == pytest.approx(cost(form, 100, 1024).needed)
    assert found.wire(100, 1024) == pytest.approx(3 * 512 * 2 * 100 * 1023)
    assert found.waits(100, 1024) == pytest.approx(40e-6 * losses.rounds(form, 100, 1024))
    assert fitted(costs, form, "cuda") is None


def test_a_step_has_the_loss_of_its_form(costs):
    forms = {form: fitted(costs, form, "tpu") for form in losses.FORMS}
    model = Scaled(steps((16, 4), (32, 6)), forms)
    assert model.needed("ring", 32, 8) == 6 * 2**30
    # The logits of 32 images and all texts, twice, and three features of each text; the ring holds 32 x 32, and 32.
    more = 4 * (2 * 32 * (8192 - 32) + 3 * 512 * (8192 - 32))
    assert model.needed("dense", 32, 256) - model.needed("ring", 32, 256) == pytest.approx(more)
    assert model.links("dense", 32, 1) == 0
    v5e = TARGETS["v5e"]
    gradients = 7e9 / (7 / 8) * 255 / 256  # the steps send 7 GB on eight devices, whatever their batch
    assert model.links("dense", 32, 256) == pytest.approx((gradients + 3 * 512 * 2 * 32 * 255) / v5e.link)
    # 32 pairs take 2 + 1 s, with the loss's products at the peak rate; in full precision they take six times as long.
    pair = 4 * 2 * 32 * 32 * 512 / v5e.peak
    assert model.computing("ring", 32, 256) == pytest.approx(3 - 8 * pair + 256 * 6 * pair)
    assert model.possible(256) and not model.possible(1024) and not model.possible(12)


def test_limits_are_the_devices_from_which_a_form_does_not_fit(costs):
    forms = {form: fitted(costs, form, "tpu") for form in losses.FORMS}
    found = steps((16, 4), (32, 6))
    large = replace(found.target, arrangement=TARGETS["v5p"].arrangement)
    model = Scaled(replace(found, target=large), forms)
    # 9 GiB are left. Dense needs 4 x (2 x 32 + 3 x 512) bytes a text, so 1.5 million: not with 524,288.
    assert scaling._limit(model, "dense", 32) == "- / -"
    # 100 pairs: 14.5 GiB; 0.46 are left, for 4 x (2 x 100 + 3 x 512) bytes a text: 71,500 texts, not 102,400.
    assert scaling._limit(model, "dense", 100).startswith("1,024 / ")
    assert scaling._limit(model, "dense", 200) == "the step does not fit"
    # A v5e has no slice of 2,048 chips.
    assert scaling._limit(Scaled(found, forms), "dense", 100).startswith("- / ")
    assert scaling._counts(Scaled(found, forms)) == [8, 16, 32, 64, 128, 256]


def test_split_parameters_beyond_eight_devices_are_divided_data(costs):
    forms = {form: fitted(costs, form, "tpu") for form in losses.FORMS}
    replicated = steps((16, 4), (32, 6))  # 2 GiB without pairs
    split = replace(steps((16, 3), (32, 7)), mesh="fsdp")
    model = Scaled(split, forms, replicated)
    assert model.needed("ring", 32, 8) == 7 * 2**30
    assert model.needed("ring", 32, 64) == pytest.approx((4 + 2 / 64) * 2**30)
    # The optimizer's traffic for 1 GiB of gradients is 7 GiB.
    whole = Scaled(replicated, forms).computing("ring", 32, 64)
    saved = 7 * 2**30 * (1 - 1 / 64) / replicated.target.bandwidth
    assert model.computing("ring", 32, 64) == pytest.approx(whole - saved)
    assert model.computing("ring", 32, 8) == pytest.approx(Scaled(split, forms).computing("ring", 32, 8))


def test_the_model_is_near_the_compiled_steps():
    known, costs = compiled.RECORDS.read(), losses.RECORDS.read()
    checked = 0
    for name, mesh, pairs in scaling.CHECKS:
        place = parse_place(name)
        key = compiled.Key(scaling.RECIPE, scaling.STAGE, name, mesh, scaling.REMAT, pairs)
        model = scaling.scaled(known, costs, place.target.name, mesh)
        if model is None or not (step := known.get(key)):
            continue
        checked += 1
        assert model.needed("ring", pairs, place.devices) == pytest.approx(step.needed, rel=0.03), key
        compiled_time = step.times[place.target.name].computing
        assert model.computing("ring", pairs, place.devices) == pytest.approx(compiled_time, rel=0.05), key
    assert checked >= 5  # of those that are compiled


def test_the_page_says_how_far_steps_are_compiled():
    key = compiled.Key(scaling.RECIPE, scaling.STAGE, "v5e:2x4", "data", scaling.REMAT, 16)
    known = {key: STEP, replace(key, place="v5e:8x8"): STEP, replace(key, place="v5e:16x16"): replace(STEP, flops=0)}
    assert scaling.extent(known).startswith("Whole steps are compiled for up to 64 v5e.")
    costs = losses.RECORDS.read()
    on_more = [place for place, *_ in scaling.CHECKS]
    few = {key: step for key, step in compiled.RECORDS.read().items() if key.place not in on_more}
    assert scaling.check_table(few, costs).count("| - |") == 3 * len(scaling.CHECKS)


def test_one_device_has_the_same_program_on_both_meshes():
    found = scaling.growth_table(compiled.RECORDS.read(), losses.RECORDS.read(), fixed=True)
    cells = [[cell.strip() for cell in line.split("|")] for line in found.splitlines()[2:]]
    assert {mesh: bool(one) for _, _, mesh, _, one, *_ in cells} == {"data": True, "fsdp": False}


def test_the_page_is_right_about_split_parameters_on_eight_devices():
    text, known = scaling.FILE.read_text(encoding="utf-8"), compiled.RECORDS.read()

    def step(place: str, mesh: str, pairs: int) -> Step:
        return known[compiled.Key(scaling.RECIPE, scaling.STAGE, place, mesh, scaling.REMAT, pairs)]

    def of_a_pair(place: str, mesh: str, many: int) -> str:
        return f"{(step(place, mesh, many).needed - step(place, mesh, 16).needed) / (many - 16) / 2**20:.0f}"

    split, whole = (milliseconds(step("v5e:2x4", mesh, 64).times["v5e"].computing) for mesh in ("fsdp", "data"))
    assert f"computing takes {split} ms for 64 pairs, and {whole} ms with" in text
    v5e, h100 = ([of_a_pair(place, mesh, many) for mesh in ("fsdp", "data")] for place, many in LARGER)
    assert f"{v5e[0]} MiB instead of {v5e[1]} on v5e, and {h100[0]} instead of {h100[1]} on H100" in text


LARGER = (("v5e:2x4", 64), ("h100:8", 128))


def test_the_page_is_right_about_tensor():
    """States of 12 layers in bfloat16: 197 patches and 52 tokens of width 768, in rings of 8 devices."""
    few, many = (
        12 * (image * 197 + text * 52) * 768 * 2 * 2 * 7 / 8 for image, text in ((2 + 2, 2 + 3), (2 + 3, 2 + 2))
    )
    text = scaling.FILE.read_text(encoding="utf-8")
    assert f"each would send {few / 1e6:.0f} to {many / 1e6:.0f} MB for every pair" in text
    times = [512 * each / TARGETS["v5e"].link for each in (few, many)]
    assert "about 90 ms" in text and times[0] < 0.09 < times[1]


def test_the_share_of_computation_has_the_loss_of_all_texts(costs):
    forms = {form: fitted(costs, form, "tpu") for form in losses.FORMS}
    tiny = [
        (pairs, replace(step, times={"v5e": Times(pairs * 1e-6, 0.0, 0.0)}, sent={}))
        for pairs, step in steps((16, 4), (128, 6)).steps
    ]
    model = Scaled(replace(steps((16, 4)), steps=tuple(tiny)), forms)
    computing, total = model.computing("ring", 128, 256), model.seconds("ring", 128, 256)
    assert computing > 4 * model.series.computing(128)
    assert scaling._cell(model, "ring", 256, fixed=True).endswith(f" {computing / total:.0%}")


def test_forms_are_compared_for_one_batch(costs):
    _, _, dense, _, ring = scaling.form_table(costs).splitlines()
    few, many = cost("dense", 4096, 8).needed, [cost("dense", pairs, 32_768 // pairs).needed for pairs in (128, 512)]
    sizes = f"{format_size(few)} | {format_size(min(many))} to {format_size(max(many))}"
    assert dense == f"| dense | {sizes} | 1.0 |" and ring.endswith("| 1.0 |")
    assert "dense" not in scaling.form_table({key: each for key, each in costs.items() if key.form != "dense"})


def test_the_page_is_right_about_collectives():
    for key, found in losses.RECORDS.read().items():
        place = parse_place(key.place)
        if key.form == "chunked" and place.target.platform == "tpu" and place.devices >= 64:
            assert set(found.times) == {"all-reduce", "all-to-all"}
        if key.form == "ring" and place.devices > 1:
            assert found.times["collective-permute"] == place.devices * (9 if place.target.platform == "tpu" else 2)


def test_the_rates_are_those_of_the_results():
    text = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    section = text.partition("## Decoding and augmentation\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| \d+ \| \d+ \| (\d+) \|", section, re.MULTILINE)
    assert {int(side): int(rate) for side, rate in rows} == published.IMAGES


def test_a_host_needs_cores_for_its_devices():
    key = compiled.Key("chinese_clip/vit_b_16", "everything", "v5e:2x4", "data", "dots", 16)
    known = {replace(key, pairs=pairs): replace(step, sent={}) for pairs, step in steps((16, 4), (96, 14)).steps}
    (row,) = [line for line in published.input_table(known).splitlines() if "vit_b_16" in line]
    # A pair takes 1/16 + 1/32 s: 10.67 pairs/s a device, 42.67 a host of four; 414, 207.5 and 153.5 images/s a core.
    assert [each.strip() for each in row.split("|")][3:8] == ["11", "43", "0", "0", "0"]


def test_published_runs_are_counted_by_hand():
    table = published.published_table({})
    # 44 epochs of 200 million pairs in 4.5 days on 128 devices.
    rate = 44 * 200e6 / 128 / (4.5 * 86_400)
    (row,) = [line for line in table.splitlines() if "vit_b_16 1" in line]
    assert f"| 128 x v100 | 256 | 4.5 | {rate:,.0f} |" in row and rate == pytest.approx(176.8, abs=0.1)


def test_the_published_runs_are_summed_up():
    assert published.conclusion({}) == ""
    key = compiled.Key("chinese_clip/vit_b_16", "image-frozen", "v100:8", "data", "dots", 16)
    known = {
        replace(key, pairs=pairs): replace(step, sent={}, times={"v100": Times(0.0, pairs / 256, 0.0)})
        for pairs, step in steps((16, 4), (96, 14)).steps
    }
    # 256 pairs: 34 GiB and a second; 44 x 200 million pairs in steps of 32,768.
    spare = TARGETS["v100"].memory / 2**30 - 34
    ratio = 4.5 * 86_400 / (44 * 200e6 / 32_768)
    assert f"leave {spare:.1f} GiB" in published.conclusion(known)
    assert f"{ratio:.1f} to {ratio:.1f} times" in published.conclusion(known)


def test_a_published_run_on_a_target_with_one_batch_begins_where_its_leader_does():
    def known(place: str, found: Series) -> dict[compiled.Key, Step]:
        key = compiled.Key("chinese_clip/vit_b_16", "image-frozen", place, "data", "dots", 16)
        name = parse_place(place).target.name
        return {
            replace(key, pairs=pairs): replace(step, sent={}, times={name: Times(pairs, pairs / 2, 0.0)})
            for pairs, step in found.steps
        }

    a100, v100 = known("a100:8", steps((16, 4), (96, 14))), known("v100:8", steps((512, 18)))
    (row,) = [line for line in published.published_table(a100 | v100).splitlines() if "vit_b_16 1" in line]
    # 256 pairs: half of the 16 GiB beside 2; 44 x 200 million pairs in steps of 32,768, in float16.
    seconds = 256 * 15.7 / 125 + 128
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[7] == "10.0" and float(cells[8]) == pytest.approx(seconds * 44 * 200e6 / 32_768 / 86_400, rel=0.05)


def test_every_estimate_is_above_zero():
    known = compiled.RECORDS.read()
    for table in (published.input_table(known), published.published_table(known), published.flash_table(known)):
        figures = re.findall(r"\| (-?[\d,.]+)(?= )", table)
        assert figures and all(float(figure.replace(",", "")) > 0 for figure in figures), table
    stages = {(key.recipe, key.stage) for key in known if key.place == "v100:8"}
    missing = [line for line in published.published_table(known).splitlines() if "v100 |" in line and "| - |" in line]
    assert len(missing) == sum(run.target == "v100" and _stage(run) not in stages for run in published.RUNS)


def _stage(run: published.Published) -> tuple[str, str]:
    return run.recipe, load_config(run.recipe).stages[run.stage].name
