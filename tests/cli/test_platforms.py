"""jax does not look for accelerators that are not attached, although their compilers are installed."""

import os
import subprocess
import sys

import pytest
from jaxlib.xla_client import generate_pjrt_gpu_plugin_options

from jclip.cli import finetune, platforms, train
from jclip.cli.platforms import SHARES, skip_absent_accelerators


@pytest.fixture(autouse=True)
def outside(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.delitem(sys.modules, "jax")
    for name in list(os.environ):
        if name.startswith("TPU_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("plugins", "libtpu", "devices", "skipped"),
    [
        (set(), False, (), False),  # jax alone looks for nothing
        (set(), True, (), True),
        ({"xla_cuda12"}, False, (), True),
        ({"xla_cuda12"}, True, ("/dev/nul*",), False),
        ({"xla_cuda12"}, True, ("/dev/nothing*",), True),
        ({"xla_cuda12", "xla_rocm7"}, True, (), False),
    ],
)
def test_when_it_is_skipped(plugins, libtpu, devices, skipped, monkeypatch):
    monkeypatch.setattr(platforms, "_plugins", lambda: plugins)
    monkeypatch.setattr(platforms, "find_spec", lambda name: object() if libtpu else None)
    skip_absent_accelerators(devices)
    assert os.environ.get("JAX_PLATFORMS") == ("cpu" if skipped else None)


@pytest.mark.parametrize("name", ["JAX_PLATFORMS", "TPU_WORKER_ID"])
def test_what_the_environment_says_counts(name, monkeypatch):
    monkeypatch.setattr(platforms, "_plugins", lambda: {"xla_cuda12"})
    monkeypatch.setenv(name, "tpu,cpu")
    skip_absent_accelerators(())
    assert os.environ.get("JAX_PLATFORMS") == ("tpu,cpu" if name == "JAX_PLATFORMS" else None)


def test_plugins_are_found(tmp_path):
    (tmp_path / "jax_plugins" / "xla_other").mkdir(parents=True)
    (tmp_path / "jax_plugins" / "xla_other" / "__init__.py").touch()
    code = "from jclip.cli.platforms import _plugins; print(sorted(_plugins()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "xla_other" in done.stdout


@pytest.mark.parametrize("given", [None, *SHARES])
@pytest.mark.parametrize("command", [train, finetune])
def test_the_users_share_of_a_gpus_memory_counts(command, given, monkeypatch):
    for name in SHARES:  # jax takes "" as not set
        monkeypatch.setenv(name, "0.5" if name == given else "")
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert generate_pjrt_gpu_plugin_options()["memory_fraction"] == (0.5 if given else 0.92)  # jax refuses two
