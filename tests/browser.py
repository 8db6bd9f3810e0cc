"""Browser for the tests of the search page: `python tests/browser.py` finds one, or installs one.

It is a Chromium that playwright drives: $JCLIP_BROWSER, one of this machine, or playwright's own. If there is none,
playwright downloads its own; if it cannot, root gets Debian's.
"""

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

VARIABLE = "JCLIP_BROWSER"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
_NAMES = ("chromium-headless-shell", "chromium", "google-chrome", "google-chrome-stable", "chromium-browser")
_OWN = "chromium-headless-shell"
_PLAYWRIGHT = (sys.executable, "-m", "playwright", "install")
_APT = ("apt-get", "install", "-y", "--no-install-recommends", "chromium-headless-shell", "fonts-noto-cjk")
_LONGEST = 900  # seconds


class NoBrowserError(RuntimeError):
    """No browser is found, and none can be installed."""


@functools.cache
def browser() -> str:
    """Returns the path of a browser that starts. Raises NoBrowserError if there is none."""
    named = os.environ.get(VARIABLE)
    if named:
        found = shutil.which(named)
        if found is None or not _starts(found):
            raise NoBrowserError(f"{VARIABLE} is {named!r}, which does not start: name a Chromium, or unset it")
        return found
    paths = [path for name in _NAMES if (path := shutil.which(name))]
    found = next(filter(_starts, [*paths, *_of_playwright()]), None)
    if found is None:
        raise NoBrowserError(
            f"no Chromium is found for the tests of the search page: run python tests/browser.py, or set {VARIABLE}"
        )
    return found


def install() -> str:
    """Returns the path of a browser, installed if necessary. Raises NoBrowserError if that fails."""
    try:
        return browser()
    except NoBrowserError:
        if os.environ.get(VARIABLE):
            raise
    said = []
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    commands = [((*_PLAYWRIGHT, _OWN),)]
    if is_root and shutil.which("apt-get"):
        commands.append((("apt-get", "update"), _APT))
    for steps in commands:
        failed = next(filter(None, map(_failure, steps)), "")
        try:
            return browser()
        except NoBrowserError:
            said.append(failed or f"{' '.join(steps[-1][-3:])}: what it installed does not start")
    hint = "" if is_root else f"; as root, {' '.join(_APT)} installs one"
    raise NoBrowserError(f"no Chromium can be installed ({'; '.join(said)}): install one, or set {VARIABLE}{hint}")


def _failure(command: tuple[str, ...]) -> str:
    """Runs a command, and returns why it failed, in one line; "" if it did not."""
    name = " ".join(command[-3:])
    print(f"installing a Chromium: {' '.join(command)}", file=sys.stderr)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=_LONGEST,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{name}: it took more than {_LONGEST} s"
    lines = (done.stderr + done.stdout).splitlines()
    reason = next((line for line in lines if line.startswith(("Error:", "E:"))), "it failed")
    return f"{name}: {reason}" if done.returncode else ""


def _of_playwright() -> list[str]:
    """Returns the programs in the folder where playwright keeps its own browser."""
    done = subprocess.run(
        (*_PLAYWRIGHT, "--dry-run", _OWN), capture_output=True, text=True, encoding="utf-8", check=False
    )
    folders = re.findall(r"Install location:\s+(\S.*)", done.stdout)
    names = {"headless_shell", "chrome-headless-shell"}
    return [str(file) for folder in folders for file in Path(folder).glob("*/*") if file.name in names]


def _starts(path: str) -> bool:
    """Returns whether a program starts: some distributions have a `chromium` that only explains where to get it."""
    try:
        return subprocess.run((path, "--version"), capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


if __name__ == "__main__":
    try:
        print(install())
    except NoBrowserError as error:
        sys.exit(str(error))
