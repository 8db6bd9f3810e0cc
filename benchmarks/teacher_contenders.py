"""Contenders of `benchmarks.teacher_learning`: a run's own stage, and transformers' models in PyTorch."""

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from benchmarks.contenders import open_torch
from jclip.bundle import Bundle, save_bundle
from jclip.conversion.exporting import export
from jclip.data.batches.examples import Batch
from jclip.train.assembly import StageParts
from jclip.train.caching import fill
from jclip.train.layout import merge
from jclip.train.state import TrainState


@dataclass
class Contender:
    """One way to run the stage, in jclip.

    Attributes:
      name: display name.
      part: the stage, ready to run.
      steps: number of steps of a turn.
      speeds: sentences a second of each turn.
      sentences, tokens: numbers read in all turns; padding counts as tokens.
      making: seconds to fill its cache.
      first_loss: loss of the first step.
    """

    name: str
    part: StageParts
    steps: int
    speeds: list[float] = field(default_factory=list)
    sentences: int = 0
    tokens: int = 0
    making: float = 0.0
    first_loss: float = 0.0

    def begin(self) -> None:
        """Fills the cache, compiles the step for every length, and starts the prefetching of batches."""
        part, data = self.part, self.part.open_batches()
        self._state: TrainState = part.start()
        if part.stage.cache:
            begun = time.perf_counter()
            filled = fill(part, data, self._state, lambda: False, lambda done, rows: None)
            if filled is None:
                raise SystemExit("the cache was not filled")
            data = data.with_features(filled.caches)
            if filled.computed:  # the second contender with a cache finds the first one's
                self.making = time.perf_counter() - begun
                print(f"the cache of {filled.computed} sentences took {self.making:.0f} s to fill")
        self._state = part.taken_of(self._state)
        self._step, self._constants = part.compiled, part.constants()
        batch = data[0]
        lengths = *part.stage.buckets, part.stage.context_length
        losses = [
            self._train({**batch, "student": np.resize(batch["student"], (len(batch["student"]), length))})
            for length in lengths
        ]
        self.first_loss = float(losses[0])
        jax.block_until_ready(self._state)
        self._batches: Iterator[Batch] = data.iterate()

    def measure(self) -> None:
        """Measures one turn."""
        begun = time.perf_counter()
        sentences = 0
        for _ in range(self.steps):
            batch = next(self._batches)
            self._train(batch)
            sentences += len(batch["student"])
            self.tokens += batch["student"].size
        jax.block_until_ready(self._state)
        self.speeds.append(sentences / (time.perf_counter() - begun))
        self.sentences += sentences

    def _train(self, batch: Mapping[str, np.ndarray]) -> Any:
        """Returns the loss."""
        self._state, metrics = self._step(self._state, self._constants, self.part.place(batch), jax.random.key(0))
        return metrics["loss"]


class Peer(Contender):
    """The stage with AltCLIP's student and CLIP's teacher from transformers, with the same weights and batches."""

    def begin(self) -> None:
        """Converts the models, and trains one step."""
        torch = open_torch(len(os.sched_getaffinity(0)))
        import transformers

        run, stage, state = self.part.run, self.part.stage, self.part.start()
        params, tokenizer = jax.device_get(merge(state.trainable, state.frozen)), self.part.open_inputs().tokenizer
        with tempfile.TemporaryDirectory() as folder:
            bundle = Bundle(run.model, params, tokenizer, run.preprocessing, stage.context_length)
            save_bundle(bundle, Path(folder) / "student")
            export(Path(folder) / "student", Path(folder) / "altclip", "hf")
            export(Path(cast(Any, stage.objective).bundle), Path(folder) / "clip", "hf")
            student = transformers.AltCLIPModel.from_pretrained(Path(folder) / "altclip").text_model.eval()
            teacher = transformers.CLIPModel.from_pretrained(Path(folder) / "clip").text_model.eval()
        settings = stage.optimizer
        groups = [
            {"params": [value for value in student.parameters() if (value.ndim > 1) is matrix], "weight_decay": decay}
            for matrix, decay in ((True, settings.weight_decay), (False, 0.0))
        ]
        rate, betas = float(self.part.learning_rate(0)), (settings.beta1, settings.beta2)
        optimizer = torch.optim.AdamW(groups, lr=rate, betas=betas, eps=settings.eps)

        def train(batch: Mapping[str, np.ndarray]) -> float:
            ids, english = (torch.from_numpy(batch[name].astype(np.int64)) for name in ("student", "teacher"))
            with torch.no_grad():
                target = teacher(english).pooler_output
            found = student(ids, attention_mask=(ids != tokenizer.pad_id).long()).pooler_output
            loss = torch.nn.functional.mse_loss(found, target)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), settings.clip_norm)
            optimizer.step()
            return float(loss.detach())

        self._step, self._state = train, None
        data = self.part.open_batches()
        self.first_loss = self._train(data[0])
        self._batches = data.iterate()

    def _train(self, batch: Mapping[str, np.ndarray]) -> float:
        return float(self._step(batch))
