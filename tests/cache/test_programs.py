"""Compiled programs are kept, within limits, and never in the way."""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from jclip.cache import programs

ROOT = Path(__file__).parents[2]

# Prints the number of programs that the cache had, a result, and the errors.
PROGRAM = """
from jclip.cache.programs import programs_kept
with programs_kept(lambda line: print("told", line)):
    import jax, jax.numpy as jnp
    hits = []
    jax.monitoring.register_event_listener(lambda name, **_: hits.append(name) if "cache_hits" in name else None)
    x = jax.jit(lambda x: jnp.sin(x) @ x.T)(jnp.arange(35, dtype=jnp.float32).reshape(5, 7) / 9)
    print(len(hits), bytes(memoryview(x).cast("B")).hex())
"""


def computed(cache, **environment):
    own = {name: value for name, value in os.environ.items() if "COMPILATION" not in name and "PERSISTENT" not in name}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=own | {"JCLIP_CACHE": str(cache)} | environment,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.split()


def files(folder):
    return sorted(file for file in folder.rglob("*") if file.is_file())


def test_the_next_process_uses_what_one_has_compiled(tmp_path):
    none, result = computed(tmp_path)
    kept = files(tmp_path / "compiled")
    assert none == "0" and len(kept) > 0
    assert computed(tmp_path) == [str(len(kept)), result]
    assert files(tmp_path / "compiled") == kept
    for file in kept:  # half a program, as a killed process leaves it
        file.write_bytes(file.read_bytes()[:100])
    assert computed(tmp_path) == ["0", result]
    assert computed(tmp_path) == [str(len(kept)), result]


@pytest.mark.parametrize("own", ["JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"])
def test_the_users_own_setting_counts(own, tmp_path):
    value = str(tmp_path / "own") if own.endswith("DIR") else "0"
    more = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"} if own.endswith("DIR") else {}
    hits, _ = computed(tmp_path / "cache", **{own: value}, **more)
    assert hits == "0" and not (tmp_path / "cache").exists()
    assert bool(files(tmp_path)) == own.endswith("DIR")


def test_a_cache_that_cannot_be_written_is_not_in_the_way(tmp_path):
    (tmp_path / "file").touch()
    hits, _ = computed(tmp_path / "file")
    assert hits == "0"


def test_a_full_disk_gets_no_programs(tmp_path, monkeypatch):
    assert programs._has_room(tmp_path / "not" / "yet")
    monkeypatch.setattr(programs, "_LEAST_FREE", 1 << 60)
    assert not programs._has_room(tmp_path / "not" / "yet")


def test_warnings_of_jax_become_one_line(tmp_path):
    for name in ("jit_encode-1-cache", "jit_encode-2-cache", "jit_other-1-cache"):
        (tmp_path / name).touch()
    told, others = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *more: others.append(str(message))
        with programs._one_line_of_trouble(tmp_path, told.append):
            warnings.warn("Error reading persistent compilation cache entry for 'jit_encode': error: cut", stacklevel=1)
            assert os.listdir(tmp_path) == ["jit_other-1-cache"] and not told
            for _ in range(2):
                full = "Error writing persistent compilation cache entry for 'jit_encode': OSError: [Errno 28] No space"
                warnings.warn(full, stacklevel=1)
            warnings.warn("something else", stacklevel=1)
        warnings.warn("afterwards", stacklevel=1)
    assert told == [
        f"{tmp_path} cannot keep compiled programs (OSError: [Errno 28] No space): the next start is slower"
    ]
    assert others == ["something else", "afterwards"]


def test_each_kind_of_processor_has_its_own_programs(monkeypatch):
    here = programs._processor()
    assert re.fullmatch("[0-9a-f]{16}", here) and programs._processor() == here
    text = Path("/proc/cpuinfo").read_text()
    monkeypatch.setattr(Path, "read_text", lambda self, **_: text.replace("flags", "flags\t\t: amx\nflags", 1))
    assert programs._processor() != here


def test_a_run_of_several_processes_keeps_none(tmp_path, monkeypatch):
    for name in (*programs._OPTIONS, programs._LEAST_SECONDS):
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("JCLIP_CACHE", str(tmp_path))
    monkeypatch.delitem(sys.modules, "jax")  # as if it was not imported yet
    with programs.programs_kept(print):
        assert os.environ["JAX_COMPILATION_CACHE_DIR"].startswith(f"{tmp_path}/compiled/")
        programs.keep_none()
        assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "own")
    with programs.programs_kept(print):
        programs.keep_none()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "own"
