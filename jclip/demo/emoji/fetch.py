"""Downloads the demo's wheels with pip, pinned by hash. Nothing is installed or executed."""

import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jclip.errors import JclipError

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
_LINE = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[\w.]+) --hash=sha256:(?P<sha256>[0-9a-f]{64})")


@dataclass(frozen=True)
class Pin:
    """Name, version and hash of a wheel."""

    name: str
    version: str
    sha256: str

    @property
    def requirement(self) -> str:
        """The line for pip's hash-checking mode."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"

    @property
    def file(self) -> str:
        """File name of the wheel (PyPA's binary distribution format)."""
        return f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"


def pins(requirements: Path = REQUIREMENTS) -> dict[str, Pin]:
    """Reads the pinned wheels, by name. Raises JclipError if a line is not `name==version --hash=sha256:...`."""
    found = {}
    for number, line in enumerate(requirements.read_text("utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise JclipError(f"{requirements}:{number}: expected name==version --hash=sha256:..., found {line!r}")
        found[match["name"]] = Pin(match["name"], match["version"], match["sha256"])
    return found


def fetch(cache: Path, requirements: Path = REQUIREMENTS, *, only: tuple[str, ...] | None = None) -> dict[str, Path]:
    """Downloads pinned wheels into `cache`, except those that are already in it; returns {name: path}.

    `only` are the names of the wanted pins, all by default. Raises JclipError if pip, the network or the index is
    missing, or a wheel has another hash.
    """
    wanted = [pin for pin in pins(requirements).values() if only is None or pin.name in only]
    cache.mkdir(parents=True, exist_ok=True)
    missing = [pin for pin in wanted if not _is_there(pin, cache)]
    if missing:
        _download(missing, cache)
    for pin in missing:
        if not _is_there(pin, cache):
            raise JclipError(f"pip downloaded {pin.name} {pin.version}, but {cache / pin.file} is not the pinned wheel")
    return {pin.name: cache / pin.file for pin in wanted}


@contextmanager
def opened(wheel: Path) -> Iterator[zipfile.ZipFile]:
    """Opens a wheel as a zip file. Raises JclipError if it is damaged, or lacks a requested file."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            yield archive
    except (zipfile.BadZipFile, OSError, KeyError) as error:
        raise JclipError(f"{wheel} cannot be read ({error}): delete it and run again") from None


def chinese_vocabulary(cache: Path) -> list[str]:
    """Returns the entries of the Chinese BERT vocabulary in the cn-clip wheel, for `jclip.tokenizers.wordpiece`.

    Raises JclipError if the wheel cannot be fetched or read.
    """
    wheel = fetch(cache, only=("cn-clip",))["cn-clip"]
    with opened(wheel) as archive:
        # Not splitlines(): one entry is itself a line separator.
        return archive.read("cn_clip/clip/vocab.txt").decode("utf-8").removesuffix("\n").split("\n")


def _is_there(pin: Pin, cache: Path) -> bool:
    path = cache / pin.file
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == pin.sha256


def _download(missing: list[Pin], cache: Path) -> None:
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        listing = Path(folder) / "requirements.txt"
        listing.write_text("".join(f"{pin.requirement}\n" for pin in missing), "utf-8")
        options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--disable-pip-version-check", "--quiet"]
        command = [sys.executable, "-m", "pip", "download", *options, "-r", str(listing), "-d", folder]
        result = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
        if result.returncode:
            raise JclipError(_why(result.stderr, ", ".join(f"{pin.name} {pin.version}" for pin in missing)))
        for pin in missing:
            wheel = Path(folder) / pin.file
            if wheel.is_file():  # moved when complete, so that an interrupted download leaves no partial wheel
                wheel.replace(cache / pin.file)


def _why(stderr: str, names: str) -> str:
    if "No module named pip" in stderr:
        return f"this Python has no pip to fetch {names} with: run `{sys.executable} -m ensurepip` first"
    if "DO NOT MATCH THE HASHES" in stderr:
        return f"a wheel among {names} does not have the pinned sha256: the index offers another file; do not use it"
    errors = [line.removeprefix("ERROR: ") for line in stderr.splitlines() if line.startswith("ERROR: ")]
    reason = (errors or stderr.strip().splitlines() or ["no reason given"])[0]
    return f"pip could not fetch {names} ({reason[:200]}): check the network and pip's index settings, then run again"
