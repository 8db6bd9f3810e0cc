"""StableHLO exports of published models at their real size, with random weights."""

import jax
import pytest

from jclip.bundle import Bundle
from jclip.data.sources.synthetic import write_tokenizer
from jclip.export import exporting
from jclip.export.formats import ExportOptions, format_named
from jclip.images.preprocess import Preprocessing
from jclip.inference import Model
from jclip.models.build import init_variables
from jclip.models.zoo import get_config


@pytest.mark.slow
@pytest.mark.usefixtures("much_memory")
@pytest.mark.parametrize("name", ["chinese-clip-rn50", "chinese-clip-vit-b-16", "clip-vit-l-14"])
def test_published_models(name, tmp_path):
    """Scanned stacks of 12 and 24 layers, and a whole ResNet, give jclip's features within 1e-6."""
    config = get_config(name)
    variables = jax.device_get(init_variables(config, jax.random.key(0)))
    tokenizer = write_tokenizer(config.text.tokenizer, tmp_path / "words")
    stats = variables.get("batch_stats", {})
    bundle = Bundle(config, variables["params"], tokenizer, Preprocessing(), 52, stats)
    record = exporting.export(
        Model(bundle), tmp_path / "out", format_named("stablehlo"), ExportOptions(), lambda _: None
    )
    assert set(record.own["largest_difference"]) == {"image", "text"}
    assert max(record.own["largest_difference"].values()) <= 1e-6
    assert all(file.stat().st_size < 300_000 for file in (tmp_path / "out").glob("*.stablehlo"))
