"""Teacher learning, AltCLIP's first stage: a text tower learns a frozen teacher's text states from parallel text.

Axes: b global batch, l tokens, m the teacher's tokens, w width of the text state.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from jclip import rules
from jclip.bundle import Bundle, load_bundle, save_bundle
from jclip.config import difference, kind_of, to_json
from jclip.data.batches.examples import ParallelExamples
from jclip.data.batches.loader import Batches
from jclip.data.batches.opened import OpenSources
from jclip.data.inspecting.reading import SourceFacts
from jclip.data.sources.records import Translation
from jclip.errors import JclipError
from jclip.images.preprocess import Preprocessing
from jclip.losses.distillation import teacher_loss
from jclip.marks import BundleFolder
from jclip.models.build import init_variables, shapes
from jclip.models.dual_encoder import DualEncoder, DualEncoderConfig
from jclip.parallel.sharding import on_mesh, param_shardings, place_whole
from jclip.parallel.tables import tower_rules
from jclip.stages import (
    Batch,
    Constants,
    Context,
    FrozenTower,
    MakeBatches,
    Metrics,
    Objective,
    Program,
    Stage,
    TextLength,
)
from jclip.tokenizers.padding import Texts
from jclip.train.planning.reduced import SMALL_CONTEXT, small
from jclip.train.step import in_micro_batches


@kind_of(Objective)
@dataclass(frozen=True)
class TeacherLearning(Objective):
    """Mean squared error to a frozen teacher's text state (Chen et al. 2022, section 3.1).

    A batch holds "student" ids (b, l) and "teacher" ids (b, m) of the same meaning, the teacher's in English, and
    "example" (b,). The teacher's parameters are the constant "teacher". With a cache of the teacher a batch holds
    "target" (b, w) instead of "teacher", and the program has no constants.

    Attributes:
      bundle: the teacher's bundle, a source of `jclip.load`.
      model: the teacher's towers; the bundle must have the same ones.
      context_length: maximum number of the teacher's tokens, special ones included.
    """

    title: ClassVar[str] = "teacher learning"
    reads: ClassVar[type] = Translation
    caches: ClassVar[bool] = True
    figures = (("cosine", "cosine", ".3f"),)

    bundle: BundleFolder
    model: DualEncoderConfig
    context_length: TextLength = 77

    def check(self, stage: Stage, model: DualEncoderConfig, trains: frozenset[str]) -> None:
        """Checks the teacher's context length, and that the text tower trains."""
        if self.context_length > (longest := self.model.text.longest):
            raise JclipError(
                f"stage {stage.name!r}: objective.context_length is {self.context_length}, but the teacher's text "
                f"tower reads {longest} tokens at most: lower it"
            )
        if not any(path.startswith("text/") for path in trains):
            raise JclipError(
                f"stage {stage.name!r} learns nothing: teacher learning trains only the text tower, and none of its "
                "parameters train. Let `trains` match text/.*"
            )

    def check_data(self, stage: Stage, facts: Sequence[SourceFacts]) -> list[str]:
        """Warns of a batch that is larger than the data."""
        total = sum(one.records or 0 for one in facts)
        if stage.batch_size <= total:
            return []
        return [
            f"stage {stage.name!r}: a batch of {stage.batch_size:,} is larger than the data of {total:,} records, so "
            f"every batch repeats sentences: lower batch_size to {total:,} or less"
        ]

    def open(self) -> Bundle:
        """Loads the teacher's bundle, which must have the towers of `model` and finite weights."""
        bundle = load_bundle(self.bundle)
        changed = difference(to_json(self.model), to_json(bundle.config))
        if changed:
            raise JclipError(
                f"the towers of the teacher in {self.bundle} differ from objective.model ({changed[0]}): correct the "
                "model, or choose another teacher"
            )
        for path, leaf in rules.paths_of({"text": bundle.params["text"]}).items():
            if not np.isfinite(leaf).all():
                raise JclipError(
                    f"the teacher in {self.bundle}: {path} holds infinities or NaN, so no loss can be computed: "
                    "convert the weights again, or choose another teacher"
                )
        return bundle

    def batches(self, make: MakeBatches, opened: Any) -> Batches:
        """Builds batches with the teacher's ids."""
        texts = Texts(opened.tokenizer, self.context_length)
        return make(lambda sources, decoder: ParallelExamples(sources, texts))

    def program(self, context: Context) -> Program:
        """Builds the loss, and the shapes of its batches and of the teacher."""
        stage = context.stage
        ids, example = context.rows((stage.context_length,), jnp.int32), context.rows((), jnp.int32)
        params = self._param_shapes(context.mesh)
        if stage.cache:
            state = jax.eval_shape(self._state, params, jax.ShapeDtypeStruct((1, 3), jnp.int32))
            target = context.rows((state.shape[1],), jnp.float32)
            return Program(self._loss(context), {"student": ids, "target": target, "example": example})
        teacher = context.rows((self.context_length,), jnp.int32)
        batch = {"student": ids, "teacher": teacher, "example": example}
        return Program(self._loss(context), batch, {"teacher": params})

    def constants(self, opened: Any, program: Program) -> Constants:
        """Returns the teacher's parameters; nothing with a cache."""
        if not program.constants:
            return {}
        return {"teacher": _placed(opened, program.constants["teacher"])}

    def frozen_tower(self, context: Context, opened: Any, params: dict[str, Any], stats: dict[str, Any]) -> FrozenTower:
        """Returns the teacher's text tower."""
        texts = Texts(opened.tokenizer, self.context_length)

        def read(sources: OpenSources, source: int, record: int, picture: int) -> np.ndarray:
            return texts([sources.records[source][record].english])[0]

        return FrozenTower(
            name="teacher",
            variables={"params": _placed(opened, self._param_shapes(context.mesh))},
            apply=lambda variables, ids_bm: self._state(variables["params"], ids_bm),
            read=read,
            blank=np.full(self.context_length, opened.tokenizer.pad_id, np.int32),
            description={
                "tower": to_json(self.model.text),
                "head_width": self.model.head_width,
                "dtype": str(jnp.dtype(DualEncoder(self.model).compute.dtype)),
                "tokenizer": opened.tokenizer.fingerprint(),
                "context_length": self.context_length,
            },
        )

    def reduced(self, folder: Path) -> "TeacherLearning":
        """Returns this objective with a small random teacher."""
        model, tokenizer = small(self.model, folder / "teacher_tokenizer")
        params = jax.device_get(init_variables(model, jax.random.key(0)))["params"]
        preprocessing = Preprocessing(size=model.image.image_size)
        save_bundle(Bundle(model, params, tokenizer, preprocessing, SMALL_CONTEXT), folder / "teacher")
        return replace(self, bundle=str(folder / "teacher"), model=model, context_length=SMALL_CONTEXT)

    def _param_shapes(self, mesh: jax.sharding.Mesh) -> dict[str, Any]:
        """Returns the shapes and shardings of the teacher's text tower, {"text": …}."""
        text = {"text": shapes(self.model)["params"]["text"]}
        shardings = param_shardings(text, mesh, tower_rules(self.model, "text", mesh))
        return cast(dict[str, Any], on_mesh(text, shardings))

    def _state(self, params: dict[str, Any], ids_bm: jax.Array) -> Any:
        """Computes the teacher's text states, (b, w)."""
        return DualEncoder(self.model).apply({"params": params}, ids_bm, method="text_state")

    def _loss(self, context: Context) -> Any:
        model, stage = context.towers, context.stage

        def loss(
            params: dict[str, Any], stats: dict[str, Any], constants: Constants, batch: Batch, key: jax.Array
        ) -> tuple[jax.Array, tuple[Metrics, Any]]:
            def student(ids_bl: jax.Array, example_b: jax.Array) -> Any:
                rows_b = example_b if stage.dropout else None
                return model.apply(
                    {"params": params}, ids_bl, rows_b=rows_b, method="text_state", rngs={"dropout": key}
                )

            if "target" in batch:
                target_bw = batch["target"]
            else:
                teacher = partial(self._state, constants["teacher"])
                target_bw = in_micro_batches(teacher, stage.micro_batches, batch["teacher"])
            state_bw = in_micro_batches(student, stage.micro_batches, batch["student"], batch["example"])
            value, metrics = teacher_loss(state_bw, target_bw)
            return value, (metrics, stats)

        return loss


def _placed(teacher: Bundle, places: dict[str, Any]) -> dict[str, Any]:
    shardings = jax.tree.map(lambda shape: shape.sharding, places)
    return cast(dict[str, Any], place_whole({"text": teacher.params["text"]}, shardings))
