"""Both papers' recipes at reduced size, ready to train."""

from pathlib import Path

import pytest

from jclip.cli.configs import load_config
from jclip.train.planning.reduced import reduce

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = ("altclip/vit_l_14.py", "chinese_clip/vit_b_16.py")


@pytest.fixture(params=RECIPES, ids=lambda recipe: recipe.split("/")[0])
def recipe(request, tmp_path):
    return reduce(load_config(str(CONFIGS / request.param)), tmp_path / "inputs")


@pytest.fixture
def chinese_clip(tmp_path):
    return reduce(load_config(str(CONFIGS / RECIPES[1])), tmp_path / "inputs")
