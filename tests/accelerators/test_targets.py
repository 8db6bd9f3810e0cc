"""Targets: their figures against what multiplies up to them, the places that a text names, and what a GPU is called."""

import dataclasses

import pytest

from jclip.accelerators.gpu_hosts import GpuHosts
from jclip.accelerators.targets import GPU_SHARE, TARGETS, parse_place
from jclip.errors import JclipError

GIB = 2**30


@pytest.mark.parametrize(
    ("text", "devices", "hosts", "name"),
    [
        ("v5e:1x1", 1, 1, "v5e:1x1"),
        ("v5e:8x8", 64, 16, "v5e:8x8"),
        (" V5E:2X4 ", 8, 2, "v5e:2x4"),
        ("v5p:2x2x1", 4, 1, "v5p:2x2x1"),
        ("v5p:4x8x12", 384, 96, "v5p:4x8x12"),
        ("v4:4x4x4", 64, 16, "v4:4x4x4"),
        ("v3:2x2", 8, 1, "v3:2x2"),  # two devices a chip
        ("tpu7x:2x2x2", 16, 2, "tpu7x:2x2x2"),
        ("h100:8", 8, 1, "h100:8"),
        ("h100:1", 1, 1, "h100:1"),
        ("a100-40:16x8", 128, 16, "a100-40:16x8"),
    ],
)
def test_a_place(text, devices, hosts, name):
    place = parse_place(text)
    assert (place.devices, place.hosts, place.name) == (devices, hosts, name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v5:8x8", "'v5' is not a known target: did you mean v5p or v5e?"),
        ("h10:8", "'h10' is not a known target: did you mean h100"),
        ("tesla", "'tesla' is not a known target: choose one of v3, v4"),
        ("v5e", "v5e needs a shape, such as v5e:2x2: 1x1, 2x2, 2x4"),
        ("h100", "h100 needs a shape, such as h100:8: 1 to 8 devices"),
        ("v5e:", "'' is not a shape of v5e: choose 1x1, 2x2"),
        ("v5e:2x", "'2x' is not a shape of v5e"),
        ("v5e:-2x2", "'-2x2' is not a shape"),
        ("v5e:3x3", "v5e has no shape 3x3: choose 1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16; with 9 devices or more: "
         "v5e:4x4"),
        ("v5e:8x4", "v5e has no shape 8x4: choose .*; with 32 devices or more: v5e:4x8"),
        ("v5e:8x8x8", "v5e has no shape 8x8x8: choose [^;]*$"),  # 512 chips are too many
        ("v5p:8x4x4", "or ascending multiples of 4 up to 16x16x24; with 128 devices or more: v5p:4x4x8"),
        ("v5p:4x4x6", "v5p has no shape 4x4x6"),
        ("h100:16", "h100 has no shape 16: choose 1 to 8 devices of one host, .*; with 16 devices or more: h100:2x8"),
        ("h100:2x3x8", "h100 has no shape 2x3x8"),
        ("h100:9999x8", "h100 has no shape 9999x8"),
        ("v6e-32", "'v6e-32' is not a known target: did you mean v6e:4x8\\?$"),  # Google Cloud's names
        ("v5litepod-8", "did you mean v5e:2x4\\?$"),
        ("v4-16", "did you mean v4:2x2x2\\?$"),
        ("v3-32", "did you mean v3:4x4\\?$"),
        ("v5e:8x8*2", "8x8\\*2 are several slices or groups of hosts; jclip trains on one: choose 1x1, 2x2"),
        ("v5e:2*8x8", "2\\*8x8 are several slices"),
        ("v5e:8x8*", "'8x8\\*' is not a shape of v5e"),
    ],
)  # fmt: skip
def test_no_such_place(text, message):
    with pytest.raises(JclipError, match=message.replace("(", r"\(")) as caught:
        parse_place(text)
    assert "\n" not in str(caught.value)


def test_every_shape_with_enough_devices_can_be_had():
    for target in TARGETS.values():
        for count in (1, 5, 8, 64, 100, 256):
            shape = target.arrangement.with_devices(count)
            assert target.arrangement.has(shape) and target.arrangement.devices(shape) >= count


@pytest.mark.parametrize(
    ("name", "flops_per_clock"),
    # Dense bfloat16 FLOPs of a multiprocessor in a clock: from the white papers of A100, H100 and Blackwell.
    [("a100-40", 2048), ("a100", 2048), ("h100", 4096), ("h200", 4096), ("b200", 8192)],
)
def test_peaks_are_cores_times_clock(name, flops_per_clock):
    target = TARGETS[name]
    assert isinstance(target.arrangement, GpuHosts)
    gpu = target.arrangement.gpu
    assert gpu.multiprocessors * flops_per_clock * gpu.clock * 1e9 == pytest.approx(target.peak, rel=0.01)
    assert target.memory == int(GPU_SHARE * gpu.memory)


def test_figures_of_a_device_are_those_of_its_share_of_the_chip():
    v5e, tpu7x = TARGETS["v5e"], TARGETS["tpu7x"]
    assert (v5e.memory, v5e.bandwidth, v5e.peak, v5e.link) == (15.75 * GIB, 819e9, 197e12, 200e9)
    assert (tpu7x.bandwidth, tpu7x.peak, tpu7x.link) == (3690e9, 1153.5e12, 300e9)
    assert (v5e.host_devices, tpu7x.host_devices) == (4, 8)


@pytest.mark.parametrize(("name", "ghz"), [("v3", 0.94), ("v4", 1.05), ("v5e", 1.5), ("v5p", 1.75), ("h100", 0)])
def test_clocks(name, ghz):
    """Those of TPUs are in Google's papers and in "How to Scale Your Model"."""
    assert TARGETS[name].clock == pytest.approx(ghz * 1e9, rel=0.005)


def test_every_target_has_its_figures_and_their_source():
    for name, target in TARGETS.items():
        assert target.name == name and len(target.source) > 20
        rates = {field.name: getattr(target, field.name) for field in dataclasses.fields(target)}
        assert min(rates[rate] for rate in ("memory", "bandwidth", "peak", "link", "network")) > 1e9
        assert target.peak > target.bandwidth > target.link > target.network


def test_a_gpu_as_xla_wants_it():
    text = TARGETS["h100"].arrangement.gpu.description()
    for line in (
        "core_count: 132",
        "shared_memory_per_core: 233472",
        "shared_memory_per_block_optin: 232448",
        "memory_bandwidth: 3350000000000",
        "device_memory_size: 84942979072",
        "cuda_compute_capability { major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES }",
        'name: "NVIDIA H100 80GB HBM3"',
    ):
        assert line in text
    assert text.count("{") == text.count("}")
    v100 = TARGETS["v100"].arrangement.gpu.description()
    assert "shared_memory_per_block_optin: 98304" in v100 and "ACCELERATED" not in v100
