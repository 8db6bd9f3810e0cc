"""Figure 3's "w/o two-stage": everything trains from the start (Yang et al. 2022, section 3.1.3).

    jclip train configs/chinese_clip/ablation/one_stage.py

The paper shows curves alone, no numbers: as good as two stages on MUGE, worse on the translated sets. It says neither
how long this ran nor at which rate; this spends the pairs of both stages at stage 2's.
"""

from dataclasses import replace

from jclip.configs.chinese_clip.recipe import PAIRS, pretraining
from jclip.stages import Budget
from jclip.train.configuration import Run


def config() -> Run:
    run = pretraining("vit_b_16")
    everything = replace(run.stages[1], budget=Budget(examples=(44 + 15) * PAIRS))
    return replace(run, name="chinese-clip-one-stage", stages=(everything,))
