"""The accelerators' own compilers: every target, several hosts, what does not fit, what crashes, and what is kept."""

import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jclip.accelerators.account import account
from jclip.accelerators.compiler import CompilerFailed
from jclip.accelerators.compiler_process import CompilerProcess
from jclip.accelerators.peaks import peak_of
from jclip.accelerators.targets import TARGETS, Place, parse_place
from jclip.accelerators.tpu_slices import TpuSlices
from tests.accelerators.compiled.places import at

pytestmark = pytest.mark.slow
GIB = 2**30
KINDS = {
    "v3": "TPU v3", "v4": "TPU v4", "v5e": "TPU v5 lite", "v5p": "TPU v5", "v6e": "TPU v6 lite", "tpu7x": "TPU7x",
}  # fmt: skip


def lower(compiler, *shape, step=lambda x: x @ x.T, donate=()):
    """Lowers a step for arrays that the devices split by rows."""
    mesh = jax.make_mesh((len(compiler.devices),), ("data",), (AxisType.Auto,), devices=compiler.devices)
    split = NamedSharding(mesh, PartitionSpec("data"))
    x = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=split)
    return jax.jit(step, donate_argnums=donate, out_shardings=split).lower(x)


def product(compiler, *shape):
    return compiler.compile(lower(compiler, *shape))


def layout(compiler):
    devices = compiler.devices
    return len(devices), len({device.process_index for device in devices}), devices[0].platform, devices[0].device_kind


@pytest.mark.parametrize("name", list(TARGETS))
def test_every_target(name):
    arrangement = TARGETS[name].arrangement
    with CompilerProcess(Place(TARGETS[name], arrangement.with_devices(2)), seconds=300) as process:
        count, hosts, platform, kind = process.call(layout)
        assert (count, hosts) == (process.place.devices, process.place.hosts)
        assert platform == {"tpu": "tpu", "cuda": "gpu"}[TARGETS[name].platform]
        assert kind == KINDS.get(name, TARGETS[name].title)
        assert peak_of(kind) == TARGETS[name].peak
        result = process.call(product, 1024, 512)
        argument, outcome = 4 * 1024 * 512, 4 * 1024 * 1024
        workspace = max(map(int, re.findall(r"\bs8\[(\d+)\]", result.text)), default=0)
        # A part of the argument and of the result; cuBLAS's workspace; and the argument gathered, by some in bfloat16.
        others = result.needed - (argument + outcome) / count - workspace
        assert argument / 2 <= others < 1.01 * argument
        assert result.fits and ("all-gather" in result.text or "collective-permute" in result.text)


@pytest.mark.parametrize(
    ("place", "hosts"),
    [at(place, place, hosts) for place, hosts in (("v5e:4x4", 4), ("v5p:2x2x2", 2), ("h100:2x8", 2))],
)
def test_several_hosts(place, hosts, processes):
    assert processes(place).call(layout)[1] == hosts == processes(place).place.hosts


@pytest.mark.parametrize("name", ["v5e:1x1", "v4:2x2x1", "v5p:2x2x1"])
def test_what_a_tpu_enforces_is_what_is_reported(name):
    """Finds the limit from both sides with arrays that are arguments, temporaries and results at the same time."""

    def chain(compiler, gib):
        rows = int(gib * GIB / 4 / 4096) // 8 * 8 * len(compiler.devices)

        def step(x):
            weights = jnp.ones((4096, 4096))
            return jnp.tanh(x @ weights) @ weights

        return compiler.compile(lower(compiler, rows, 4096, step=step, donate=0))

    place = parse_place(name)
    with CompilerProcess(place, seconds=300) as process:
        fits = process.call(chain, 0.5 * place.target.memory / GIB)
        over = process.call(chain, 1.1 * place.target.memory / GIB)
    assert fits.fits and fits.text
    assert not over.fits and not over.text
    # The argument, whose memory the result takes, and at least half of it for the temporary.
    for result, share in ((fits, 0.5), (over, 1.1)):
        assert result.available == place.target.memory
        assert share * 0.99 < result.needed / result.available < 2.1 * share


def test_what_does_not_fit_a_gpu():
    with CompilerProcess(parse_place("a100:1"), seconds=300) as process:
        result = process.call(product, 1 << 17, 1 << 17)
    assert not result.fits and result.needed == pytest.approx(2 * 4 * 2**34, rel=0.01) and result.text


def test_a_compiler_that_aborts():
    """Gives libtpu a slice that does not exist, on which its compiler ends the process."""
    deep = Place(TARGETS["v5e"], (8, 8, 8))
    assert isinstance(deep.target.arrangement, TpuSlices) and math.prod(deep.shape) == 512
    with CompilerProcess(deep, seconds=300) as process:
        with pytest.raises(
            CompilerFailed, match="the compiler's process failed: it was ended by SIGABRT: Check failed"
        ):
            process.call(product, 1024, 512)
        assert process.call(layout)[0] == 512  # another process


def splash(compiler):
    """Returns the program of jax's splash attention, a Pallas kernel whose text spans lines."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    attend = kernel.make_splash_mha(masks.MultiHeadMask([masks.CausalMask((128, 128))]), head_shards=1, q_seq_shards=1)
    whole = NamedSharding(jax.make_mesh((1,), ("data",), devices=compiler.devices), PartitionSpec())
    x = jax.ShapeDtypeStruct((1, 128, 128), jnp.bfloat16, sharding=whole)
    return compiler.compile(jax.jit(attend).lower(x, x, x)).text


def test_a_pallas_kernel(processes):
    text = processes("v5e:1x1").call(splash)
    assert "={\n" in text
    found = account(text)
    assert found.unknown and "the products of tpu_custom_call are not counted" in found.unknown[0]
    assert any(each.opcode == "custom-call" and each.traffic for each in found.work)
    assert found.traffic >= 4 * 2 * 128 * 128  # copies to a faster memory may read the inputs


def test_results_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("JCLIP_CACHE", str(tmp_path))
    said = []
    first, again, other = (run(said, *shape) for shape in ((512, 256), (512, 256), (512, 128)))
    assert first == again != other
    assert said == ["compiling", "compiling"]
    assert len(list(Path(tmp_path, "planned").iterdir())) == 2


def run(said, *shape):
    with CompilerProcess(parse_place("v5e:2x2"), seconds=300, progress=said.append) as process:
        return process.call(product, *shape)
