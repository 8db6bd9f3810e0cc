"""Batches for the tests of the contrastive loss, and the loss with all its gradients, compiled once."""

from functools import cache, partial

import jax
import numpy as np

from jclip.losses.contrastive import contrastive_loss
from jclip.parallel.mesh import MeshShape, make_mesh

SCALE_100 = np.float32(np.log(100))
FORMS = ("dense", "chunked", "ring")
KINDS = ("softmax", "sigmoid")
DUPLICATES = ("mask", "positives", "ignore")


@cache
def mesh_of(devices, **shape):
    return make_mesh(MeshShape(**shape), jax.devices()[:devices])


@cache
def compiled(mesh, **how):
    """Returns (image, text, logit scale, logit bias, image ids, text ids) -> (loss, metrics), four gradients."""

    def loss(image_bd, text_bd, scale, bias, image_ids_b, text_ids_b):
        return contrastive_loss(
            image_bd, text_bd, scale, bias, mesh=mesh, image_ids_b=image_ids_b, text_ids_b=text_ids_b, **how
        )

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True))


@cache
def _forward(**how):
    return jax.jit(partial(contrastive_loss, **how))


def loss_value(image_bd, text_bd, logit_scale, logit_bias=None, image_ids_b=None, text_ids_b=None, **how):
    """Returns (loss, metrics), compiled as one program."""
    return _forward(**how)(image_bd, text_bd, logit_scale, logit_bias, image_ids_b=image_ids_b, text_ids_b=text_ids_b)


def features(size, width, likeness, seed=0):
    """Returns image and text features with random norms; a greater `likeness` makes pairs closer."""
    rng = np.random.default_rng(seed)
    image_bd = rng.normal(size=(size, width))
    text_bd = likeness * image_bd + rng.normal(size=(size, width))
    lengths = np.exp(rng.normal(size=(2, size, 1)))
    return (image_bd * lengths[0]).astype(np.float32), (text_bd * lengths[1]).astype(np.float32)


def ids(size, distinct, seed=1):
    return np.random.default_rng(seed).integers(0, distinct, size=(2, size)).astype(np.int32)


def relative_errors(found, expected):
    """Yields the errors of the four gradients, relative to their sizes; see `oracle.Expected`."""
    for ours, theirs, size in zip(found, expected.gradients, expected.sizes, strict=True):
        yield np.linalg.norm(np.asarray(ours, np.float64) - theirs) / max(size, np.finfo(np.float32).tiny)
