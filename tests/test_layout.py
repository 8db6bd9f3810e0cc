"""The floors of the house, read from the imports; and what every file keeps to."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the ground up: a room imports only from rooms on floors below its own (or from itself).
FLOORS = (
    {"plain"},
    {"errors", "console"},
    {"names", "ranges"},
    {"io"},
    {"models", "losses", "rules", "config"},
    {"tokenizers", "images", "parallel", "optimizer"},
    {"data", "orbax_manager"},
    {"checkpoint"},
    # A stage names its sources and a bundle carries its tokenizer, so both stand on data; data knows neither.
    {"stages", "bundle"},
    {"inference", "conversion"},
    {"train", "evaluate"},
    {"evaluators"},
    {"running"},
    {"finetune", "configs"},
    {"demo"},
    {"cli"},
)
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
LONGEST = 400  # lines
# Names of packages that nothing in jclip imports, and why.
BANNED = {
    "torch": "only conversion and the tests may",
    "torchvision": "only conversion and the tests may",
    "tensorflow": "the project runs without it",
}
HEAVY = {"jax", "flax", "optax", "orbax", "grain", "tensorflow_datasets", "numpy", "PIL", "rich", "tyro"}

SOURCES = sorted(path.relative_to(ROOT) for path in (ROOT / "jclip").rglob("*.py"))
EVERY_FILE = sorted(
    path.relative_to(ROOT) for room in ("jclip", "configs", "tests") for path in (ROOT / room).rglob("*.py")
)


def imported(source: str, module: str) -> set[str]:
    """Dotted names of all that a file imports, wherever in it the import stands.

    `from a import b` gives "a.b", because b may be a module; the first parts are what matters here.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*package, *([node.module] if node.module else [])])
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def complaints(source: str, module: str) -> list[str]:
    """What a file under jclip imports and may not, one line each."""
    if module == "jclip":  # the public names, from every floor, when they are first asked for
        return []
    room = module.split(".")[1]
    if room not in LEVEL:
        return [f"{module} stands on no floor: give {room!r} one in FLOORS"]
    found = []
    for name in sorted(imported(source, module)):
        top, _, rest = name.partition(".")
        if top in BANNED:
            found.append(f"{module} imports {top}: {BANNED[top]}")
        elif top in {"tests", "configs", "conversion"}:
            found.append(f"{module} imports {top}, which is no package of jclip's")
        elif name.startswith("jclip.conversion") and room not in {"cli", "conversion"}:
            found.append(f"{module} imports jclip.conversion: only jclip.cli may")
        elif top == "jclip" and (other := rest.split(".")[0]) != room:
            if other not in LEVEL:
                found.append(f"{module} imports {name}: {other!r} stands on no floor")
            elif LEVEL[other] >= LEVEL[room]:
                found.append(f"{module} (floor {LEVEL[room]}) imports {name} (floor {LEVEL[other]})")
    return found


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("import jclip.train.loop", "imports jclip.train.loop (floor"),
        ("from jclip import train", "imports jclip.train (floor"),
        ("from ..train import loop", "imports jclip.train.loop (floor"),
        ("def f():\n    import torch.nn", "imports torch: only conversion"),
        ("import tensorflow as tf", "imports tensorflow: the project"),
        ("from jclip.conversion import engine", "only jclip.cli may"),
        ("from jclip.attic import x", "'attic' stands on no floor"),
        ("from jclip.configs.demo import short", "imports jclip.configs"),
    ],
)
def test_the_reader_sees_wrong_imports(source, complaint):
    (found,) = complaints(source, "jclip.models.vit")
    assert complaint in found


def test_the_reader_lets_right_imports_pass():
    right = [
        "import tensorflow_datasets",
        "from jclip.models import vit",
        "from . import x",
        "from jclip.errors import y",
    ]
    assert complaints("\n".join(right), "jclip.models.vit") == []
    assert complaints("from jclip.conversion import engine", "jclip.cli.convert") == []


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_imports_come_from_below(path):
    module = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    source = (ROOT / path).read_text(encoding="utf-8")
    if path.name == "__init__.py":  # so that its relative imports start from itself
        module += ".__init__"
    assert complaints(source, "jclip" if module == "jclip.__init__" else module) == []


@pytest.mark.parametrize("path", EVERY_FILE, ids=str)
def test_files_are_short(path):
    lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{path} has {lines} lines: two subjects are two files"


def test_importing_jclip_is_light():
    code = "import sys, jclip; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stdout.split()) == set()


def test_public_names_are_there():
    import jclip

    for name in jclip.__all__:
        assert getattr(jclip, name).__module__.startswith("jclip.")
    with pytest.raises(AttributeError, match="no attribute 'lode': it has load"):
        jclip.lode  # noqa: B018
