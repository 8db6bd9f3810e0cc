"""The contrastive objective, over the global batch: CLIP, Chinese-CLIP, and AltCLIP's second stage.

Axes: b global batch, h height, w width, c channels, l tokens, e embedding.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jclip.config import kind_of, to_json
from jclip.data.batches.examples import PairExamples
from jclip.data.batches.loader import Batches
from jclip.data.batches.opened import OpenSources
from jclip.data.batches.sampling import Captions
from jclip.data.inspecting.reading import SourceFacts
from jclip.data.sources.records import Pair
from jclip.errors import JclipError
from jclip.images.on_device import Augmentation, augment
from jclip.images.on_host import Decoder, HostAugmentation
from jclip.images.preprocess import Preprocessing, normalise, to_array
from jclip.losses.contrastive import ContrastiveLoss, contrastive_loss
from jclip.models.build import variables_of
from jclip.models.dual_encoder import DualEncoder, DualEncoderConfig
from jclip.ranges import BelowOne
from jclip.stages import Batch, Constants, Context, FrozenTower, MakeBatches, Metrics, Objective, Program, Stage
from jclip.train.step import in_micro_batches

_MOST_IDLE = 0.1  # share of pairs without a negative, above which to warn


@kind_of(Objective)
@dataclass(frozen=True)
class Contrastive(Objective):
    """The contrastive loss between images and captions.

    A batch holds "image" uint8 (b, h, w, 3), "text" ids (b, l), "image_id", "text_id" and "example" (b,). With a cache
    of the image tower it holds "image_feature" (b, e) instead of "image".

    Attributes:
      loss: kind and implementation of the loss, and treatment of duplicates.
      captions: "one": an example is a record, with one of its captions drawn. "all": an example is an image with one
        of its captions, as in cn_clip; all records are read once, at the start.
      host_augmentation: augmentation of training images while they are decoded: crop, flip, AutoAugment.
      augmentation: augmentation of training images on the device, after that on the host. A setting x draws uniformly
        from -x..x; 0 switches it off.
      patch_dropout: share of each image's patches that a ViT drops (Li et al. 2022, FLIP); 0.5 halves its work.
    """

    title: ClassVar[str] = "contrastive"
    reads: ClassVar[type] = Pair
    caches: ClassVar[bool] = True
    figures = (("text_to_image_r1", "R@1 t2i", ".3f"), ("image_to_text_r1", "i2t", ".3f"), ("scale", "scale", ".4g"))

    loss: ContrastiveLoss = ContrastiveLoss()
    captions: Captions = "one"
    host_augmentation: HostAugmentation = HostAugmentation()
    augmentation: Augmentation = Augmentation()
    patch_dropout: BelowOne = 0.0

    def check(self, stage: Stage, model: DualEncoderConfig, trains: frozenset[str]) -> None:
        """Checks the logit bias, batch norm in micro-batches, and the cache."""
        if self.loss.kind == "sigmoid" and model.logit_bias_init is None:
            raise JclipError(
                f"stage {stage.name!r}: objective.loss.kind is sigmoid, but the model has no logit bias: set "
                "model.logit_bias_init (SigLIP: -10.0, with logit_scale_init ln 10), or choose softmax"
            )
        image_trains = _trains_images(trains)
        if stage.micro_batches > 1 and image_trains and model.has_statistics:
            raise JclipError(
                f"stage {stage.name!r} trains an image tower with batch norm, which needs the whole batch at once: set "
                "micro_batches to 1, or freeze image/.*"
            )
        augmented = self.host_augmentation.changes or self.augmentation != Augmentation()
        reasons = (
            (image_trains, "its image tower trains: freeze image/.*"),
            (augmented, "its images are augmented: omit augmentation and host_augmentation"),
            (self.patch_dropout > 0, "patch_dropout drops other patches each time: set it to 0"),
        )
        for met, words in reasons:
            if stage.cache and met:
                raise JclipError(
                    f"stage {stage.name!r}: cache needs image features that do not change, but {words}, or omit cache"
                )

    def check_data(self, stage: Stage, facts: Sequence[SourceFacts]) -> list[str]:
        """Checks that pairs have negatives."""
        total, warnings = sum(one.records or 0 for one in facts), []
        for what, several, count in (
            ("caption", "captions", sum(one.texts for one in facts)),
            ("image", "images", sum(one.images for one in facts)),
        ):
            if count > 1:
                continue
            if all(one.whole for one in facts):
                raise JclipError(
                    f"stage {stage.name!r} can learn nothing: all of its {total:,} records have the same {what}, so no "
                    f"pair has a negative. Give it data with different {several}"
                )
            warnings.append(
                f"stage {stage.name!r}: all sampled records have the same {what}; pairs that share one are not each "
                "other's negatives"
            )
        if self.captions == "all":
            return warnings
        if stage.batch_size > total:
            how = _REPEATED.get(self.loss.duplicates, "as each other's negatives")
            warnings.append(
                f"stage {stage.name!r}: a batch of {stage.batch_size:,} is larger than the data of {total:,} records, "
                f"so every batch repeats pairs, {how}: lower batch_size to {total:,} or less"
            )
        elif self.loss.duplicates != "ignore" and not warnings:
            duplicates = sum(((one.records or 0) / total) ** 2 * one.alike for one in facts)
            idle = duplicates ** (stage.batch_size - 1)
            if idle > _MOST_IDLE:
                warnings.append(
                    f"stage {stage.name!r}: about {idle:.0%} of the pairs have no negative in their batch of "
                    f"{stage.batch_size:,}, because many records share an image or a caption: raise batch_size"
                )
        return warnings

    def batches(self, make: MakeBatches, opened: Any) -> Batches:
        """Builds batches of augmented images with captions."""

        def examples(sources: OpenSources, decoder: Callable[[HostAugmentation], Decoder]) -> PairExamples:
            return PairExamples(sources, decoder(self.host_augmentation))

        return make(examples, captions=self.captions)

    def program(self, context: Context) -> Program:
        """Builds the contrastive loss and the shapes of its batches."""
        return Program(_loss(self, context), self._batch(context))

    def _batch(self, context: Context) -> dict[str, jax.ShapeDtypeStruct]:
        model, number = context.towers.config, context.rows((), jnp.int32)
        rest = {"text_id": number, "image_id": number, "example": number}
        rest["text"] = context.rows((context.stage.context_length,), jnp.int32)
        if context.stage.cache:
            return {"image_feature": context.rows((model.embed_dim,), jnp.float32), **rest}
        side = model.image.image_size
        return {"image": context.rows((side, side, 3), jnp.uint8), **rest}

    def frozen_tower(self, context: Context, opened: Any, params: dict[str, Any], stats: dict[str, Any]) -> FrozenTower:
        """Returns the image tower."""
        model, preprocessing = context.towers, context.preprocessing

        def read(sources: OpenSources, source: int, record: int, picture: int) -> np.ndarray:
            shown = sources.records[source][record].pictures[picture]
            return to_array(preprocessing, shown, sources.picture_name(source, record, shown))

        return FrozenTower(
            name="image",
            variables=variables_of({"image": params["image"]}, stats),
            apply=lambda variables, pixels_bhwc: encode_image(model, preprocessing, variables, pixels_bhwc),
            read=read,
            blank=np.zeros((preprocessing.size, preprocessing.size, 3), np.uint8),
            description={
                "tower": to_json(model.config.image),
                "width": model.config.embed_dim,
                "dtype": str(jnp.dtype(model.compute.dtype)),
                "preprocessing": to_json(preprocessing),
            },
        )


_REPEATED = {"mask": "which are not each other's negatives", "positives": "which are each other's positives"}


def _trains_images(trains: frozenset[str]) -> bool:
    return any(path.startswith("image/") for path in trains)


def _loss(objective: Contrastive, context: Context) -> Any:
    """Returns the loss. Batch statistics are updated only if the image tower trains."""
    stage, train_image = context.stage, _trains_images(context.trains)
    model = context.towers.clone(patch_dropout=objective.patch_dropout)

    def loss(
        params: dict[str, Any], stats: dict[str, Any], constants: Constants, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Metrics, Any]]:
        draw, drop = jax.random.split(key)
        rngs = {"dropout": drop}
        variables = variables_of(params, stats)
        mutable = ["batch_stats"] if stats and train_image else []

        def image(pixels_bhwc: jax.Array, example_b: jax.Array) -> Any:
            images_bhwc = augment(objective.augmentation, pixels_bhwc, draw, example_b)
            rows_b = example_b if objective.patch_dropout else None
            options = {"train": train_image, "rows_b": rows_b, "rngs": rngs, "mutable": mutable}
            return encode_image(model, context.preprocessing, variables, images_bhwc, **options)

        def text(ids_bl: jax.Array, example_b: jax.Array) -> Any:
            rows_b = example_b if stage.dropout else None
            return model.apply(variables, ids_bl, rows_b=rows_b, method="encode_text", rngs=rngs)

        if "image_feature" in batch:
            image_be, moved = batch["image_feature"].astype(model.compute.dtype), {}
        else:
            image_be, moved = in_micro_batches(image, stage.micro_batches, batch["image"], batch["example"])
        text_be = in_micro_batches(text, stage.micro_batches, batch["text"], batch["example"])
        value, metrics = contrastive_loss(
            image_be,
            text_be,
            params["logit_scale"],
            params.get("logit_bias"),
            **asdict(objective.loss),
            mesh=context.mesh,
            image_ids_b=batch["image_id"],
            text_ids_b=batch["text_id"],
        )
        metrics["scale"] = jnp.exp(params["logit_scale"])
        return value, (metrics, moved.get("batch_stats", stats))

    return loss


def encode_image(
    model: DualEncoder, preprocessing: Preprocessing, variables: dict[str, Any], images_bhwc: jax.Array, **options: Any
) -> Any:
    """Returns the embeddings (b, e), in the model's dtype, of images in 0..255; `options` are those of `apply`."""
    images_bhwc = normalise(preprocessing, images_bhwc.astype(jnp.float32)).astype(model.compute.dtype)
    return model.apply(variables, images_bhwc, method="encode_image", **options)
