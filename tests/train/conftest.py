"""Both papers' recipes at reduced size, and the toy. Their folders are shared: tests only read them."""

import hashlib
import pickle
from contextlib import contextmanager
from dataclasses import replace

import pytest

from jclip.train.loop import train
from tests.train import toy
from tests.train.assembled import assemble_once
from tests.train.runs import RECIPES, reduced


@pytest.fixture(scope="session", params=RECIPES, ids=lambda recipe: recipe.split("/")[0])
def recipe(request, made_once):
    return _recipe(request.param, made_once)


@pytest.fixture(scope="session")
def altclip(made_once):
    return _recipe(RECIPES[0], made_once)


@pytest.fixture(scope="session")
def chinese_clip(made_once):
    return _recipe(RECIPES[1], made_once)


def _recipe(name, made_once):
    """Returns a reduced recipe, made once for all workers."""

    def make(folder):
        (folder / "run.pickle").write_bytes(pickle.dumps(reduced(name, folder / "inputs")))

    return pickle.loads((made_once(f"recipe_{name.split('/')[0]}", make) / "run.pickle").read_bytes())


@pytest.fixture(autouse=True)
def _assembled_once(monkeypatch):
    """Avoids compiling a toy's step twice in this process."""
    monkeypatch.setattr("jclip.train.preparing.assemble", assemble_once)


@pytest.fixture
def own_memory_for():
    """Returns a context manager: devices seem to have a memory of their own, as those of accelerators do."""

    @contextmanager
    def apart():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("jclip.train.assembly.have_own_memory", lambda mesh: True)
            yield

    return apart


@pytest.fixture
def own_memory(own_memory_for):
    """Lets the devices seem to have a memory of their own, for the whole test."""
    with own_memory_for():
        yield


@pytest.fixture(scope="session")
def toy_run(made_once):
    """Run of the toy: two stages of two steps."""

    def make(folder):
        (folder / "run.pickle").write_bytes(pickle.dumps(toy.toy_run(folder / "inputs")))

    return pickle.loads((made_once("toy", make) / "run.pickle").read_bytes())


@pytest.fixture
def one_stage(toy_run):
    """Run of the toy: one stage of four steps."""
    return toy.toy(replace(toy_run, stages=toy_run.stages[:1]), steps=4)


@pytest.fixture(scope="session")
def trained_once(made_once):
    """Returns a function: run -> folder in which it was trained without interruption, once for all tests."""

    def trained(run):
        return made_once(
            f"trained_{hashlib.sha256(repr(run).encode()).hexdigest()[:16]}", lambda folder: train(run, folder)
        )

    return trained
