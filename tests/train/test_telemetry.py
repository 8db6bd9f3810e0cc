"""Telemetry of a run: figures of every log step, TensorBoard's files, a profile, and Weights & Biases."""

import json
import sys
import time
import types
from dataclasses import replace

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from jclip.console import Console
from jclip.errors import JclipError
from jclip.train.arithmetic import Arithmetic
from jclip.train.logging.meter import Meter
from jclip.train.logging.progress import ProgressWatcher
from jclip.train.logging.sinks import read_journal
from jclip.train.loop import train
from jclip.train.objectives.contrastive import Contrastive
from tests.train.assembled import shapes_of


def test_a_meter_by_hand():
    meter = Meter(batch_size=8, devices=2, flops=lambda batch: 3 * 10**9, peak=1e9, text_name="words", pad_id=0)
    for _ in range(2):
        with meter.waiting():
            time.sleep(0.05)
        time.sleep(0.05)
        meter.step({"words": np.array([[5, 6, 0, 0], [5, 0, 0, 0]])})
    with meter.apart():
        time.sleep(0.3)
    figures = meter.read()
    speed = figures["pairs_per_second"]
    assert 16 / 0.4 < speed <= 16 / 0.2  # two steps in a little over 0.2 s; time in `apart` does not count
    assert figures["pairs_per_second_per_device"] == speed / 2
    assert figures["mfu"] == pytest.approx(2 * 3e9 / (16 / speed * 2 * 1e9))
    assert 0.3 < figures["data_wait"] < 0.7
    assert figures["padding"] == 5 / 8
    assert meter.read()["padding"] == 0  # counting begins again


@pytest.mark.parametrize(
    "cut", ['{"kind": "warning", "total": 2, "message": "描'.encode()[:-1], b'{"kind"', b"\0" * 20, b"[1]", b"{}", b"7"]
)
def test_a_journal_that_a_crash_cut_off(cut, tmp_path):
    whole = {"kind": "evaluation", "total": 1, "T1/t2i_r1": 0.5, "stage": "描述"}
    (tmp_path / "metrics.jsonl").write_bytes(json.dumps(whole, ensure_ascii=False).encode() + b"\n" + cut)
    assert read_journal(tmp_path / "metrics.jsonl") == [whole]


def test_arithmetic_is_the_models_alone(chinese_clip):
    def count(run, length):
        part = shapes_of(run, 1)
        batch = {name: np.zeros((1, *shape.shape[1:]), shape.dtype) for name, shape in part.program.batch.items()}
        return Arithmetic(part)({**batch, "text": batch["text"][:, :length]})

    plain = count(chinese_clip, 16)
    split = replace(chinese_clip.stages[1], micro_batches=2)
    again = replace(chinese_clip, remat="layers", stages=(chinese_clip.stages[0], split))
    assert count(again, 16) == plain
    assert count(chinese_clip, 8) < plain


def scalars(folder):
    """Returns {tag: {step: value}} of TensorBoard's event files, whose records are length, checksum and data."""
    found = {}
    for file in sorted(folder.glob("events*")):
        data, at = file.read_bytes(), 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 8], "little")
            event = Event.FromString(data[at + 12 : at + 12 + size])
            at += size + 16
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def test_every_log_step_is_in_the_journal_on_the_board_and_on_a_line(toy_run, tmp_path, monkeypatch):
    monkeypatch.setattr("jclip.train.stage_loop.Arithmetic", lambda part: lambda batch: 10**6)
    run = replace(toy_run, monitor=replace(toy_run.monitor, peak_tflops=1.0, profile_from=1, profile_steps=1))
    with (tmp_path / "out").open("w") as out, ProgressWatcher(Console(file=out, width=200), "run") as watcher:
        train(run, tmp_path / "run", watcher=watcher, stop_after=1)
        train(run, tmp_path / "run", watcher=watcher)
    lines = [line for line in read_journal(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "train"]
    assert [line["total"] for line in lines] == [1, 2, 3, 4]
    expected = {"loss", "gradient_norm", "learning_rate"}
    expected |= {"pairs_per_second", "pairs_per_second_per_device", "mfu", "data_wait", "padding"}
    assert all(expected <= line.keys() for line in lines)
    assert all(0 < line["mfu"] < 1 and 0 < line["padding"] < 1 and 0 <= line["data_wait"] <= 1 for line in lines)
    on_board = scalars(tmp_path / "run" / "tensorboard")
    for name in expected:
        assert on_board[f"train/{name}"] == pytest.approx({line["total"]: line[name] for line in lines}, rel=1e-6)
    said = (tmp_path / "out").read_text().splitlines()
    assert [line.split(" reads ")[0] for line in said if " reads " in line] == [
        f"stage {stage.name!r}" for stage in 2 * run.stages
    ]
    printed = [line for line in said if line.startswith("run · stage ")]
    assert [line.split("  ")[0] for line in printed] == [
        f"run · stage {number}/2 {stage.name} {step}/2" for number, stage in enumerate(run.stages, 1) for step in (1, 2)
    ]
    assert len(said) == 8
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))


@pytest.mark.parametrize(
    ("remat", "least", "reason", "said"),
    [
        ("dots", "none", "1 GiB of 2 GiB", ["everything: remat dots: 1 GiB of 2 GiB"]),
        ("layers", "dots", "too much", ["everything: remat layers: too much"]),
        ("dots", "dots", "1 GiB of 2 GiB", []),  # on CPUs
        ("layers", "none", "", []),  # configured
    ],
)
def test_more_recomputation_than_the_least_is_said(tmp_path, remat, least, reason, said):
    with (tmp_path / "out").open("w") as out, ProgressWatcher(Console(file=out, width=200), "run") as watcher:
        watcher.logged({"kind": "remat", "stage": "everything", "remat": remat, "least": least, "reason": reason})
    assert (tmp_path / "out").read_text().splitlines() == said


def test_a_line_names_the_figures_and_the_time_that_is_left(tmp_path, monkeypatch):
    now = iter([100.0, 100.0 + 3 * 60])
    monkeypatch.setattr("jclip.train.logging.progress.time", types.SimpleNamespace(monotonic=lambda: next(now)))
    figures = {"loss": 1.0, "text_to_image_r1": 0.5, "image_to_text_r1": 0.5, "scale": 14.3, "gradient_norm": 2.0}
    speed = {"learning_rate": 1e-4, "pairs_per_second_per_device": 100.0, "mfu": 0.4, "data_wait": 0.1, "padding": 0.2}
    with (tmp_path / "out").open("w") as out, ProgressWatcher(Console(file=out, width=200), "run") as watcher:
        watcher.stage_begins("contrastive", 10, 100, number=2, count=3, figures=Contrastive.figures)
        for step in range(11, 42):
            watcher.stepped(step)
        watcher.logged({"kind": "train", "total": 41, "step": 41, **figures, **speed})
    (line,) = (tmp_path / "out").read_text().splitlines()
    assert line.startswith("run · stage 2/3 contrastive 41/100 (about 6 min left)  loss 1")  # 30 steps took 3 minutes
    for word in ("R@1 t2i", "i2t", "scale", "grad", "lr", "pairs/s/device", "MFU", "wait", "pad"):
        assert f"  {word} " in line, word


def test_weights_and_biases(toy_run, tmp_path, monkeypatch):
    run = replace(toy_run, stages=toy_run.stages[:1], monitor=replace(toy_run.monitor, wandb="project"))
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(JclipError, match=r'pip install "jclip\[wandb\]", or set monitor\.wandb to'):
        train(run, tmp_path / "without")
    # A stand-in with the functions that wandb documents, because tests cannot reach the service.
    begun, logged = [], []
    handle = types.SimpleNamespace(log=lambda figures, step: logged.append((step, figures)), finish=lambda: None)
    stand_in = types.ModuleType("wandb")
    stand_in.init = lambda **arguments: begun.append(arguments) or handle
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    train(run, tmp_path / "run", stop_after=1)
    train(run, tmp_path / "run")
    assert [each["project"] for each in begun] == ["project"] * 2
    assert begun[0]["id"] == begun[1]["id"] and begun[1]["resume"] == "allow"
    assert begun[0]["config"]["stages"][0]["name"] == run.stages[0].name
    assert [step for step, figures in logged if "train/loss" in figures] == [1, 2]
