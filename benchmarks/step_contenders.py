"""Training steps of Chinese-CLIP that `benchmarks.on_a_gpu` compares: jclip's, and cn_clip's in PyTorch.

Weights and batches are random, and stay on the device. Augmentation is outside; jclip also normalises its images.
`benchmarks.train_step` uses cn_clip's loss and optimizer too.
"""

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Literal

import numpy as np

Precision = Literal["float16", "bfloat16", "float32"]
SECOND_STAGE = 1
"""Index of the stage that trains both towers."""


def recipe(size: str, pairs: int, *, tiny: bool = False) -> Any:
    """Returns the recipe of a size, such as "vit_b_16", with `pairs` pairs a step and random weights.

    With `tiny` its towers have two layers of 64 channels.
    """
    from jclip.configs.loading import load_config

    run = load_config(f"chinese_clip/{size}")
    stages = tuple(replace(stage, batch_size=pairs) for stage in run.stages)
    run = replace(run, stages=stages, starts_from=((r".*", ""),))
    if not tiny:
        return run
    stages = tuple(replace(stage, context_length=16) for stage in stages)
    model = run.model.reduced(32, 999, 16)
    return replace(run, model=model, stages=stages, preprocessing=replace(run.preprocessing, size=32))


def random_batch(shapes: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns a batch of random pixels, and of texts without padding."""
    draw = np.random.default_rng(0)
    return {name: draw.integers(5, 250, shape.shape).astype(shape.dtype) for name, shape in shapes.items()}


class JclipStep:
    """jclip's compiled step on the first device.

    Attributes:
      pairs: pairs of a step.
      flops: FLOPs of the step's products, without those that rematerialisation repeats.
      compile_seconds: seconds to trace and compile.
      planned: bytes on a device, from the compiler, as `jclip plan` prints them.
      peak_before: `peak` before the first step.
    """

    def __init__(self, run: Any, index: int = SECOND_STAGE):
        import jax

        from jclip.train.assembly import assemble, devices_of
        from jclip.train.planning.flops import count_flops
        from jclip.train.planning.stage_plan import device_bytes

        devices = devices_of(run, jax.devices()[:1])  # as PyTorch
        part = assemble(run, index, devices)
        program, key = part.program, jax.random.key(0)
        self._mesh, self._device = part.mesh, part.mesh.devices.flat[0]
        self.pairs = part.stage.batch_size
        plain = assemble(replace(run, remat="none", attention="xla"), index, devices)
        with jax.set_mesh(self._mesh):
            self.flops = count_flops(plain.step, part.state_shapes, program.constants, program.batch, key)
            self._state = part.taken_of(part.start())
            self._inputs = program.constants, part.place(random_batch(program.batch)), key
            begun = time.perf_counter()
            self._step = part.program_for(self._state, *self._inputs)
        self.compile_seconds = time.perf_counter() - begun
        self.planned = device_bytes(part)  # of the same program, which is kept
        self.peak_before = self.peak()

    def run(self, steps: int) -> None:
        """Computes `steps` steps, and returns after the last."""
        import jax

        with jax.set_mesh(self._mesh):
            for _ in range(steps):
                self._state, metrics = self._step(self._state, *self._inputs)
        jax.block_until_ready(metrics)

    def peak(self) -> int | None:
        """Returns the largest number of bytes in use on a device since the process began; None on a CPU."""
        return (self._device.memory_stats() or {}).get("peak_bytes_in_use")


def cn_clip_optimizer(model: Any, settings: Any) -> Any:
    """Returns cn_clip's AdamW for the parameters that train: norms, biases and the logit scale have no weight decay.

    `settings` are the optimizer's settings of one of jclip's stages.
    """
    import torch

    decayed, others = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_other = any(part in name for part in ("bn", "ln", "bias", "logit_scale"))
            (others if is_other else decayed).append(parameter)
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
    )


def cn_clip_loss(model: Any, images: Any, texts: Any) -> Any:
    """Returns the contrastive loss of a batch, as cn_clip's training script computes it on one device."""
    import torch

    image, text, scale = model(images, texts)
    logits = scale * image @ text.T
    labels = torch.arange(len(logits), device=logits.device)
    return sum(torch.nn.functional.cross_entropy(each, labels) for each in (logits, logits.T)) / 2


class CnClipStep:
    """cn_clip's model with the loss, the optimizer and the mixed precision of its training script, on one device.

    Attributes:
      pairs: pairs of a step.
    """

    def __init__(
        self, run: Any, index: int = SECOND_STAGE, *, precision: Precision = "float16", checkpointing: bool = False
    ):
        from jclip.conversion.parity import peers, references

        peers.make_importable()
        import torch

        stage = run.stages[index]
        self._torch, self.pairs = torch, stage.batch_size
        self._on = "cuda" if torch.cuda.is_available() else "cpu"
        self._dtype = getattr(torch, precision)
        torch.manual_seed(0)
        self._model = references.cn_clip({}, run.model).model.float().to(self._on).train()
        if checkpointing:
            self._model.set_grad_checkpointing()
        side, draw = run.preprocessing.size, np.random.default_rng(0)
        images = draw.normal(size=(self.pairs, 3, side, side)).astype(np.float32)
        texts = draw.integers(5, 250, (self.pairs, stage.context_length))
        self._images, self._texts = torch.from_numpy(images).to(self._on), torch.from_numpy(texts).to(self._on)
        self._optimizer = cn_clip_optimizer(self._model, stage.optimizer)
        # Gradients of float16 underflow unless the loss is scaled.
        self._scaler = torch.amp.GradScaler(self._on, enabled=precision == "float16")

    def run(self, steps: int) -> None:
        """Computes `steps` steps, and returns after the last."""
        torch, scaler = self._torch, self._scaler
        for _ in range(steps):
            self._optimizer.zero_grad()
            with self._mixed():
                loss = cn_clip_loss(self._model, self._images, self._texts)
            scaler.scale(loss).backward()
            scaler.step(self._optimizer)
            scaler.update()
            with torch.no_grad():
                self._model.logit_scale.clamp_(0, np.log(100))
        if self._on == "cuda":
            torch.cuda.synchronize()

    def peak(self) -> int | None:
        """Returns the largest number of allocated bytes; None on a CPU."""
        return self._torch.cuda.max_memory_allocated() if self._on == "cuda" else None

    def _mixed(self) -> AbstractContextManager[Any]:
        if self._dtype == self._torch.float32:
            return nullcontext()
        mixed: AbstractContextManager[Any] = self._torch.autocast(self._on, dtype=self._dtype)
        return mixed
