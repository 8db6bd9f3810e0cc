"""The recipes: one Python file each, with a function `config()` that returns a `jclip.train.Run`.

    run = jclip.configs.load("chinese_clip/vit_b_16")     # or a file of your own
    run = jclip.configs.load("chinese_clip/finetune", size="vit_b_16", dataset="muge")

Names:
  load: returns the run of a recipe or of a Python file.
  recipes: returns the names of the recipes, with their files.
"""

from typing import TYPE_CHECKING

from jclip.lazy import lazy

if TYPE_CHECKING:
    from jclip.configs.catalogue import recipes as recipes
    from jclip.configs.loading import load_config as load

__all__, __getattr__, __dir__ = lazy(__name__, __file__)
