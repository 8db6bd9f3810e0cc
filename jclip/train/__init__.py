"""Training: the configuration of a run, and what runs it.

    from jclip.train import Budget, Contrastive, Optimizer, Run, Stage, run

    run(Run(..., stages=(Stage("frozen", Contrastive(), ...), ...)), "runs/mine")

Names:
  run: trains all stages of a run with its evaluations, or resumes it.
  plan: plans a run without training: parameters, FLOPs, memory, time, and settings that fit.
  Run: configuration of a run: model, tokenizer, preprocessing and stages.
  Stage: one stage: objective, data, batch size, budget, optimizer, and the parameters that train.
  Contrastive, TeacherLearning: objectives.
  Budget: length of a stage, in steps, epochs or examples.
  Optimizer: update rule, learning-rate schedule and weight decay.
  MeshShape: sizes of the axes of the mesh.
  HostAugmentation, Augmentation: augmentation of images on the host and on the device.
  Retrieval, Classification, Probe: evaluations during a run.
  Outcome: result of a run: bundles, position, and whether it has finished.
  make_step: returns the pure training step of a loss and an optimizer.
  TrainState: parameters, statistics and optimizer slots.

For your own objectives and evaluations:
  kind_of: registers a class, so that configurations can name it.
  Objective, Context, Program, FrozenTower: interface of an objective.
  MakeBatches: type of the function from which an objective gets its batches.
  TextLength: type of a field that holds a number of tokens.
  Folder, Free: marks of fields: a folder, which may move; a field that a resumed run may change.
  encode_image: returns the embeddings of images in 0..255, which it normalises first.
  in_micro_batches: encodes a batch in parts, with exact gradients.
  place_whole: places host arrays on the mesh.
  EvaluationConfig: interface of an evaluation.
"""

from typing import TYPE_CHECKING

from jclip.lazy import lazy

if TYPE_CHECKING:
    from jclip.config import kind_of as kind_of
    from jclip.evaluators import Classification as Classification
    from jclip.evaluators import Probe as Probe
    from jclip.evaluators import Retrieval as Retrieval
    from jclip.images.on_device import Augmentation as Augmentation
    from jclip.images.on_host import HostAugmentation as HostAugmentation
    from jclip.marks import Folder as Folder
    from jclip.marks import Free as Free
    from jclip.optimizer import Optimizer as Optimizer
    from jclip.parallel.mesh import MeshShape as MeshShape
    from jclip.parallel.sharding import place_whole as place_whole
    from jclip.running import run as run
    from jclip.stages import Budget as Budget
    from jclip.stages import Context as Context
    from jclip.stages import FrozenTower as FrozenTower
    from jclip.stages import MakeBatches as MakeBatches
    from jclip.stages import Objective as Objective
    from jclip.stages import Program as Program
    from jclip.stages import Stage as Stage
    from jclip.stages import TextLength as TextLength
    from jclip.train.configuration import Run as Run
    from jclip.train.evaluations import EvaluationConfig as EvaluationConfig
    from jclip.train.objectives.contrastive import Contrastive as Contrastive
    from jclip.train.objectives.contrastive import encode_image as encode_image
    from jclip.train.objectives.teacher_learning import TeacherLearning as TeacherLearning
    from jclip.train.outcome import Outcome as Outcome
    from jclip.train.planning.run_plan import plan as plan
    from jclip.train.state import TrainState as TrainState
    from jclip.train.step import in_micro_batches as in_micro_batches
    from jclip.train.step import make_step as make_step

__all__, __getattr__, __dir__ = lazy(__name__, __file__, needs=("optax", "orbax", "grain"))
