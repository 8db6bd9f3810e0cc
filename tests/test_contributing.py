"""The outlines of CONTRIBUTING.md work as they are printed; the files that documents name exist."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import onnx.reference
import pytest
import yaml
from PIL import Image

from jclip import models, train
from jclip.configs.chinese_clip.vit_b_16 import config
from jclip.data.importing.parts import Found, Lost
from jclip.export.onnx.graph import Graph
from jclip.export.onnx.towers import writer_of
from jclip.images.preprocess import Preprocessing
from jclip.parallel.mesh import make_mesh
from jclip.train.layout import merge
from tests.toys import TOY

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
OUTLINES = dict(re.findall(r"^## (Add [^\n]*)\n[^#]*?```python\n(.*?)```", TEXT, re.MULTILINE | re.DOTALL))


@pytest.fixture
def outline(monkeypatch):
    def run(title):
        module = ModuleType(f"outline_of_{len(title)}")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(OUTLINES[title], f"CONTRIBUTING.md: {title}", "exec"), vars(module))
        return module

    return run


def test_a_tower(outline):
    tower = outline("Add a tower").MeanColourConfig(32)
    small = replace(TOY, image=tower).reduced(16, 50, 8)
    assert small.image.image_size == 16
    variables = models.init_variables(small, jax.random.key(0))
    images = jnp.ones((2, 16, 16, 3))
    found = models.build_model(small).apply(variables, images, method="encode_image")
    assert found.shape == (2, small.embed_dim)


def test_a_writer_of_a_tower(outline, monkeypatch):
    monkeypatch.setattr("jclip.export.onnx.towers._writers", {})
    monkeypatch.setattr("jclip.export.onnx.towers._OWN", ())
    monkeypatch.setitem(sys.modules, "mine", outline("Add a tower"))
    writer = outline("Add a writer of a tower for ONNX").mean_colour
    tower = sys.modules["mine"].MeanColourConfig(2)
    assert writer_of(tower, "image") is writer
    graph, kernel = Graph(), np.array([[1.0], [2.0], [4.0]])
    images = graph.input("images", np.float32, ("b", 3, 2, 2))
    features = writer(graph, tower, {"params": {"Dense_0": {"kernel": kernel}}}, images, TOY)
    graph.output("features", features, np.float32, ("b", 1))
    run = onnx.reference.ReferenceEvaluator(graph.model("mean colour"))
    images = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
    np.testing.assert_allclose(run.run(None, {"images": images})[0], [[1.5 + 2 * 5.5 + 4 * 9.5]])


def test_an_objective(outline):
    objective = outline("Add an objective").Alignment(weight=2.0)
    stage = replace(config().stages[0], objective=objective, batch_size=8, context_length=8)
    params = models.init_variables(TOY, jax.random.key(0))["params"]
    context = train.Context(stage, models.build_model(TOY), Preprocessing(size=32), frozenset(), make_mesh())
    program = objective.program(context)
    batch = {name: jnp.ones(shape.shape, shape.dtype) for name, shape in program.batch.items()}
    value, (metrics, _) = program.loss(merge(params, {}), {}, {}, batch, jax.random.key(0))
    assert value == pytest.approx(2 * (1 - metrics["cosine"]))


def test_a_source(outline, tmp_path):
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "猫.png")
    (record,) = outline("Add a data source").NamedPictures(str(tmp_path)).open()
    assert record.captions == ("猫",) and record.pictures == (tmp_path / "猫.png",)


def test_an_evaluation(outline, tmp_path):
    (tmp_path / "猫.png").touch()

    class Model:
        def encode_image(self, files):
            return np.array([[3.0, 0.0]] * len(files))

        def encode_text(self, texts):
            assert texts == ["猫"]
            return np.array([[0.0, 4.0]])

    assert list(outline("Add an evaluation").Gap("names", str(tmp_path)).open()(Model())) == [("", {"gap": 5.0})]


def test_the_outlines_use_public_names():
    """An import format is added inside jclip, all others from outside."""
    outside = "".join(text for title, text in OUTLINES.items() if "format" not in title)
    imports = re.findall(r"^from (jclip[\w.]*) import", outside, re.MULTILINE)
    assert imports and all(name.count(".") == 1 for name in imports)


def test_a_format(outline, tmp_path):
    (tmp_path / "book.txt").write_text("cat = 猫\nno line\n", encoding="utf-8")
    reader = outline("Add an import format").PHRASE_BOOK.open(tmp_path / "book.txt", None)
    (part,) = reader.parts(tmp_path, 1)
    found, lost = part.records()
    assert isinstance(found, Found) and found.record[:2] == ("cat", "猫")
    assert lost == Lost("book.txt, line 2", "no equals sign")


DOCUMENTS = ["README.md", "README_zh.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md", "docs/parity.md"]
DOCUMENTS += ["benchmarks/RESULTS.md"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_documents_name_exist(name):
    """Checks names of files, and paths in the repository's folders."""
    text = (ROOT / name).read_text(encoding="utf-8")
    folders = "jclip|tests|docs|conversion|configs|examples|benchmarks|launch"
    named = {word.rstrip("/") for word in re.findall(rf"`((?:{folders})/[\w./]*)`", text)}
    assert {word for word in named if not (ROOT / word).exists()} == set()


@pytest.mark.parametrize("name", ["README.md", "README_zh.md"])
def test_links_work_outside_the_repository(name):
    """A package index shows the README without the files beside it. The images have descriptions in words."""
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert [target for target in targets if not target.startswith("https://")] == ["docs/gallery.png", "docs/page.png"]


def test_the_citation_is_complete():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    from jclip import __version__

    assert cited["cff-version"] == "1.2.0" and cited["version"] == __version__
    assert {"title", "message", "authors"} <= cited.keys() and cited["authors"] == [{"name": "The jclip authors"}]
    assert [work["url"][-10:] for work in cited["references"]] == ["2211.06679", "2211.01335"]
