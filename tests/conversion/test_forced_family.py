"""--family where two families have the same keys: refused if the files contradict it, otherwise accepted."""

import json

import pytest
import torch

from jclip.conversion.checkpoint import open_checkpoint
from jclip.models.text_encoder import TextEncoderConfig
from tests.conversion import broken
from tests.conversion.broken import change_json


@pytest.mark.parametrize(
    ("model_type", "family", "says"),
    [
        (
            "bert",
            "xlm-r",
            "is not of the family xlm-r: its model_type is bert. It looks like bert: omit --family",
        ),
        ("xlm-roberta", "bert", "is not of the family bert: its model_type is xlm-roberta. It looks like xlm-r: omit"),
    ],
)
def test_a_family_that_contradicts_the_config_is_refused(model_type, family, says, tmp_path, refused):
    source = broken.write_checkpoint(tmp_path / "source", "bert", TextEncoderConfig(broken.BERT))
    change_json(source / "config.json", lambda config: config.update(model_type=model_type))
    refused.convert(source, "--family", family, says=says)


def test_without_a_config_the_given_family_is_accepted(tmp_path):
    source = broken.write_checkpoint(tmp_path / "source", "bert", TextEncoderConfig(broken.BERT))
    (source / "config.json").unlink()
    assert open_checkpoint(str(source)).family.name == "bert"
    assert open_checkpoint(str(source), "xlm-r").family.name == "xlm-r"


def test_a_family_that_contradicts_the_files_is_refused(checkpoint_of, tmp_path, refused):
    """Without a file that tells the families apart, --family is accepted."""
    folder = broken.write_checkpoint(tmp_path / "source", "open-clip", broken.CLIP)
    assert [open_checkpoint(str(folder), name).family.name for name in ("openai-clip", "open-clip")] == [
        "openai-clip",
        "open-clip",
    ]
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"vision_cfg": {}, "text_cfg": {}}}))
    says = "not of the family openai-clip: open_clip's configuration is beside it. It looks like open-clip: omit"
    refused.convert(folder, "--family", "openai-clip", says=says)
    # An archive, and an archive's contents saved as a plain state dict.
    says = "not of the family open-clip: it has the buffers of OpenAI's archives. It looks like openai-clip: omit"
    refused.convert(checkpoint_of("openai_vit")[0], "--family", "open-clip", says=says)
    left = {key: torch.from_numpy(value) for key, value in broken.state("open-clip", broken.CLIP).items()}
    torch.save(left | {"input_resolution": torch.tensor(30)}, tmp_path / "left.pt")
    refused.convert(tmp_path / "left.pt", "--family", "open-clip", says=says)
