"""Weight decay of each parameter against the rules that the papers' code applies to PyTorch's names."""

import re

import pytest
import transformers

from jclip import rules
from jclip.conversion.families.altclip import ALTCLIP
from jclip.conversion.families.chinese_clip import CN_CLIP
from jclip.conversion.families.family import UNUSED
from jclip.optimizer import CN_CLIP_DECAYS, NO_DECAY_ON_SCALES_AND_BIASES
from tests.conversion import checkpoints

STATISTICS = re.compile(r".*\.running_(mean|var)")


def pairs(family, names):
    """Returns [(our path, their parameter's name)] of a model, with a pair for each layer of a stack."""
    found = []
    for row in family.table(names):
        pattern = re.escape(row.theirs).replace(r"\{i\}", r"\d+")
        matching = [name for name in names if re.fullmatch(pattern, name)]
        assert matching or STATISTICS.fullmatch(row.theirs), row
        found += [(row.ours, name) for name in matching]
    covered = {name for _, name in found}
    assert all(re.fullmatch(UNUSED[1][0], name) for name in set(names) - covered)
    return found


def names_of(model, family):
    spelt = []
    for name, _ in model.named_parameters():
        for pattern, replacement in family.spellings:
            name = re.sub(f"^{pattern}", replacement, name)
        spelt.append(name)
    return spelt


@pytest.mark.parametrize("layers", [2, (2, 1, 1, 1)], ids=["vit", "rn50"])
def test_chinese_clip_decays_what_its_code_decays(layers, tmp_path):
    names = names_of(checkpoints.cn_clip_model(tmp_path / "words", layers), CN_CLIP)
    together = pairs(CN_CLIP, names)
    decays = rules.match(CN_CLIP_DECAYS, dict.fromkeys(path for path, _ in together), what="decays")
    for path, name in together:
        assert decays[path] == all(word not in name for word in ("bn", "ln", "bias", "logit_scale")), (path, name)
    # The two differ only in norms, which we never decay.
    ours = rules.match(NO_DECAY_ON_SCALES_AND_BIASES, decays, what="decays")
    odd = {path for path in decays if ours[path] != decays[path]}
    text = {"text/embedding_norm/scale", "text/layers/attention_norm/scale", "text/layers/mlp_norm/scale"}
    shortcuts = {path for path in decays if path.endswith("/shortcut_norm/scale")}
    assert odd == text | shortcuts and len(shortcuts) == (0 if layers == 2 else 4)


def test_altclips_trainer_decays_what_we_decay_and_the_temperature(tmp_path):
    model = checkpoints.altclip(tmp_path / "words")
    decayed = set(transformers.Trainer.get_decay_parameter_names(None, model))
    own_names = [name for name, _ in model.named_parameters()]
    spelt = dict(zip(names_of(model, ALTCLIP), own_names, strict=True))
    together = pairs(ALTCLIP, list(spelt))
    ours = rules.match(NO_DECAY_ON_SCALES_AND_BIASES, dict.fromkeys(path for path, _ in together), what="decays")
    assert {path for path, name in together if ours[path] != (spelt[name] in decayed)} == {"logit_scale"}
    assert "logit_scale" in decayed
