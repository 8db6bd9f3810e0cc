"""Compiles losses and steps for 1 to 1,024 devices, and draws docs/scaling.md.

    python -m docs.scaling            # compile what is missing in docs/losses.json and docs/compiled.json
    python -m docs.scaling --draw     # only the page

An interrupted command continues.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from docs import compiled, losses, published
from docs.compiled import Key, Series, Steps, compile_step
from docs.losses import BATCH, FORMS, PER_DEVICE, Costs, compile_loss
from docs.records import Records, unless_refused
from docs.scaling_model import Scaled, fitted
from docs.tables import gib, milliseconds, rewritten, table
from jclip.accelerators.compiler_process import CompilerProcess
from jclip.accelerators.targets import TARGETS, parse_place
from jclip.console import Console
from jclip.errors import JclipError
from jclip.losses.contrastive import Impl
from jclip.models.compute import Remat
from jclip.units import format_size

FILE = Path(__file__).with_suffix(".md")
RECIPE, STAGE = "chinese_clip/vit_b_16", "everything"
REMAT: Remat = "dots"
SERIES = (
    ("v5e:2x4", "data", (16, 64)), ("v5e:2x4", "fsdp", (16, 64)),
    ("h100:8", "data", (16, 128)), ("h100:8", "fsdp", (16, 128)),
)  # fmt: skip
"""Places, meshes and pairs per device of the steps to which the model is fitted."""
CHECKS = (
    ("v5e:8x8", "data", 64), ("v5e:16x16", "data", 64), ("v5e:8x8", "fsdp", 64), ("v5e:16x16", "fsdp", 64),
    ("h100:8x8", "data", 128), ("h100:32x8", "data", 128), ("h100:8x8", "fsdp", 128), ("h100:32x8", "fsdp", 128),
)  # fmt: skip
"""Larger places, meshes and pairs per device of the steps with which the model is compared."""
SIZES = (1, 8, 64, 256, 1024)
TARGETS_SHOWN = ("v5e", "h100")
LIMIT_PAIRS = (64, 256, 1024)


def wanted() -> Iterator[Key]:
    """Yields the steps to compile."""
    for place, mesh, batches in SERIES:
        for pairs in batches:
            yield Key(RECIPE, STAGE, place, mesh, REMAT, pairs)
    for place, mesh, pairs in CHECKS:
        yield Key(RECIPE, STAGE, place, mesh, REMAT, pairs)


def compile_all(steps: Steps, costs: Costs, console: Console) -> None:
    """Compiles the missing losses and steps, and adds them to the files. Skips those that a compiler refuses."""
    missing = [key for key in losses.wanted() if key not in costs]
    _compile(missing, losses.RECORDS, compile_loss, console)
    lacking = [key for key in wanted() if key not in steps]
    _compile(lacking, compiled.RECORDS, compile_step, console)


def _compile(missing: Sequence[Any], records: Records[Any, Any], compile_one: Any, console: Console) -> None:
    """Compiles what is missing in a file, and adds each to it at once."""
    for number, key in enumerate(missing, 1):
        words = " ".join(map(str, vars(key).values()))
        console.tell(f"{number} of {len(missing)}: {words} pairs a device")
        with CompilerProcess(parse_place(key.place)) as process:
            value = unless_refused(partial(compile_one, process, key), console)
        if value is not None:
            records.add(key, value)


def loss_table(costs: Costs, *, fixed: bool) -> str:
    """Returns the compiled losses: with PER_DEVICE pairs on each device, or BATCH pairs on all."""
    rows = []
    for name in losses.PLACES:
        devices = parse_place(name).devices
        pairs = PER_DEVICE if fixed else BATCH // devices
        for form in FORMS:
            cost = costs.get(losses.Key(form, name, pairs))
            if cost is None or (not fixed and devices == 1):
                continue
            kinds = ", ".join(f"{count} {kind}" for kind, count in cost.times.items())
            row = (format_size(cost.needed), format_size(4 * pairs * losses.columns(form, pairs, devices)))
            sent = format_size(sum(cost.sent.values()))
            rows.append((name, f"{pairs * devices:,}", form, *row, kinds, sent, f"{cost.links * 1e6:,.0f}"))
    head = ("place", "batch", "form", "memory", "logits at once", "collectives", "sent", "links, µs")
    return table(head, rows)


def form_table(costs: Costs) -> str:
    """Returns the memory of each form for BATCH pairs, and the bytes that it sends over those that "ring" sends."""
    rows = []
    for form in FORMS:
        known = [
            (place.devices, cost, costs.get(replace(key, form="ring")))
            for key, cost in costs.items()
            if key.form == form and key.pairs * (place := parse_place(key.place)).devices == BATCH
        ]
        few = [cost.needed for devices, cost, _ in known if devices == 8]
        many = [cost.needed for devices, cost, _ in known if devices >= 64]
        ratios = [sum(cost.sent.values()) / sum(ring.sent.values()) for _, cost, ring in known if ring]
        if few and many and ratios:
            rows.append((form, _range(few, format_size), _range(many, format_size), _range(ratios, "{:.1f}".format)))
    return table(("form", "memory on 8 devices", "on 64 and more", "bytes sent, over those of the ring"), rows)


def _range(values: Sequence[Any], shown: Callable[[Any], str]) -> str:
    """Returns "LOWEST to HIGHEST", or one of them if both look the same."""
    return " to ".join(dict.fromkeys((shown(min(values)), shown(max(values)))))


def fit_table(costs: Costs) -> str:
    """Returns the coefficients of the model of the losses."""
    rows = []
    for platform in ("tpu", "cuda"):
        for form in FORMS:
            found = fitted(costs, form, platform)
            if found:
                cells = (f"{found.logits:.2f}", f"{found.features:.2f}", format_size(found.fixed), f"{found.error:.0%}")
                rows.append((platform, form, *cells, f"{found.sent:.2f}", f"{found.collectives:.1f}"))
    head = (
        "compiler", "form", "logits", "features", "fixed", "largest error", "sent", "collectives a round",
    )  # fmt: skip
    return table(head, rows)


def check_table(steps: Steps, costs: Costs) -> str:
    """Returns the steps on larger places, as compiled ("-" if they are not) and as the model has them."""
    rows = []
    for name, mesh, pairs in CHECKS:
        step, place = steps.get(Key(RECIPE, STAGE, name, mesh, REMAT, pairs)), parse_place(name)
        model = scaled(steps, costs, place.target.name, mesh)
        if model is None:
            continue
        devices = place.devices
        needed, computing = model.needed("ring", pairs, devices), model.computing("ring", pairs, devices)
        links = milliseconds(model.links("ring", pairs, devices))
        cells = ["-", gib(needed), "", "-", milliseconds(computing), "", "-", links]
        if step is not None and step.flops:
            one = Series(place.target, devices, ((pairs, step),))
            known = one.computing(pairs)
            cells = [
                *(gib(step.needed), gib(needed), f"{needed / step.needed - 1:+.1%}"),
                *(milliseconds(known), milliseconds(computing), f"{computing / known - 1:+.1%}"),
                *(milliseconds(one.links(pairs, devices)), links),
            ]
        rows.append((name, mesh, f"{pairs}", *cells))
    head = (
        "place", "mesh", "pairs a device", "GiB, compiled", "model", "", "computing, ms, compiled", "model", "",
        "links, ms, compiled", "model",
    )  # fmt: skip
    return table(head, rows)


def extent(steps: Steps) -> str:
    """Returns a sentence with the largest places for which steps are compiled."""
    keys = [key for key, step in steps.items() if (key.recipe, key.stage) == (RECIPE, STAGE) and step.flops]
    found = [parse_place(key.place) for key in keys]
    most = {each.target.name: each.devices for each in sorted(found, key=lambda place: place.devices)}
    words = " and ".join(f"{most[target]:,} {target}" for target in TARGETS_SHOWN if target in most)
    return f"Whole steps are compiled for up to {words}. Figures of steps on more devices are those of the model.\n"


def batches(steps: Steps) -> str:
    """Returns a sentence with the batches to which the lines of the model are fitted."""
    parts = []
    for target in TARGETS_SHOWN:
        for mesh in compiled.MESHES:
            found = compiled.series(steps, RECIPE, STAGE, target, mesh, REMAT)
            if found and found.accounted:
                *most, last = [f"{pairs:,}" for pairs, _ in found.steps]
                parts.append(f'{", ".join(most)} and {last} for {target} with "{mesh}"')
    return f"Pairs per device of these batches: {'; '.join(parts)}.\n"


def scaled(steps: Steps, costs: Costs, target: str, mesh: str) -> Scaled | None:
    """Returns the model of the steps on a target and mesh; None if too little is compiled."""
    found = compiled.series(steps, RECIPE, STAGE, target, mesh, REMAT)
    platform = TARGETS[target].platform
    forms = {form: model for form in FORMS if (model := fitted(costs, form, platform)) is not None}
    if found is None or not found.accounted or len(found.steps) < 2 or len(forms) < len(FORMS):
        return None
    if mesh == "data":
        return Scaled(found, forms)
    replicated = compiled.series(steps, RECIPE, STAGE, target, "data", REMAT)
    return Scaled(found, forms, replicated) if replicated and replicated.accounted else None


def growth_table(steps: Steps, costs: Costs, *, fixed: bool) -> str:
    """Returns memory and time of a device on 1 to 1,024 devices, for each mesh and form."""
    rows = []
    for target in TARGETS_SHOWN:
        for mesh in compiled.MESHES:
            model = scaled(steps, costs, target, mesh)
            for form in FORMS if model else ():
                assert model is not None
                cells = [_cell(model, form, devices, fixed) for devices in SIZES]
                # On one device all meshes are the same program, which "data" describes.
                rows.append((target, mesh, form, *(cells if mesh == "data" else ("", *cells[1:]))))
    head = ("target", "mesh", "form", *(f"{devices:,}" for devices in SIZES))
    return table(head, rows)


def _cell(model: Scaled, form: Impl, devices: int, fixed: bool) -> str:
    """Returns "GiB, ms, share of the step that is computation" of a device; "-" if the target is not so large."""
    pairs = PER_DEVICE if fixed else BATCH // devices
    if not model.possible(devices):
        return "-"
    needed = model.needed(form, pairs, devices)
    if not model.fits(form, pairs, devices):
        return f"{gib(needed)}, too much"
    total = model.seconds(form, pairs, devices)
    return f"{gib(needed)}, {milliseconds(total)}, {model.computing(form, pairs, devices) / total:.0%}"


def limits_table(steps: Steps, costs: Costs) -> str:
    """Returns the number of devices from which each form is too large or too slow, by pairs per device."""
    rows = []
    for target in TARGETS_SHOWN:
        model = scaled(steps, costs, target, "data")
        for form in FORMS if model else ():
            assert model is not None
            cells = [_limit(model, form, pairs) for pairs in LIMIT_PAIRS]
            rows.append((target, f"{max(_counts(model)):,}", form, *cells))
    return table(("target", "devices up to", "form", *(f"{pairs:,} pairs a device" for pairs in LIMIT_PAIRS)), rows)


def _counts(model: Scaled) -> list[int]:
    """Returns powers of two, from 8 to 16,384 devices, as far as the target has that number."""
    return [count for power in range(3, 15) if model.possible(count := 1 << power)]


def _limit(model: Scaled, form: Impl, pairs: int) -> str:
    """Returns the limits of a form: devices on which it needs too much memory, or a tenth of the step's time."""
    alone = model.series.computing(pairs)
    if not model.series.fits(pairs, model.series.devices):
        return "the step does not fit"

    def memory(devices: int) -> bool:
        return not model.fits(form, pairs, devices)

    def time(devices: int) -> bool:
        spent = model.seconds(form, pairs, devices) - model.series.links(0, devices)
        return spent - alone > 0.1 * spent

    large, slow = (next((f"{count:,}" for count in _counts(model) if found(count)), "-") for found in (memory, time))
    return f"{large} / {slow}"


def tables(steps: Steps, costs: Costs) -> dict[str, str]:
    """Returns the generated parts of docs/scaling.md by name."""
    return {
        "losses-fixed": loss_table(costs, fixed=True),
        "losses-batch": loss_table(costs, fixed=False),
        "forms": form_table(costs),
        "fit": fit_table(costs),
        "extent": extent(steps),
        "batches": batches(steps),
        "check": check_table(steps, costs),
        "growth-fixed": growth_table(steps, costs, fixed=True),
        "growth-batch": growth_table(steps, costs, fixed=False),
        "limits": limits_table(steps, costs),
        "input": published.input_table(steps),
        "published": published.published_table(steps),
        "conclusion": published.conclusion(steps),
        "flash": published.flash_table(steps),
    }


def draw(steps: Steps, costs: Costs) -> None:
    """Rewrites the tables of docs/scaling.md."""
    FILE.write_text(rewritten(FILE.read_text(encoding="utf-8"), tables(steps, costs)), encoding="utf-8")


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="compile nothing")
    options = parser.parse_args()
    console = Console()
    if not options.draw:
        try:
            compile_all(compiled.RECORDS.read(), losses.RECORDS.read(), console)
        except (KeyboardInterrupt, JclipError) as error:
            console.tell(f"Stopped{f': {error}' if str(error) else ''}. The same command continues.")
    draw(compiled.RECORDS.read(), losses.RECORDS.read())


if __name__ == "__main__":
    main()
