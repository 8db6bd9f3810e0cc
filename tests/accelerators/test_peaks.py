"""Peaks by device kind."""

import pytest

from jclip.accelerators.peaks import PEAKS, is_kind_of, peak_of
from jclip.accelerators.targets import TARGETS


def test_the_longest_name_counts():
    assert peak_of("TPU v4") == 275e12
    assert peak_of("TPU v4 lite") == 138e12
    assert peak_of("TPU v5 lite") == 197e12
    assert peak_of("TPU v5p") == peak_of("TPU v5") == 459e12
    assert peak_of("NVIDIA H100 80GB HBM3") == 989.4e12
    assert peak_of("NVIDIA H100 PCIe") == 756e12
    assert peak_of("NVIDIA L40S-48Q") == 362e12
    assert peak_of("cpu") is None
    assert {kind: peak_of(kind) for kind in PEAKS} == PEAKS


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.platform == "cuda"])
def test_every_gpu_that_is_a_target(name):
    """A GPU's title is its device kind; compiled/test_compilers.py asks every compiler."""
    assert peak_of(TARGETS[name].title) == TARGETS[name].peak


KINDS = {
    "TPU v4": ["v4"],
    "TPU v4 lite": [],
    "TPU v5 lite": ["v5e"],
    "TPU v5": ["v5p"],
    "NVIDIA H100 80GB HBM3": ["h100"],
    "NVIDIA H100 PCIe": [],
    "NVIDIA A100-SXM4-40GB": ["a100-40"],
    "NVIDIA A100-SXM4-80GB": ["a100"],
    "cpu": [],
}


def test_the_target_of_a_kind():
    found = {kind: [name for name, target in TARGETS.items() if is_kind_of(kind, target)] for kind in KINDS}
    assert found == KINDS
