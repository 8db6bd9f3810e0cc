"""The package as a user gets it: built, installed in a fresh environment, and used outside this tree.

The quick tests need no network. Their environment has the wheel, and finds the dependencies of this interpreter: they
show that the wheel is complete, works outside the tree, and names a missing extra (its modules are hidden). They plan
a shipped recipe, and train a user's own file on the user's own data.

The slow test installs the wheel with pip: first the core alone, which loads a bundle and names the extra that training
needs, then `[train]`, which trains shipped recipes and the quick demo. It shows that the declared dependencies suffice.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from jclip.extras import EXTRAS
from tests.cli.small_bundle import write_bundle
from tests.test_layout import MODULES, imported

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def run(*command, code=0, long=False, **more):
    """Runs a command outside this tree; a long one as a user's machine would compile it."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "XLA_FLAGS")}
    if not long:
        environment["XLA_FLAGS"] = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"
    done = subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, encoding="utf-8", check=False, **more
    )
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The sdist of this tree, and the wheel that is built from the sdist."""
    place = tmp_path_factory.mktemp("build")
    tree = place / "tree"
    tree.mkdir()
    for name in ("jclip", "conversion", "configs", "launch", "tests", "docs"):
        leave = shutil.ignore_patterns("__pycache__", "*.png")
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=leave)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    build = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
    run(sys.executable, "-c", build, "build_sdist", place, cwd=tree)
    (sdist,) = place.glob("*.tar.gz")
    with tarfile.open(sdist) as file:
        file.extractall(place / "unpacked", filter="data")
    (unpacked,) = (place / "unpacked").iterdir()
    run(sys.executable, "-c", build, "build_wheel", place, cwd=unpacked)
    (wheel,) = place.glob("*.whl")
    return sdist, wheel


def test_what_is_in_the_archives(archives):
    sdist, wheel = archives
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        metadata = file.read(next(name for name in names if name.endswith("/METADATA"))).decode()
        runs = file.getinfo("jclip/launch/slurm.sh").external_attr >> 16
    modules = {f"{name.replace('.', '/')}.py" for name in MODULES if name.startswith("jclip")}
    assert {name for name in names if name.endswith(".py")} == modules
    data = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "jclip").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    launch = {f"jclip/{path.relative_to(ROOT)}" for path in (ROOT / "launch").rglob("*") if path.is_file()}
    assert len(data) > 20 and data | launch <= names and runs & 0o111
    assert {name.split("/")[0] for name in names} == {"jclip", next(n for n in names if "/METADATA" in n).split("/")[0]}
    for line in (
        "Name: jclip", "Author: The jclip authors", "License-Expression: Apache-2.0", "Requires-Python: >=3.11",
        "Classifier: Typing :: Typed",
    ):  # fmt: skip
        assert f"\n{line}\n" in metadata
    links = re.findall(r"\]\((.*?)\)", metadata)  # on a package index, the files of this tree are not there
    assert len(links) >= 5 and all(link.startswith("https://") for link in links)
    assert "\n# jclip\n" in metadata and "](docs/" not in metadata  # links that hold only in a checkout
    with tarfile.open(sdist) as file:
        inside = {name.partition("/")[2] for name in file.getnames()}
    assert modules | data | launch <= inside
    assert not any(name.startswith(("tests", "build")) for name in inside)


@pytest.fixture(scope="module")
def bin_folder(archives, tmp_path_factory):
    """The programs of a fresh environment with the wheel. Its dependencies are those of this interpreter."""
    place = tmp_path_factory.mktemp("fresh") / "env"
    run(sys.executable, "-m", "venv", "--without-pip", place)
    (packages,) = (place / "lib").glob("*/site-packages")
    here = Path(pytest.__file__).parents[1]
    (packages / "dependencies.pth").write_text(
        f"{here}\n"
    )  # its own .pth files, as an editable jclip's, have no effect
    installer = (sys.executable, "-m", "pip", "--python", place / "bin" / "python", "--disable-pip-version-check")
    run(*installer, "install", "--quiet", "--no-deps", "--no-index", "--force-reinstall", archives[1])
    assert (packages / "jclip" / "__init__.py").is_file()
    return place / "bin"


USE = """
import json, sys
from pathlib import Path
import jclip
from jclip.cli import main

assert "site-packages" in jclip.__file__, jclip.__file__
def ends(words, code=0):
    assert main(words) == code, words

import configs.mine  # the user's own package of this name
ends(["configs"])
ends(["plan", "demo/english", "--reduced", "--no-compile"])

from PIL import Image
colours = ("red", "green", "blue", "grey", "black", "white", "pink", "brown")
for colour in colours:
    Image.new("RGB", (40, 40), colour).save(f"{colour}.png")
pairs = [jclip.data.StoredPair(Path(f"{colour}.png").read_bytes(), (colour,)) for colour in colours]
jclip.data.write_pairs(Path("pairs"), pairs)
ends(["plan", "own.py", "--no-compile"])
ends(["train", "own.py", "--steps", "3", "--workdir", "own", "--json"])

model = jclip.load("own/1-tune")
assert model.encode_image(["red.png"]).shape[0] == 1
texts = model.encode_text(["a cat", "a dog"])
assert texts.shape[0] == 2, texts.shape
from jclip.bundle import load_bundle
jclip.save(load_bundle("own/1-tune"), Path("copy"))
assert (jclip.load("copy").encode_text(["a cat", "a dog"]) == texts).all()
"""
OWN = """
from configs.mine import NAME
import jclip
from jclip.train import Budget, Contrastive, Optimizer, Run, Stage


def config(steps: int = 2):
    bundle = jclip.load("start").bundle
    data, budget = (jclip.data.PairFolder("pairs"),), Budget(steps=steps)
    stage = Stage("tune", Contrastive(), data, 8, budget, Optimizer(), context_length=bundle.context_length)
    return Run(NAME, bundle.config, "start/tokenizer", bundle.preprocessing, (stage,), ((".*", "start"),))
"""


def test_an_empty_folder(bin_folder, tmp_path):
    shown = run(bin_folder / "jclip", "--help", cwd=tmp_path).stdout
    assert "jclip COMMAND --help" in shown and "configs" in shown
    assert not list(tmp_path.iterdir())


def test_a_folder_with_its_own_configs(bin_folder, tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "__init__.py").touch()
    (tmp_path / "configs" / "mine.py").write_text("NAME = 'mine'\n")
    (tmp_path / "own.py").write_text(OWN)
    write_bundle(tmp_path / "start")
    (tmp_path / "use.py").write_text(USE)
    shown = run(bin_folder / "python", "use.py", cwd=tmp_path).stdout
    assert "chinese_clip/vit_b_16" in shown and "mine: stages" in shown
    outcomes = [json.loads(line) for line in shown.splitlines() if line.startswith("{")]
    assert [(outcome["finished"], outcome["steps"]) for outcome in outcomes] == [(True, 3)]


LOAD = """
import sys
import jclip

model = jclip.load(sys.argv[1])
assert "site-packages" in jclip.__file__, jclip.__file__
assert model.encode_text(["猫"]).shape == (1, 64)
"""


@pytest.mark.slow  # downloads the dependencies
def test_pip_installs_all_that_the_commands_need(archives, tmp_path):
    write_bundle(tmp_path / "bundle")
    run(sys.executable, "-m", "venv", tmp_path / "env")
    programs = tmp_path / "env" / "bin"
    install = (programs / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet")

    run(*install, archives[1])
    run(programs / "jclip", "--help", cwd=tmp_path)
    run(programs / "python", "-c", LOAD, "bundle", cwd=tmp_path)
    refused = run(programs / "jclip", "train", "demo/english", "--reduced", code=1, cwd=tmp_path).stderr
    assert refused.endswith(' is not installed: pip install "jclip[train]"\n') and len(refused.splitlines()) == 1

    run(*install, f"{archives[1]}[train]")
    for recipe in ("chinese_clip/vit_b_16", "altclip/vit_l_14"):
        run(programs / "jclip", "train", recipe, "--reduced", cwd=tmp_path)
    run(programs / "jclip", "demo", "--quick", long=True, cwd=tmp_path)
    assert (tmp_path / "runs" / "demo" / "quick" / "report.html").is_file()


# Extras.

HIDING = """
import sys
import jclip
from jclip.extras import EXTRAS

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
import jclip.loading, jclip.models.zoo, jclip.cli.doctor, jclip.cli.cache_clear
from jclip.cli import main

for words in ("train demo/english", "finetune a b c", "configs"):
    print(main(words.split()), flush=True)
for use in (lambda: jclip.train.Run, lambda: jclip.data.write_pairs):
    import jclip.train, jclip.data
    try:
        use()
    except ImportError as error:
        print(error)
"""


def test_a_missing_extra_is_named(bin_folder, tmp_path):
    done = run(bin_folder / "python", "-c", HIDING, cwd=tmp_path)
    lines = (done.stdout + done.stderr).splitlines()
    missing = [line for line in lines if "is not installed" in line]
    assert len(missing) == 5 and all(
        re.search(r' is not installed: pip install "jclip\[\w+\]"$', line) for line in missing
    )
    assert {line.split(":")[0] for line in done.stderr.splitlines()} <= {
        "jclip train",
        "jclip finetune",
        "jclip configs",
    }
    assert done.stdout.split()[:3] == ["1", "1", "1"]


def test_every_dependency_is_declared():
    """Each module that jclip imports is of the core or of the extra that `EXTRAS` names."""
    extras = PROJECT["optional-dependencies"]
    distributions = {
        name: {re.split(r"[\[<>=~! ]", each)[0].replace("-", "_").lower() for each in packages}
        for name, packages in (("", PROJECT["dependencies"]), *extras.items())
    }
    called = {
        "PIL": "pillow",
        "faiss": "faiss_cpu",
        "grpc": "grpcio",
        "absl": "absl_py",
        "orbax": "orbax_checkpoint",
        "open_clip": "open_clip_torch",
        "array_record": "array_record",
    }
    used = {
        name.partition(".")[0]
        for module, file in MODULES.items()
        if module.startswith("jclip")
        for name in imported(file.read_text(encoding="utf-8"), module)
    }
    others = used - set(sys.stdlib_module_names) - {"jclip", "clip_benchmark"}
    for name in sorted(others):
        extra = EXTRAS.get(name, "")
        assert called.get(name, name).lower() in distributions[extra], (
            f"{name} is not declared in {extra or 'the core'}"
        )
    assert all(name in extras for name in EXTRAS.values())
