"""The rules of the suite itself."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest

HERE = Path(__file__).parent


def test_eight_devices():
    assert jax.device_count() == 8
    assert jax.default_backend() == "cpu"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("def test(): pass", 0),
        ("import pytest\ndef test(): pytest.skip('no')", 1),
        ("import pytest\npytest.skip('no', allow_module_level=True)\ndef test(): pass", 1),
    ],
)
def test_a_skip_is_a_failure(tmp_path, body, code):
    (tmp_path / "conftest.py").write_text((HERE / "conftest.py").read_text())
    (tmp_path / "test_it.py").write_text(f"{body}\n")
    (tmp_path / "test_other.py").write_text("def test(): pass\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout
    assert ("no test may be" in done.stdout) == (code == 1)
