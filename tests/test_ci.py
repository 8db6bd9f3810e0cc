"""The script of all checks, with a `make` and Pythons that only note how they are called."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / ".ci" / "run"
NOTE = f'#!{shutil.which("bash")}\necho "$(basename "$0") $*" >> "$NOTES"\n'


def program(file, more=""):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(NOTE + more)
    file.chmod(0o755)


@pytest.mark.parametrize(
    ("main_is_newer", "newer", "environment", "again"),
    [(True, True, "VENV=.venv", 0), (False, False, "VENV=.venv", 0), (False, True, "VENV=.venv-3.12", 1)],
)
def test_accelerators_are_always_tested(main_is_newer, newer, environment, again, tmp_path):
    """In the environment of the second round if there is one; it is on Python 3.12."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(SCRIPT, tmp_path / ".ci" / "run")
    program(tmp_path / ".venv/bin/python", f"echo {main_is_newer}\n")
    program(tmp_path / ".venv-3.12/bin/python")
    program(tmp_path / "bin/make")
    program(tmp_path / "bin/python3.12", "" if newer else "exit 1\n")
    for name in ("dirname", "basename"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    notes = tmp_path / "notes"
    given = {"PATH": str(tmp_path / "bin"), "NOTES": str(notes), "PYENV_ROOT": str(tmp_path / "none")}
    subprocess.run([shutil.which("bash"), tmp_path / ".ci" / "run"], env=given, check=True, timeout=60)
    called = notes.read_text().splitlines()
    assert called[0] == "make test"
    last = called[-1].split()
    assert last[:3] == ["make", "test-accelerators", environment]
    assert len([line for line in called if "-m pytest" in line]) == again
