"""Checks of this machine before a run: packages, devices, collectives and disk space."""

import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from jclip.errors import JclipError
from jclip.extras import installing

_CORE = ("jax", "jaxlib", "flax", "numpy", "tokenizers")
_TRAIN = ("optax", "orbax-checkpoint", "grain", "tensorflow-datasets")


@dataclass(frozen=True)
class Finding:
    """Result of one check: its name, True if it passed, and a note with the finding or the remedy."""

    name: str
    well: bool
    note: str


def examine(workdir: Path = Path("runs")) -> tuple[Finding, ...]:
    """Returns the findings of all checks; `workdir` is the folder for runs."""
    checks: dict[str, Callable[[], str]] = {
        "python": lambda: f"Python {platform.python_version()} on {platform.platform()}",
        "packages": _packages,
        "devices": _devices,
        "collectives": _collectives,
        "disk": lambda: _disk(workdir),
    }
    findings = []
    for name, check in checks.items():
        try:
            findings.append(Finding(name, True, check()))
        except Exception as error:  # every failure is a finding
            kind = "" if isinstance(error, JclipError) else f"{type(error).__name__}: "
            findings.append(Finding(name, False, f"{kind}{error}"))
    return tuple(findings)


def _packages() -> str:
    missing, found = [], []
    for name in (*_CORE, *_TRAIN):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if set(missing) & set(_CORE):
        raise JclipError(f"missing: {', '.join(missing)}: install jclip again")
    note = f"; without {', '.join(missing)}, which training needs: {installing('optax')}" if missing else ""
    return ", ".join(found) + note


def _devices() -> str:
    import jax
    import jax.numpy as jnp

    for device in jax.devices():
        x = jax.device_put(jnp.ones((128, 128)), device)
        if float((x @ x)[0, 0]) != 128.0:
            raise JclipError(f"{device} is faulty: the sum of 128 ones is wrong")
    kind = jax.devices()[0].device_kind
    return f"{jax.device_count()} x {kind} ({jax.default_backend()}), {jax.process_count()} process(es)"


def _collectives() -> str:
    import jax
    import jax.numpy as jnp

    from jclip.parallel.mesh import MeshShape, make_mesh
    from jclip.parallel.sharding import batch_sharding

    mesh = make_mesh(MeshShape())
    ones = jax.device_put(jnp.ones(jax.device_count()), batch_sharding(mesh))
    total = float(jax.jit(jnp.sum)(ones))
    if total != jax.device_count():
        raise JclipError(f"a sum over all devices gave {total}, not {jax.device_count()}")
    return f"a sum over the mesh {dict(mesh.shape)} is right"


def _disk(workdir: Path) -> str:
    place = workdir
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise JclipError(f"{workdir} cannot be created: {place} is not a writable folder. Set --workdir")
    free = shutil.disk_usage(place).free / 2**30
    if free < 1:
        raise JclipError(f"{free:.2f} GiB free in {place}: free at least 1 GiB before a run")
    return f"{free:.0f} GiB free in {place}"
