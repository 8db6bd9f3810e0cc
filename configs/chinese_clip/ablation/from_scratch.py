"""Figure 3's "from scratch": no tower is pre-trained (Yang et al. 2022, section 3.1.3).

    jclip train chinese_clip/ablation/from_scratch

The paper shows curves without numbers: far below any pre-trained start, and still rising. It gives neither length nor
learning rate. This run sees as many pairs as both stages together, with the optimizer of stage 1.
"""

from dataclasses import replace

from jclip.configs.chinese_clip.recipe import PAIRS, pretraining
from jclip.stages import Budget
from jclip.train.configuration import Run


def config() -> Run:
    """Returns the run."""
    run = pretraining("vit_b_16")
    stage = replace(run.stages[1], optimizer=run.stages[0].optimizer, budget=Budget(examples=(44 + 15) * PAIRS))
    # The logit scale starts at ln(1 / 0.07), as CLIP's did; that is the model's own initial value.
    return replace(run, name="chinese-clip-from-scratch", stages=(stage,), starts_from=((r".*", ""),))
