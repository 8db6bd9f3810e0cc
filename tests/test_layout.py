"""Rules of the source tree: imports come only from lower layers, public names exist, and files are short."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# The lowest layer first. A part (a module or subpackage of jclip) imports only from lower layers, or from itself.
LAYERS = (
    {"plain", "axes", "units", "marks"},
    {"errors", "console"},
    {"extras", "names", "ranges", "rules", "outside"},
    {"config"},
    {"lazy", "io", "internals"},
    {"cache", "models", "losses"},
    {"tokenizers", "images", "parallel", "optimizer", "accelerators"},
    {"data", "orbax_manager", "doctor"},
    {"checkpoint"},
    # A stage names its sources and a bundle contains its tokenizer, so both import data; data imports neither.
    {"stages", "bundle"},
    {"encoding"},
    {"inference"},
    {"train", "evaluate", "conversion", "search", "export"},
    {"evaluators", "loading"},
    {"running"},
    {"demo"},
    {"configs"},
    {"finetune", "serve"},
    {"cli"},
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
LONGEST = 400  # lines
# Names of packages that nothing in jclip imports, and why.
BANNED = {
    "torch": "only conversion and the tests may",
    "torchvision": "only conversion and the tests may",
    "tensorflow": "the project runs without it",
}
HEAVY = {"jax", "flax", "optax", "orbax", "grain", "tensorflow_datasets", "numpy", "PIL", "rich", "tyro", "torch"}
PUBLIC = ("models", "losses", "tokenizers", "data", "train", "evaluate", "search", "export", "conversion", "configs")

# Top-level folders and the package of each; jclip/conversion and jclip/configs are links.
TREES = {
    "jclip": "jclip", "conversion": "jclip.conversion", "configs": "jclip.configs", "benchmarks": "benchmarks",
    "docs": "docs", "examples": "examples",
}  # fmt: skip
# Folders outside jclip, and the others that each may import besides jclip. Nothing in jclip imports them.
OUTSIDE: dict[str, set[str]] = {"benchmarks": {"tests"}, "docs": {"benchmarks"}, "examples": set()}
LEVEL |= dict.fromkeys(OUTSIDE, len(LAYERS))
MODULES = {
    ".".join((package, *path.relative_to(ROOT / top).with_suffix("").parts)): path
    for top, package in TREES.items()
    for path in sorted((ROOT / top).rglob("*.py"))
}
"""Every source file by its module's name; a package's own is "jclip.models.__init__"."""
EVERY_FILE = sorted([*MODULES.values(), *(ROOT / "tests").rglob("*.py")])
NAMESPACES = ("jclip", *(f"jclip.{part}" for part in PUBLIC))
"""Packages whose names are imported on first use, see jclip/lazy.py."""


def imported(source: str, module: str) -> set[str]:
    """Returns the dotted names of all imports of a file, nested ones too.

    `from a import b` gives "a.b", because b may be a module.
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


def target(name: str, modules: Iterable[str]) -> str:
    """Returns the module that an imported name is, or is in: "jclip.models.vit" for "jclip.models.vit.Vit"."""
    while name and name not in modules:
        if f"{name}.__init__" in modules:
            return f"{name}.__init__"
        name = name.rpartition(".")[0]
    return name


def complaints(source: str, module: str) -> list[str]:
    """Returns the forbidden imports of a source file, one line each."""
    top, _, rest = module.partition(".")
    part = rest.split(".")[0] if top == "jclip" else top
    if part not in LEVEL:
        return [f"{module} is in no layer: add {part!r} to LAYERS"]
    found = []
    for name in sorted(imported(source, module) - LAZY_FROM_ABOVE.get(module, set())):
        other_top, _, other_rest = name.partition(".")
        other = other_rest.split(".")[0]
        if other_top in BANNED and part != "conversion" and top == "jclip":
            found.append(f"{module} imports {other_top}: {BANNED[other_top]}")
        elif other_top in {"configs", "conversion", "tests", *OUTSIDE} - {top} - OUTSIDE.get(top, set()):
            found.append(f"{module} imports {other_top}, which is no package of jclip's")
        elif top in OUTSIDE and is_public(name):
            continue
        elif top == "examples" and other_top == "jclip":
            found.append(f"{module} imports {name}: an example imports only public names")
        elif other == "conversion" and part not in {"cli", "conversion", "loading", *OUTSIDE}:
            found.append(f"{module} imports jclip.conversion: only jclip.cli and jclip.loading may")
        elif other_top == "jclip" and other != part and name not in PLAIN_NAMES:
            if other not in LEVEL:
                found.append(f"{module} imports {name}: {other!r} is in no layer")
            elif LEVEL[other] >= LEVEL[part]:
                found.append(f"{module} (layer {LEVEL[part]}) imports {name} (layer {LEVEL[other]})")
            elif is_public(name) and part not in {"cli", "configs"}:  # those import as a user would
                found.append(f"{module} imports {name} from a public namespace: import it from its module")
    return found


def is_public(name: str) -> bool:
    package, _, last = name.rpartition(".")
    return name in NAMESPACES or (package in NAMESPACES and last in import_module(package).__all__)


PLAIN_NAMES = {"jclip.__version__"}
# Public names that come from a higher layer, on first use.
LAZY_FROM_ABOVE = {
    "jclip.train.__init__": {
        "jclip.running.run", *(f"jclip.evaluators.{name}" for name in ("Retrieval", "Classification", "Probe"))
    }
}  # fmt: skip


def cycle(imports: Mapping[str, Iterable[str]]) -> list[str]:
    """Returns modules that import each other in a cycle, or an empty list."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_the_reader_sees_cycles():
    assert cycle({"a": ["b"], "b": ["c"], "c": []}) == []
    assert cycle({"a": ["b"], "b": ["c"], "c": ["a"]})[0] in "abc"


SUBPACKAGES = sorted(
    {module.rpartition(".")[0] for module in MODULES if module.count(".") == 2 or "jclip" not in module}
)


@pytest.mark.parametrize("subpackage", SUBPACKAGES)
def test_a_subpackage_has_no_cycles(subpackage):
    inside = {name for name in MODULES if name.startswith(f"{subpackage}.")}
    public = {f"{package}.__init__" for package in NAMESPACES}  # nothing imports them; they import their subpackage
    imports = {
        name: {
            found
            for each in imported(MODULES[name].read_text(encoding="utf-8"), name)
            if (found := target(each, inside)) in inside and found != name
        }
        for name in inside - public
    }
    found = cycle(imports)
    assert not found, " -> ".join(found)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("import jclip.train.loop", "imports jclip.train.loop (layer"),
        ("from jclip import train", "imports jclip.train (layer"),
        ("from ..train import loop", "imports jclip.train.loop (layer"),
        ("def f():\n    import torch.nn", "imports torch: only conversion"),
        ("import tensorflow as tf", "imports tensorflow: the project"),
        ("from jclip.conversion import engine", "only jclip.cli and jclip.loading may"),
        ("from jclip.attic import x", "'attic' is in no layer"),
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
    assert complaints("import torch", "jclip.conversion.x") == []
    assert complaints("from jclip.models import get_config", "jclip.configs.demo.common") == []
    assert "from a public namespace" in complaints("from jclip.models import get_config", "jclip.train.loop")[0]


def test_the_reader_sees_wrong_imports_outside_jclip():
    everything = "import jclip\nfrom jclip import data, load\nfrom jclip.train import Run\nimport numpy, torch"
    inner, tests = "from jclip.train import loop\nfrom jclip.conversion import mapping", "from tests import toys"
    assert [complaints(everything, f"{top}.x") for top in OUTSIDE] == [[]] * 3
    assert complaints(f"{inner}\n{tests}\nimport benchmarks.y", "benchmarks.x") == complaints(inner, "docs.x") == []
    assert [each.partition(" imports ")[2] for each in complaints(f"{inner}\n{tests}", "examples.x")] == [
        "jclip.conversion.mapping: an example imports only public names",
        "jclip.train.loop: an example imports only public names",
        "tests, which is no package of jclip's",
    ]
    assert [len(complaints("import docs.layers, examples.x", f"{top}.y")) for top in ("jclip.cli", "docs")] == [2, 1]


def test_imports_come_from_below():
    public = {"jclip.__init__"}  # its names are from every layer
    found = [
        each
        for module, file in MODULES.items()
        if module not in public
        for each in complaints(file.read_text(encoding="utf-8"), module)
    ]
    assert not found, "\n".join(found)


def test_files_are_short():
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in EVERY_FILE}
    assert not {path: lines for path, lines in lengths.items() if lines > LONGEST}, "two subjects are two files"


def test_importing_public_packages_is_light():
    code = f"import sys, {', '.join(NAMESPACES)}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stdout.split()) == set()


@pytest.mark.parametrize("package", NAMESPACES)
def test_public_names(package):
    """Each is there, documented, known to type checkers, and no module's name, which would hide it."""
    namespace = import_module(package)
    source = MODULES[f"{package}.__init__"].read_text(encoding="utf-8")
    documented = re.findall(r"^  ([\w, ]+): \S", namespace.__doc__, re.MULTILINE)
    assert sorted(name for names in documented for name in names.split(", ")) == sorted(namespace.__all__)
    typed = {
        alias.asname for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert typed - {None} == set(namespace.__all__) <= set(dir(namespace))
    assert not {f"{package}.{name}" for name in namespace.__all__} & MODULES.keys()
    for name in namespace.__all__:
        assert getattr(namespace, name) is getattr(namespace, name)
    with pytest.raises(AttributeError, match=f"no attribute 'lode': it has {namespace.__all__[0]}"):
        namespace.lode  # noqa: B018


def test_the_version_is_one():
    import jclip

    assert re.fullmatch(r"\d+\.\d+\.\d+", jclip.__version__)
    assert 'version = { attr = "jclip.__version__" }' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
