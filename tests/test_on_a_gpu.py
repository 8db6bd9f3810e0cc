"""The script for a GPU, tried on a CPU: its parts run, and a part that fails does not take the others with it."""

import json
import os
import time

import pytest
from jaxlib.xla_client import generate_pjrt_gpu_plugin_options

from benchmarks import on_a_gpu
from benchmarks.gpu_results import Results, markdown
from benchmarks.on_a_gpu import AttentionShape, Options, fitting, measure_turns
from benchmarks.remote import Failed, Remote
from jclip.cli.platforms import SHARES


class Counter:
    """Object of another process."""

    def __init__(self, start=0):
        if start < 0:
            raise ValueError("start\nis below 0")
        self.count = start

    def add(self, number):
        self.count += number
        return self.count

    def sleep(self, seconds):
        time.sleep(seconds)

    def end(self):
        os._exit(3)


@pytest.fixture
def counter():
    made = Remote(Counter, start=1)
    yield made
    made.close()
    assert not made._process.is_alive()


def test_an_object_apart_keeps_its_state(counter):
    assert counter.call("add", 2, timeout=60) == 3
    assert counter.call("add", 2, timeout=60) == 5
    assert counter.attributes("count", timeout=60) == {"count": 5}
    assert 0.1 < counter.timed("sleep", 0.1, timeout=60) < 60


def test_a_failure_apart_is_one_line(counter):
    with pytest.raises(Failed, match="^AttributeError: 'Counter' object has no attribute 'subtract'"):
        counter.call("subtract", timeout=60)
    assert counter.call("add", 0, timeout=60) == 1  # goes on
    with pytest.raises(Failed, match="its process ended with exit code 3"):
        counter.call("end", timeout=60)
    made = Remote(Counter, start=-1)
    with pytest.raises(Failed, match="^ValueError: start is below 0$"):
        made.call("add", 1, timeout=60)
    made.close()


def test_a_call_that_takes_too_long_is_ended(counter):
    assert counter.call("add", 0, timeout=60) == 1
    with pytest.raises(Failed, match="ended after 0 s, when no time was left"):
        counter.call("sleep", 60, timeout=0.2)
    counter._process.join(10)
    assert not counter._process.is_alive()


def test_turns():
    """A second a time: a turn of 2 seconds is 2 times, in alternating order."""
    asked = []

    def turn(name, seconds):
        return lambda times: asked.append((name, times)) or seconds * times

    turns = {"one": turn("one", 1.0), "other": turn("other", 4.0)}
    assert measure_turns(turns, Options(rounds=2)) == {"one": [1.0, 1.0], "other": [4.0, 4.0]}
    assert asked == [("one", 1), ("other", 1), ("one", 2), ("other", 1), ("other", 1), ("one", 2)]


def test_pairs_that_fit():
    assert [fitting(gib * 2**30, 0.4) for gib in (80, 40, 4)] == [128, 64, 8]
    assert fitting(None, 0.4) == 8


def test_tables():
    results = Results(
        device={"kind": "NVIDIA H100", "versions": {"jax": "0.10.2"}},
        attention=[AttentionShape("ViT-B/16", 197, 12, 64, 128)._asdict() | {"xla_ms": 2.0}],
        training=[
            {
                **{"size": "vit_b_16", "remat": "layers", "checkpointing": True, "pairs": 128, "flops": 2e12},
                **{"jclip_pairs_per_second": 1234.5, "cn_clip_pairs_per_second": 600.0, "jclip_mfu": 0.5},
                **{"planned": 3 * 2**29, "jclip_peak": 2**30, "ratio": 2.0, "lowest": 1.5, "highest": 2.5},
            }
        ],
        left_out={"no time is left": ["one", "two"]},
        failures=["attention: RuntimeError: no"],
    )
    lines = markdown(results).splitlines()
    assert lines[0] == "NVIDIA H100; jax 0.10.2"
    assert "| ViT-B/16 | 197 | 128 | 2.000 |  |  |" in lines
    assert (
        "| vit_b_16, layers (cn_clip: checkpointing) | 128 | 1234.5 | 600.0 | 2.00 (1.50-2.50) | 50.0% |  | 1.0 | 1.5 |"
        "  |" in lines
    )
    assert lines[-2:] == ["- left out: one, two: no time is left", "- failed: attention: RuntimeError: no"]


class Here:
    """Replacement of `Remote` in this process."""

    def __init__(self, make, *arguments, **named):
        self._make, self._made = lambda: make(*arguments, **named), None

    def _object(self):
        self._made = self._made or self._make()
        return self._made

    def call(self, method, *arguments, timeout):
        try:
            return getattr(self._object(), method)(*arguments)
        except Exception as raised:
            raise Failed(f"{type(raised).__name__}: {raised}") from None

    def timed(self, method, *arguments, timeout):
        begun = time.perf_counter()
        self.call(method, *arguments, timeout=timeout)
        return time.perf_counter() - begun

    def attributes(self, *names, timeout):
        return {name: getattr(self._object(), name) for name in names}

    def close(self):
        pass


@pytest.fixture
def short(monkeypatch):
    """One shape of attention and one comparison; the environment as before afterwards."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(on_a_gpu, "SHAPES", on_a_gpu.SHAPES[-1:])
    monkeypatch.setattr(on_a_gpu, "COMPARISONS", on_a_gpu.COMPARISONS[:1])


@pytest.mark.usefixtures("short")
def test_on_a_cpu(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(on_a_gpu, "Remote", Here)
    assert on_a_gpu.main(Options(out=tmp_path / "found", tiny=True)) == 0
    results = json.loads((tmp_path / "found.json").read_text())
    (attention,), (row,) = results["attention"], results["training"]
    assert attention["xla_ms"] > 0 and "cudnn_ms" not in attention
    (reason,) = results["left_out"]
    assert reason.startswith("JclipError: attention 'cudnn' is not possible here: cuDNN needs an NVIDIA GPU")
    assert row["pairs"] == 4 and row["cn_clip_precision"] == "float32" and row["jclip_mfu"] is None
    assert row["lowest"] <= row["ratio"] <= row["highest"] and row["planned"] > 1e5
    assert capsys.readouterr().out == (tmp_path / "found.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.json", "found.md"]


@pytest.mark.usefixtures("short")
def test_a_part_that_fails_leaves_the_others(monkeypatch, tmp_path, capsys):
    """Training fails, and runs out of memory once before; attention is kept. Without torch, one line says so."""
    monkeypatch.setattr(on_a_gpu, "Remote", Here)
    asked = []

    class Small:
        def __init__(self, run):
            asked.append(run.stages[1].batch_size)
            raise MemoryError("RESOURCE_EXHAUSTED: Out of memory" if len(asked) == 1 else "no such device")

    monkeypatch.setattr(on_a_gpu, "JclipStep", Small)
    assert on_a_gpu.main(Options(out=tmp_path / "found", tiny=True, pairs=32)) == 1
    results = json.loads((tmp_path / "found.json").read_text())
    assert asked == [32, 16]
    assert len(results["attention"]) == 1 and not results["training"]
    assert results["failures"] == ["training vit_b_16, dots: MemoryError: no such device"]
    assert "- failed: training vit_b_16" in capsys.readouterr().out


@pytest.mark.usefixtures("short")
def test_no_time(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(on_a_gpu, "Remote", Here)
    assert on_a_gpu.main(Options(out=tmp_path / "found", budget_seconds=5)) == 0
    assert "- left out: attention of CLIP's text tower, training vit_b_16, dots: no time is left" in (
        capsys.readouterr().out
    )


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", SHARES)
def test_a_share_of_the_gpu_that_the_user_has_set(name, monkeypatch, tmp_path):
    """The script's own replaces it: with both of its names, jaxlib refuses a GPU."""
    monkeypatch.setattr(on_a_gpu, "Remote", Here)
    os.environ[name] = "0.5"
    assert on_a_gpu.main(Options(out=tmp_path / "found", budget_seconds=0)) == 0
    options = generate_pjrt_gpu_plugin_options()
    assert options["memory_fraction"] == 0.9 and options["preallocate"] is False


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_in_processes_of_their_own(tmp_path):
    assert on_a_gpu.main(Options(out=tmp_path / "found", tiny=True)) == 0
