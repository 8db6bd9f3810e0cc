"""Files of an ONNX export: readable without jclip, refused if they are damaged or lead elsewhere."""

import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from PIL import Image
from tokenizers import Tokenizer as Engine

import jclip
from jclip.bundle import Bundle
from jclip.errors import JclipError
from jclip.export import onnx_writer
from jclip.export.exporting import export
from jclip.export.formats import ExportOptions, format_named
from jclip.export.onnx import towers
from jclip.export.onnx.graph import OPSET, Graph
from jclip.export.onnx.int8 import quantise
from jclip.export.onnx.readme import program
from jclip.export.onnx.writing import write_files
from jclip.export.onnx_model import load_onnx
from jclip.export.record import read_record
from jclip.images.preprocess import Preprocessing
from jclip.inference import Model
from tests.export import small_models
from tests.toys import TOY, ToyImageConfig, ToyTextConfig

TEXTS = ["red apple 1", "green house", "红色苹果 7", ""]


def quiet(words):
    pass


def write(model, folder, **options):
    return export(model, folder, format_named("onnx"), ExportOptions(**options), quiet)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_models.model("altclip", tmp_path_factory.mktemp("tokenizers"))


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "model"
    write(model, folder)
    return folder


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "copy")


def picture(file, mode="RGB"):
    draw = np.random.default_rng(0)
    image = Image.fromarray(draw.integers(0, 256, (9, 14, 4), dtype=np.uint8), "RGBA").resize((70, 45)).convert(mode)
    on_its_side = Image.Exif()
    on_its_side[0x0112] = 6
    image.save(file, exif=on_its_side)
    return file


@pytest.mark.parametrize(
    ("family", "settings", "mode", "inside"),
    [
        ("altclip", {"resize": "crop"}, "P", False),
        ("chinese-clip", {"background": (255, 255, 0), "trim": True, "orientation": "apply"}, "RGBA", False),
        ("altclip", {"resize": "crop", "background": (0, 0, 9), "trim": True}, "RGBA", True),
        ("encoder-mean", None, "RGB", False),
    ],
)
def test_program_of_the_readme_runs_without_jclip(family, settings, mode, inside, tmp_path):
    model = small_models.model(family, tmp_path)
    if settings is not None:
        model = Model(replace(model.bundle, preprocessing=Preprocessing(size=32, **settings)))
    record = write(model, tmp_path / "out", with_preprocessing=inside)
    readme = (tmp_path / "out" / "README.md").read_text()
    (code,) = [part.partition("```")[0] for part in readme.split("```python\n")[1:]]
    assert code.splitlines() == program(record)
    file = picture(tmp_path / "out" / "cat.jpg.png", mode).rename(tmp_path / "out" / "cat.jpg")
    names = {"image": "image_features", "text": "text_features"}
    saved = "".join(f"np.save('{tower}', {names[tower]})\n" for tower in model.bundle.config.towers)
    hidden = "import sys; sys.modules['jclip'] = None\n"
    done = subprocess.run([sys.executable, "-c", hidden + code + saved], cwd=tmp_path / "out", capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    text = np.load(tmp_path / "out" / "text.npy")
    np.testing.assert_allclose(text, model.encode_text(["一只猫", "a red apple"]), rtol=0, atol=1e-5)
    if settings is not None:
        image = np.load(tmp_path / "out" / "image.npy")
        np.testing.assert_allclose(image, model.encode_image([file]), rtol=0, atol=0.01 if inside else 1e-5)


def test_preprocessing_inside_needs_an_image_tower(tmp_path):
    model = small_models.model("encoder-mean", tmp_path)
    with pytest.raises(JclipError, match="--with-preprocessing: this model has no image tower: omit it"):
        write(model, tmp_path / "out", with_preprocessing=True)


def test_files_and_record(exported, model):
    names = {file.name for file in exported.iterdir()}
    assert names == {
        "export.json", "image.onnx", "text.onnx", "preprocessing.json", "tokenizer.json", "tokenizer", "README.md"
    }  # fmt: skip
    record = read_record(exported)
    assert (record.identity, record.name, record.embed_dim) == (model.identity, model.name, 24)
    assert record.config == model.bundle.config and record.preprocessing == model.bundle.preprocessing
    assert max(record.own["largest_difference"].values()) <= 1e-5
    for name, axes in (("image", ["batch", 3, 32, 32]), ("text", ["batch", "length"])):
        graph = onnx.load(exported / f"{name}.onnx")
        assert {each.domain: each.version for each in graph.opset_import} == {"": OPSET}
        dims = graph.graph.input[0].type.tensor_type.shape.dim
        assert [dim.dim_param or dim.dim_value for dim in dims] == axes
        assert record.own["towers"][name]["input"]["shape"] == axes
    engine = Engine.from_file(str(exported / "tokenizer.json"))
    assert [
        each.ids[: sum(each.attention_mask)] for each in engine.encode_batch(TEXTS)
    ] == model.bundle.tokenizer.encode(TEXTS, small_models.CONTEXT)


def test_loaded_as_a_model(exported, model, tmp_path):
    loaded = jclip.load(exported)
    assert (loaded.identity, loaded.name, loaded.embed_dim) == (model.identity, model.name, model.embed_dim)
    assert loaded.similarity_scale == pytest.approx(model.similarity_scale)
    file = picture(tmp_path / "a.png")
    np.testing.assert_allclose(loaded.similarity([file], TEXTS), model.similarity([file], TEXTS), rtol=0, atol=1e-3)
    assert loaded.encode_text([]).shape == loaded.encode_image([]).shape == (0, 24)
    again = pickle.loads(pickle.dumps(loaded))
    assert again.source == loaded.source == str(exported.resolve())
    np.testing.assert_array_equal(again.encode_text(TEXTS), loaded.encode_text(TEXTS))
    one = jclip.load(exported, tower="text", batch_size=2)
    np.testing.assert_allclose(one.encode_text(TEXTS), loaded.encode_text(TEXTS), rtol=0, atol=1e-6)
    with pytest.raises(JclipError, match="loaded with its text tower alone"):
        one.encode_image([file])
    for wrong, message in (({"tower": "sound"}, "tower is 'sound'"), ({"dtype": "bfloat16"}, "computes as it was")):
        with pytest.raises(JclipError, match=message):
            jclip.load(exported, **wrong)
    with pytest.raises(JclipError, match="has no function for jax"):
        _ = loaded.apply
    with pytest.raises(JclipError, match="is an export already: export its bundle"):
        write(loaded, tmp_path / "again")
    with pytest.raises(JclipError, match="cannot be saved as a bundle"):
        jclip.save(loaded, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("form", ["onnx", "stablehlo"])
@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"tower": "text"}, "was loaded with its text tower alone: load both to export it"),
        ({"dtype": "bfloat16"}, "was loaded in bfloat16: load it in float32 to export it"),
    ],
)
def test_a_part_of_a_model_is_refused(model, part, message, form, tmp_path):
    with pytest.raises(JclipError, match=message):
        export(Model(model.bundle, **part), tmp_path / "out", format_named(form))
    assert list(tmp_path.iterdir()) == []


def test_weights_beside_a_large_graph(model, exported, tmp_path):
    own = write_files(model, tmp_path, ExportOptions(), quiet, external_bytes=1000)
    assert own["towers"]["text"]["files"] == ["text.onnx", "text.onnx.data"]
    assert (tmp_path / "text.onnx").stat().st_size < (exported / "text.onnx").stat().st_size / 2
    shutil.copy(exported / "export.json", tmp_path)
    beside = load_onnx(tmp_path)
    np.testing.assert_array_equal(beside.encode_text(TEXTS), load_onnx(exported).encode_text(TEXTS))
    float32 = beside.encode_text(TEXTS)
    batches = {"image": np.zeros((1, 3, 32, 32), np.float32), "text": np.array([[0, 9, 2]])}
    quantise(tmp_path, read_record(tmp_path), batches, ExportOptions(int8=True), quiet)
    assert not (tmp_path / "text.onnx.data").exists()
    assert (load_onnx(tmp_path).encode_text(TEXTS) * float32).sum(axis=1).min() > 0.99


def test_int8_weights_beside_a_large_graph(model, exported, tmp_path):
    own = write_files(model, tmp_path, ExportOptions(int8=True), quiet, external_bytes=1000)
    for name, tower in own["towers"].items():
        assert tower["files"] == [f"{name}.onnx", f"{name}.onnx.data"]
        size = sum((tmp_path / file).stat().st_size for file in tower["files"])
        assert size < (exported / f"{name}.onnx").stat().st_size
    assert {file.name for file in tmp_path.iterdir()} == {
        *(file for tower in own["towers"].values() for file in tower["files"]),
        *("README.md", "preprocessing.json", "tokenizer", "tokenizer.json"),
    }
    shutil.copy(exported / "export.json", tmp_path)
    wanted = load_onnx(exported).encode_text(TEXTS)
    assert (load_onnx(tmp_path).encode_text(TEXTS) * wanted).sum(axis=1).min() > 0.99


def lead_elsewhere(file):
    """Makes a weight of a graph come from another place."""
    graph = onnx.load(file)
    tensor = graph.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    file.write_bytes(graph.SerializeToString())


def unknown_operator(file):
    graph = Graph()
    graph.output("y", graph.op("Launch", graph.input("x", np.int64, ("b", "l"))), np.float32, ("b", 24))
    with pytest.raises(onnx.checker.ValidationError):
        graph.save(file)  # written, and then found to be wrong


def two_inputs(file):
    graph = Graph()
    x, y = (graph.input(name, np.int64, ("b", "l")) for name in "xy")
    graph.output("z", graph.op("Add", x, y), np.int64, ("b", "l"))
    graph.save(file)


def no_features(file):
    graph = Graph()
    ids = graph.input("input_ids", np.int64, ("b", "l"))
    graph.output("z", graph.op("Unsqueeze", graph.op("Cast", ids, to=1), graph.ints(1)), np.float32, ("b", 1, "l"))
    graph.save(file)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: file.unlink(), "text.onnx is missing: export the model again"),
        (lambda file: file.write_bytes(file.read_bytes()[:5000]), "text.onnx cannot be run as ONNX"),
        (lambda file: file.write_bytes(b"hello"), "text.onnx cannot be run as ONNX"),
        (lambda file: file.write_bytes(b""), "text.onnx cannot be run as ONNX"),
        (lead_elsewhere, r"it names weights in another folder, \.\./secret"),
        (unknown_operator, "text.onnx cannot be run as ONNX"),
        (two_inputs, "it has more than one input or output"),
        (no_features, r"it gives float32 \(4, 1, \d+\), which are not features"),
    ],
)
def test_damaged_graphs_are_refused(copy, spoil, message):
    (copy.parent / "secret").write_bytes(bytes(1 << 20))
    spoil(copy / "text.onnx")
    with pytest.raises(JclipError, match=message) as caught:
        jclip.load(copy).encode_text(TEXTS)
    assert "\n" not in str(caught.value)


def test_a_link_to_weights_elsewhere_is_refused(model, tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    write_files(model, folder, ExportOptions(), quiet, external_bytes=1000)
    data = folder / "image.onnx.data"
    data.rename(tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")
    write(model, tmp_path / "whole")
    shutil.copy(tmp_path / "whole" / "export.json", folder)
    with pytest.raises(JclipError, match=r"it names weights in another folder, image\.onnx\.data"):
        jclip.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.pop("model"), "has no model: export the model again"),
        (lambda record: record.update(version=9), "has version 9, this jclip reads 1"),
        (lambda record: record.update(format="stablehlo", stablehlo={}), "is an export as stablehlo"),
        (lambda record: record.pop("onnx"), "has no onnx"),
        (lambda record: record["source"].pop("identity"), "has no identity"),
        (lambda record: record.update(context_length=99), "context_length is 99, but the text tower has"),
        (lambda record: record.update(embed_dim="x"), "embed_dim is 'x', but must be a whole number"),
    ],
)
def test_damaged_records_are_refused(copy, change, message):
    record = json.loads((copy / "export.json").read_text())
    change(record)
    (copy / "export.json").write_text(json.dumps(record))
    with pytest.raises(JclipError, match=message):
        jclip.load(copy)


def toy(place):
    words = small_models.tokenizer("wordpiece", place)
    config = TOY.reduced(32, words.vocab_size, 16)
    params = small_models.variables(config)["params"]
    return Model(Bundle(config, params, words, Preprocessing(size=32), 16))


def test_a_tower_without_a_writer_is_refused(tmp_path):
    with pytest.raises(JclipError, match="the image tower is a ToyImageConfig, which cannot be written as ONNX"):
        write(toy(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def registry(monkeypatch):
    """Forgets, after the test, the writers that it registers."""
    towers.writer_of(small_models.vit(), "image")  # imports jclip's own
    monkeypatch.setattr(towers, "_writers", dict(towers._writers))


@pytest.mark.usefixtures("registry")
def test_a_tower_of_another_package_with_its_writer(tmp_path):
    def layers(graph, kernel_ldd, x_bd):
        for kernel_dd in kernel_ldd:
            step = graph.op("Tanh", graph.op("MatMul", x_bd, graph.weight("kernel", kernel_dd)))
            x_bd = graph.op("Add", x_bd, step)
        return x_bd

    @onnx_writer(ToyImageConfig)
    def image(graph, tower, variables, images_bchw, model):
        params, half = variables["params"], tower.image_size // 2
        quarters = graph.op("AveragePool", images_bchw, kernel_shape=[half, half], strides=[half, half])
        rows = graph.op("Reshape", graph.op("Transpose", quarters, perm=[0, 2, 3, 1]), graph.ints(0, 12))
        x = graph.op("MatMul", rows, graph.weight("input", params["input"]["kernel"]))
        x = layers(graph, params["layers"]["kernel"], x)
        return graph.op("MatMul", x, graph.weight("projection", params["projection"]["kernel"]))

    @onnx_writer(ToyTextConfig)
    def text(graph, tower, variables, ids_bl, model):
        params = variables["params"]
        pad = graph.op("Equal", ids_bl, graph.constant(tower.pad_id, np.int64))
        weight = graph.op("Unsqueeze", graph.op("Cast", graph.op("Not", pad), to=1), graph.ints(2))
        states = graph.op("Mul", graph.op("Gather", graph.weight("table", params["table"]), ids_bl), weight)
        total = graph.op("ReduceSum", states, graph.ints(1), keepdims=0)
        x = graph.op("Div", total, graph.op("ReduceSum", weight, graph.ints(1), keepdims=0))
        x = layers(graph, params["layers"]["kernel"], x)
        return graph.op("MatMul", x, graph.weight("projection", params["projection"]["kernel"]))

    model = toy(tmp_path)
    write(model, tmp_path / "out")
    found = load_onnx(tmp_path / "out").encode_text(["red apple", "blue"])
    np.testing.assert_allclose(found, model.encode_text(["red apple", "blue"]), rtol=0, atol=1e-5)


def test_a_graph_that_differs_is_refused(model, tmp_path, monkeypatch):
    from jclip.export.onnx import layers

    def wrong(graph, x):
        return graph.op("Mul", x, graph.op("Sigmoid", graph.op("Mul", x, graph.constant(1.7, np.float32))))

    monkeypatch.setitem(layers._ACTIVATIONS, "quick_gelu", wrong)
    with pytest.raises(JclipError, match="image.onnx gives features that differ from the model's by .*: nothing was"):
        write(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_int8_and_its_gate(model, tmp_path):
    class Gate:
        name = "ten images"

        def __init__(self, after):
            self.figures = iter(({"t2i_r1": 0.5, "i2t_r1": 0.4}, after))
            self.models = []

        def __call__(self, model):
            self.models.append(model.identity)
            model.encode_text(TEXTS)
            return next(self.figures)

    with pytest.raises(JclipError, match=r"i2t_r1 on ten images from 40.0% to 38.9%, by more than 1 .* --max-loss 1.2"):
        write(model, tmp_path / "out", int8=True, gate=Gate({"t2i_r1": 0.5, "i2t_r1": 0.389}))
    assert list(tmp_path.iterdir()) == []
    write(model, tmp_path / "a point", int8=True, gate=Gate({"t2i_r1": 0.5, "i2t_r1": 0.39}))  # not more than 1
    gate = Gate({"t2i_r1": 0.51, "i2t_r1": 0.389})
    record = write(model, tmp_path / "out", int8=True, gate=gate, max_loss=1.2)
    assert gate.models == [model.identity, f"{model.identity}-int8"]
    assert record.own["int8"]["gate"] == {
        "data": "ten images",
        "max_loss": 1.2,
        "before": {"t2i_r1": 0.5, "i2t_r1": 0.4},
        "after": {"t2i_r1": 0.51, "i2t_r1": 0.389},
    }
    loaded = jclip.load(tmp_path / "out")
    assert loaded.identity == f"{model.identity}-int8"
    wanted = model.encode_text(TEXTS)
    assert 0.99 < (loaded.encode_text(TEXTS) * wanted).sum(axis=1).min() < 1 - 1e-7
    assert record.own["int8"]["lowest_cosine"]["text"] > 0.99
    kinds = {node.op_type for node in onnx.load(tmp_path / "out" / "text.onnx").graph.node}
    assert "MatMulInteger" in kinds
