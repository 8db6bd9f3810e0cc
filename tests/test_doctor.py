"""Checks of this machine, by hand-made failures."""

import os
from pathlib import Path

import pytest

from jclip import doctor


def test_this_machine_is_well(tmp_path):
    findings = doctor.examine(tmp_path / "runs")
    assert [finding.name for finding in findings] == ["python", "packages", "devices", "collectives", "disk"]
    assert all(finding.well for finding in findings)
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="/proc is a Linux folder in which nothing can be created")
def test_a_folder_that_cannot_be_created(monkeypatch):
    monkeypatch.setattr(os, "access", lambda place, how: False)
    found = doctor.examine(Path("/proc/nowhere"))[-1]
    note = "/proc/nowhere cannot be created: /proc is not a writable folder. Set --workdir"
    assert found == doctor.Finding("disk", False, note)


def test_a_failure_of_another_kind_is_a_finding_too(monkeypatch):
    def fail():
        raise RuntimeError("no devices")

    monkeypatch.setattr(doctor, "_devices", fail)
    assert doctor.examine()[2] == doctor.Finding("devices", False, "RuntimeError: no devices")
