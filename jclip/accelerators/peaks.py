"""Peak rates of the devices that jax names, and the targets that they are."""

from jclip.accelerators.targets import TARGETS, Target

_TARGETS = {
    "TPU v3": "v3",
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
    "TPU7x": "tpu7x",
    "Tesla V100": "v100",
    "NVIDIA A100": "a100",
    "NVIDIA H100": "h100",
    "NVIDIA H200": "h200",
    "NVIDIA B200": "b200",
}
"""Targets by the beginning of the device kind."""
_OTHERS = {
    "TPU v2": 22.5e12,
    "TPU v4 lite": 138e12,
    "Tesla T4": 8.1e12,  # float32, as it has no bfloat16
    "NVIDIA A10G": 70e12,
    "NVIDIA GH200": 989.4e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40": 181e12,
    "NVIDIA L40S": 362e12,
}
"""Dense bfloat16 FLOP/s of one jax device that is no target, from the vendors' data sheets."""
PEAKS = {kind: TARGETS[name].peak for kind, name in _TARGETS.items()} | _OTHERS
"""Dense bfloat16 FLOP/s of one jax device, by the beginning of the device kind; see `Target.peak`."""


def peak_of(kind: str) -> float | None:
    """Returns the peak FLOP/s of a device kind; None if it is unknown, as on a CPU. The longest match counts.

    >>> peak_of("TPU v5 lite"), peak_of("NVIDIA L40S-48Q"), peak_of("cpu")
    (197000000000000.0, 362000000000000.0, None)
    """
    return PEAKS.get(_name_of(kind))


def is_kind_of(kind: str, target: Target) -> bool:
    """Returns True if devices of this kind are those of a target.

    A GPU's title is its device kind. A TPU has several kinds.

    >>> is_kind_of("TPU v5 lite", TARGETS["v5e"]), is_kind_of("NVIDIA A100-SXM4-40GB", TARGETS["a100"])
    (True, False)
    """
    return kind == target.title if target.platform == "cuda" else _TARGETS.get(_name_of(kind)) == target.name


def _name_of(kind: str) -> str:
    """Returns the longest known beginning of a device kind; "" if there is none."""
    return max((name for name in PEAKS if kind.startswith(name)), key=len, default="")
