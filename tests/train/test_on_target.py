"""Plans for a target, with the CPU's compiler in place of the target's: what is asked of it, and what is printed."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

import jclip.train
from jclip.accelerators.compiler import Compiled, CompilerFailed
from jclip.accelerators.targets import TARGETS, parse_place
from jclip.cli import main
from jclip.cli.plan_target import as_record, show_measured, show_target
from jclip.errors import JclipError
from jclip.extras import MissingExtra
from jclip.parallel.sharding import bytes_per_device
from jclip.train.assembly import assemble, devices_of
from jclip.train.planning import measuring, on_target, run_plan
from jclip.train.planning.measuring import measure
from jclip.train.planning.run_plan import plan
from jclip.train.planning.stage_plan import argument_bytes, device_bytes
from tests.train.toy import toy_run

GIB = 2**30
CONFIG = str(Path(__file__).with_name("toy.py"))


class CpuCompiler:
    """Compiler of a place with 8 devices, which are those of the tests."""

    def __init__(self, place):
        self.place, self.devices = place, jax.devices()[: place.devices]

    def compile(self, lowered, words):
        program = lowered.compile()
        found = program.memory_analysis()
        arguments = found.argument_size_in_bytes
        needed = arguments + found.temp_size_in_bytes
        return Compiled(needed, self.place.target.memory, arguments, program.as_text(), 0.1)


class Compilers:
    """Compilers' processes that are this one.

    Attributes:
      calls: (function, stage, batch) of every call, and "closed".
      failing: numbers of the calls that fail.
    """

    def __init__(self, monkeypatch):
        self._monkeypatch, self.calls, self.failing, self.seconds = monkeypatch, [], (), None

    def limit(self, memory):
        self._monkeypatch.setitem(TARGETS, "v5e", replace(TARGETS["v5e"], memory=memory))

    def process(self, place, *, seconds, more_time, progress):
        assert "jclip plan --minutes" in more_time
        self.seconds = seconds
        return Process(self, CpuCompiler(place))


class Process:
    def __init__(self, compilers, compiler):
        self._compilers, self._compiler = compilers, compiler

    def __enter__(self):
        return self

    def __exit__(self, *reason):
        self._compilers.calls.append("closed")

    def call(self, function, run, index):
        calls = self._compilers.calls
        calls.append((function.__name__, index, run.stages[index].batch_size))
        if len(calls) in self._compilers.failing:
            raise CompilerFailed("v5e:2x4: the compiler's process failed: it took longer than 2 s")
        return function(self._compiler, run, index)


@pytest.fixture
def compilers(monkeypatch):
    made = Compilers(monkeypatch)
    monkeypatch.setattr(on_target, "CompilerProcess", made.process)
    return made


@pytest.fixture
def run(tmp_path):
    return toy_run(tmp_path)


def test_every_stage_is_compiled_once(run, compilers):
    said = []
    found = plan(run, on="v5e:2x4", largest_batch=False, seconds=60, progress=said.append)
    assert compilers.calls == [("assemble_stage", 0, 8), ("assemble_stage", 1, 8), "closed"]
    assert compilers.seconds == 60 and said[0] == "v5e:2x4: stage 1 of 2 (image-frozen): loading the compiler"
    assert found.place == parse_place("v5e:2x4") and found.fit is None
    assert [stage.devices for stage in found.stages] == [8, 8]
    choices = [(stage.remat, stage.remat_reason.partition(" ")[0]) for stage in found.stages]
    assert choices == [("dots", "about"), ("dots", "about")]  # small by an estimate, and a CPU's least
    uncompiled = plan(run, compiled=False).stages
    assert [replace(stage, remat="auto", remat_reason="") for stage in found.stages] == list(uncompiled)
    for step, stage in zip(found.on, found.stages, strict=True):
        assert step.state == stage.device_state_bytes < step.needed
        assert step.headroom == step.available - step.needed > 15 * GIB
        assert 0 < step.products < stage.flops_per_step
        assert step.communication["all-reduce"].wire > 0
        assert step.estimate.seconds > 0 and step.largest_batch is None


@pytest.mark.parametrize(("used", "needed"), [(-300, 1300), (0, 1000), (64, 1000)])  # TPUs pad arguments
def test_arguments_that_a_step_does_not_use_are_counted(used, needed, run):
    part = assemble(run, 0, devices_of(run))
    arguments = argument_bytes(part)
    # Parameters of everything on each device, two slots of those that train, and one row of the batch.
    assert part.stage.batch_size == 8 and arguments > bytes_per_device(part.state_shapes, part.shardings)

    class Fixed:
        def compile(self, lowered, words):
            return Compiled(1000, 2000, arguments + used, "", 0.1)

    assert on_target.compile_part(Fixed(), part).needed == needed


def test_the_largest_batch_is_looked_for(run, compilers):
    compilers.limit(8 << 20)
    found = plan(replace(run, stages=run.stages[:1]), on="v5e:2x4")
    assert found.on[0].largest_batch > 8 and found.on[0].largest_batch % 8 == 0
    asked = [call[2] for call in compilers.calls if call != "closed"]
    assert asked[:2] == [8, 16] and len(asked) <= 6 and found.on[0].largest_batch in asked
    assert found.on[0].too_large_batch in (None, *asked) and found.on[0].too_large_batch != found.on[0].largest_batch


def test_what_makes_it_fit_is_found_by_that_compiler(run, compilers):
    whole = plan(run, on="v5e:2x4", largest_batch=False)
    compilers.calls.clear()
    limit = max(step.needed for step in whole.on) - 1
    compilers.limit(limit)
    found = plan(run, on="v5e:2x4", largest_batch=False).fit
    assert found.memory == limit and found.needs == tuple(step.needed for step in whole.on)
    assert found.fits and found.overrides == ("--mesh.data", "1", "--mesh.fsdp", "8")
    # The stage that does not fit, and then the other one.
    assert [(name, index) for name, index, _ in compilers.calls[2:-1]] == [("compile_stage", 1), ("compile_stage", 0)]


def test_a_compiler_that_fails(run, compilers):
    compilers.failing = (2,)
    with pytest.raises(CompilerFailed, match="it took longer than 2 s"):
        plan(run, on="v5e:2x4")
    assert compilers.calls[-1] == "closed"
    compilers.calls.clear()
    compilers.failing = (2,)  # while it looks for the largest batch: the plan is made all the same
    (step,) = plan(replace(run, stages=run.stages[:1]), on="v5e:2x4").on
    assert (step.largest_batch, step.too_large_batch) == (8, None) and step.needed > 0
    assert step.search_failed.startswith("image-frozen: the search for the largest batch ended at 16: v5e:2x4: the")


@pytest.mark.parametrize(
    ("configured", "chosen", "batch"), [("auto", "dots", 944), ("auto", "layers", 1000), ("dots", "dots", 1000)]
)
def test_the_largest_batch_keeps_the_choice_of_remat(run, configured, chosen, batch):
    """A run with "auto" recomputes more above 95 % of the memory, unless it recomputes everything already."""
    asked = set()

    def need(changed, index):
        asked.add(changed.remat)
        return changed.stages[index].batch_size

    stage = SimpleNamespace(
        plan=SimpleNamespace(remat=chosen), parts=8, compiled=SimpleNamespace(needed=8, available=1000)
    )
    found, failed = on_target._largest_batch(replace(run, remat=configured), 0, stage, need)
    assert (found.fits, failed, asked) == (batch, "", {chosen})


def test_a_program_that_cannot_be_read(run, compilers, monkeypatch, capsys):
    """Its memory is known all the same."""

    def unread(text):
        raise JclipError("the compiler's text cannot be read at a shape")

    monkeypatch.setattr(on_target, "account", unread)
    found = plan(replace(run, stages=run.stages[:1]), on="v5e:2x4", largest_batch=False)
    (step,) = found.on
    assert step.needed > 0 and not step.refused and (step.products, step.estimate) == (None, None)
    show_target("toy", found.place, found.stages, found.on)
    printed = capsys.readouterr().out
    assert "Not in the estimate: the compiler's text cannot be read at a shape" in " ".join(printed.split())
    assert "refuses" not in printed and "headroom" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on": "v5:2x4"}, "'v5' is not a known target: did you mean v5p or v5e"),
        ({"on": "v5e:3x3"}, "v5e has no shape 3x3"),
        ({"on": "v5e:2x4", "memory": 16}, "--on compiles for v5e:2x4 and knows its memory and rates: omit --memory"),
        ({"on": "v5e:2x4", "tflops": 16}, "omit --tflops"),
        ({"on": "v5e:2x4", "compiled": False}, "omit --no-compile"),
        ({"on": "v5e:2x4", "seconds": 0}, "the time limit is 0 s; expected a number above 0"),
        ({"seconds": 60}, "--minutes is for a target's compiler: omit it, or add --on"),
        ({"largest_batch": False}, "--no-largest-batch is for a target's compiler"),
    ],
)
def test_bad_options(run, options, message, compilers):
    with pytest.raises(JclipError, match=message):
        plan(run, **options)
    assert compilers.calls == []


def test_a_run_that_does_not_suit_the_place(run, compilers):
    with pytest.raises(JclipError, match="a mesh of data=-1 x fsdp=3 x tensor=1 does not fit 8 devices"):
        plan(replace(run, mesh=replace(run.mesh, fsdp=3)), on="v5e:2x4")
    with pytest.raises(JclipError, match="batch of 12 is not divisible by 8 devices"):
        plan(replace(run, stages=(replace(run.stages[0], batch_size=12),)), on="v5e:2x4")


def test_a_compiler_that_is_not_installed(run, monkeypatch):
    monkeypatch.setattr("jclip.extras.find_spec", lambda module: None)
    for on, extra in (("v5e:2x4", "plan-tpu"), ("h100:8", "plan-cuda")):
        with pytest.raises(MissingExtra, match=rf'is not installed: pip install "jclip\[{extra}\]"$'):
            plan(run, on=on)


def test_for_people(compilers, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    command = ["plan", CONFIG, "--reduced", "--on", "v5e:2x4"]
    assert main([*command, "--no-largest-batch"]) == 0
    printed = capsys.readouterr().out
    for words in (
        "on v5e:2x4: 8 x TPU v5e, each",
        "headroom",
        "all-reduce: times, bytes sent",
        "Times are estimates",
        "Available is what its compiler lets a program use",
    ):
        assert words in printed
    assert "largest batch" not in printed and "too much" not in printed
    compilers.limit(1000)
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "KiB too much" in printed and "None of the settings tried" in printed and "none (8 does not fit)" in printed


def test_as_json(compilers, capsys):
    command = ["plan", CONFIG, "--reduced", "--on", "v5e:2x4", "--no-largest-batch", "--json"]
    assert main(command) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["place"]["target"]["peak"] == 197e12 and record["place"]["devices"] == 8
    for step in record["on"]:
        assert step["headroom"] == step["available"] - step["needed"] and step["seconds"] > 0
        assert step["communication"]["all-reduce"]["wire"] > 0
    assert len(record["assumptions"]) > 2 and record["measured"] == []


def test_targets_are_listed(capsys):
    assert main(["plan", "--targets"]) == 0
    printed = capsys.readouterr().out
    cores = [name for name, target in TARGETS.items() if getattr(target.arrangement, "devices_per_chip", 1) == 2]
    assert cores == ["v3", "tpu7x"] and "v3 and tpu7x have two devices a chip" in printed
    assert all(name in printed for name in TARGETS) and "Sources of v5e: Google Cloud TPU documentation" in printed
    assert main(["plan", "--targets", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in listed] == list(TARGETS) and "arrangement" in listed[0]


def test_a_list_of_targets_takes_no_configuration(capsys):
    assert main(["plan", CONFIG, "--targets"]) == 1
    assert f"--targets lists all devices and takes no CONFIG: omit {CONFIG}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--on", "h100"], "h100 needs a shape, such as h100:8"),
        (["--on", "v5e:2x4", "--devices", "8"], "--on v5e:2x4 has its own number of devices: omit --devices"),
        (["--on", "v5e:2x4", "--memory", "3"], "omit --memory"),
    ],
)
def test_bad_words(words, message, capsys):
    assert main(["plan", CONFIG, "--reduced", *words]) == 1
    assert message in capsys.readouterr().err


def test_measured_on_the_attached_devices(run, compilers, capsys, monkeypatch):
    found = jclip.train.plan(replace(run, stages=run.stages[:1]), on="v5e:2x4", largest_batch=False, measured=True)
    (step,) = found.measured
    assert (step.devices, step.kind, step.peak) == (8, "cpu", None) and 0 < step.seconds < 60
    monkeypatch.setenv("COLUMNS", "200")
    show_measured(found)
    printed = capsys.readouterr().out
    assert "measured on 8 x cpu, attached here" in printed and "pairs per second" in printed
    assert re.search(r"times the estimate +│ \(other devices\)", printed)
    for devices, kind, ratio in ((8, "TPU v5 lite", "2"), (4, "TPU v5 lite", "(other devices)")):
        seconds = 2 * found.on[0].estimate.seconds
        same = replace(step, devices=devices, kind=kind, seconds=seconds)
        show_measured(replace(found, measured=(same,)))
        assert re.search(rf"times the estimate +│ +{re.escape(ratio)} │", capsys.readouterr().out)


@pytest.mark.parametrize("on", [None, "v5e:2x4"])
def test_what_is_measured_is_what_was_planned(on, run, compilers, monkeypatch):
    """It has the `remat` that the plan chose."""
    measured = []
    monkeypatch.setattr(run_plan, "measure", lambda part, memory: measured.append(part))
    one = replace(run, stages=run.stages[:1])
    search = {"largest_batch": False} if on else {}
    (stage,) = plan(one, on=on, measured=True, **search).stages
    assert [part.remat for part in measured] == [stage.remat] == ["dots"]  # a CPU's least
    measured.clear()
    plan(replace(one, remat="layers"), on=on, measured=True, **search)
    assert [part.remat for part in measured] == ["layers"]


def test_measured_without_a_plan_of_the_memory(run, monkeypatch):
    """It has the `remat` that `jclip train` chooses."""
    measured = []
    monkeypatch.setattr(run_plan, "measure", lambda part, memory: measured.append(part))
    monkeypatch.setattr(run_plan, "least_device_memory", lambda: 1)
    plan(replace(run, stages=run.stages[:1]), compiled=False, measured=True)
    assert [part.remat for part in measured] == ["layers"]


def test_what_does_not_fit_the_attached_devices_is_not_run(compilers, capsys, monkeypatch):
    """The plan is printed all the same."""
    monkeypatch.setattr(run_plan, "least_device_memory", lambda: 1000)
    monkeypatch.setattr(measuring, "_random", lambda shapes: pytest.fail("allocates"))
    assert main(["plan", CONFIG, "--reduced", "--on", "v5e:2x4", "--no-largest-batch", "--measure"]) == 1
    out, err = capsys.readouterr()
    assert "headroom" in out
    assert re.search(r"not measured: stage 'image-frozen' needs .* on each attached device, and a program may use", err)


@pytest.mark.parametrize("message", ["RESOURCE_EXHAUSTED: out of memory", "INTERNAL: cuDNN"])
def test_a_step_that_fails_on_the_attached_devices(run, compilers, monkeypatch, message):
    def fail(part, memory):
        raise jax.errors.JaxRuntimeError(f"{message}\nmore")

    monkeypatch.setattr(run_plan, "measure", fail)
    found = plan(replace(run, stages=run.stages[:1]), on="v5e:2x4", largest_batch=False, measured=True)
    assert found.on and found.measured == ()
    assert found.not_measured == f"stage 'image-frozen' fails on the attached devices: {message}"


def test_what_the_attached_devices_cannot_run_is_refused_first(run, compilers):
    one = replace(run, stages=(replace(run.stages[0], batch_size=4),))
    with pytest.raises(JclipError, match="--measure needs a run that suits the attached devices, or omit it: .*batch"):
        plan(one, on="v5e:2x2", measured=True)
    assert compilers.calls == []


def test_what_was_compiled_for_the_memory_is_measured(run):
    part = assemble(run, 0, devices_of(run))
    device_bytes(part)
    (program,) = part._programs.values()
    object.__setattr__(part, "compiled", None)  # cannot be compiled again
    assert measure(part).seconds > 0 and list(part._programs.values()) == [program]


def test_a_step_that_the_compiler_refuses(run, compilers, capsys):
    """Its communication and time are null, and nothing is said about how times are estimated."""
    found = plan(replace(run, stages=run.stages[:1]), on="v5e:2x4", largest_batch=False)
    refused = replace(found.on[0], products=None, communication=None, estimate=None)
    record = as_record(replace(found, on=(refused,)))
    assert record["on"][0]["communication"] is None and record["assumptions"] == ()
    assert as_record(found)["on"][0]["communication"]
    show_target("toy", found.place, found.stages, (refused,))
    printed = capsys.readouterr().out
    assert refused.refused and "The compiler refuses a step" in printed and "Times are estimates" not in printed


def test_sentences_about_the_compilers_cycles(run, compilers, capsys):
    found = plan(replace(run, stages=run.stages[:1]), on="v5e:2x4", largest_batch=False)
    counted = (replace(found.on[0], estimate=replace(found.on[0].estimate, compiler=1.0)),)
    sentences = as_record(replace(found, on=counted))["assumptions"]
    assert "count of cycles" in sentences[0] and not any("lower rates" in each for each in sentences)
    show_target("toy", found.place, found.stages, counted)
    printed = " ".join(capsys.readouterr().out.split())
    assert all(each in printed for each in sentences)
    assert "count of cycles" not in " ".join(as_record(found)["assumptions"])
