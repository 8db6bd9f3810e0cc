"""--family where two families have the same keys: refused when the files belie it, else the user's word counts."""

import json

import pytest
import torch

from jclip.conversion.checkpoint import open_checkpoint
from jclip.models.text_encoder import TextEncoderConfig
from tests.conversion import broken, test_families
from tests.conversion.broken import change_json


@pytest.mark.parametrize(
    ("model_type", "family", "says"),
    [
        (
            "bert",
            "xlm-r",
            "is not of the family xlm-r: its model_type is bert and looks like bert, leave --family away",
        ),
        ("xlm-roberta", "bert", "is not of the family bert: its model_type is xlm-roberta and looks like xlm-r, leave"),
    ],
)
def test_an_encoder_that_its_config_belies(model_type, family, says, tmp_path, refused):
    source = broken.write_checkpoint(tmp_path / "source", "bert", TextEncoderConfig(broken.BERT))
    change_json(source / "config.json", lambda config: config.update(model_type=model_type))
    refused.convert(source, "--family", family, says=says)


def test_an_encoder_without_a_config_is_what_the_user_says(tmp_path):
    source = broken.write_checkpoint(tmp_path / "source", "bert", TextEncoderConfig(broken.BERT))
    (source / "config.json").unlink()
    assert open_checkpoint(str(source)).family.name == "bert"
    assert open_checkpoint(str(source), "xlm-r").family.name == "xlm-r"


def test_openais_layout_that_the_files_belie(tmp_path, refused):
    """Each is taken for what it is not; without anything that tells them apart, the user's word counts."""
    folder = broken.write_checkpoint(tmp_path / "source", "open-clip", broken.CLIP)
    assert [open_checkpoint(str(folder), name).family.name for name in ("openai-clip", "open-clip")] == [
        "openai-clip",
        "open-clip",
    ]
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"vision_cfg": {}, "text_cfg": {}}}))
    says = "not of the family openai-clip: open_clip's configuration lies beside it and looks like open-clip, leave"
    refused.convert(folder, "--family", "openai-clip", says=says)
    # An archive, and what is left of one when it was saved as a plain state dict.
    says = "not of the family open-clip: it has what OpenAI's archives alone have, and looks like openai-clip, leave"
    archive, _, _ = test_families.openai_vit(tmp_path / "archive")
    refused.convert(archive, "--family", "open-clip", says=says)
    left = {key: torch.from_numpy(value) for key, value in broken.state("open-clip", broken.CLIP).items()}
    torch.save(left | {"input_resolution": torch.tensor(30)}, tmp_path / "left.pt")
    refused.convert(tmp_path / "left.pt", "--family", "open-clip", says=says)
