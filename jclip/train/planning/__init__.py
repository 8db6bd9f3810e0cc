"""Plans of runs that have not started.

- `run_plan` plans a run, on this process's devices (`stage_plan`) or on a target's (`on_target`).
- `remat` chooses how much a step recomputes, `fitting` the changes with which a run fits, and `largest_batch` the
  largest batch that fits.
- `flops` counts a step's arithmetic. `measuring` runs a few steps.
- `reduced` makes a small copy of a run, which takes seconds.
"""
