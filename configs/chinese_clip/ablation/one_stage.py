"""Figure 3's "w/o two-stage": everything trains from the start (Yang et al. 2022, section 3.1.3).

    jclip train chinese_clip/ablation/one_stage

The paper shows curves without numbers: as good as two stages on MUGE, worse on the translated data sets. It gives
neither length nor learning rate. This run sees as many pairs as both stages together, with the optimizer of stage 2.
"""

from dataclasses import replace

from jclip.configs.chinese_clip.recipe import PAIRS, pretraining
from jclip.stages import Budget
from jclip.train.configuration import Run


def config() -> Run:
    """Returns the run."""
    run = pretraining("vit_b_16")
    everything = replace(run.stages[1], budget=Budget(examples=(44 + 15) * PAIRS))
    return replace(run, name="chinese-clip-one-stage", stages=(everything,))
