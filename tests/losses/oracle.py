"""The contrastive losses and their gradients in float64 numpy, written from the definitions."""

from typing import NamedTuple

import numpy as np


class Expected(NamedTuple):
    """Loss, its gradients with respect to image and text features, logit scale and bias, and R@1 in both directions.

    Errors of gradients are relative to `sizes`: the norm for features, and for the two scalars the sum of the absolute
    terms, because their terms have both signs.
    """

    loss: float
    gradients: tuple
    sizes: tuple
    recalls: tuple


def contrastive(
    image_bd,
    text_bd,
    logit_scale,
    logit_bias=0.0,
    image_ids_b=None,
    text_ids_b=None,
    *,
    kind="softmax",
    duplicates="mask",
):
    """Returns the result that `contrastive_loss` must have, from all logits at once."""
    image_bd, text_bd = np.asarray(image_bd, np.float64), np.asarray(text_bd, np.float64)
    scale, size = np.exp(np.float64(logit_scale)), len(image_bd)
    image_norm_b1, text_norm_b1 = (np.linalg.norm(x, axis=1, keepdims=True) for x in (image_bd, text_bd))
    z_bd, w_bd = image_bd / image_norm_b1, text_bd / text_norm_b1
    cosines_bb = z_bd @ w_bd.T

    own_bb, shared_bb = np.eye(size, dtype=bool), np.zeros((size, size), bool)
    for ids in (image_ids_b, text_ids_b):
        if ids is not None and duplicates != "ignore":
            shared_bb |= np.equal.outer(ids, ids)
    positive_bb = own_bb | shared_bb if duplicates == "positives" else own_bb
    negative_bb = ~(own_bb | shared_bb)

    loss_of = _softmax if kind == "softmax" else _sigmoid
    logits_bb = scale * cosines_bb + (logit_bias if kind == "sigmoid" else 0)
    loss, to_logits_bb = loss_of(logits_bb, positive_bb, negative_bb)

    def through_norm(unit_bd, norm_b1, to_unit_bd):
        return (to_unit_bd - unit_bd * (unit_bd * to_unit_bd).sum(axis=1, keepdims=True)) / norm_b1

    to_image_bd = through_norm(z_bd, image_norm_b1, scale * to_logits_bb @ w_bd)
    to_text_bd = through_norm(w_bd, text_norm_b1, scale * to_logits_bb.T @ z_bd)
    to_scale_bb, to_bias_bb = to_logits_bb * scale * cosines_bb, to_logits_bb * (kind == "sigmoid")
    gradients = (to_image_bd, to_text_bd, to_scale_bb.sum(), to_bias_bb.sum())
    sizes = (*map(np.linalg.norm, gradients[:2]), np.abs(to_scale_bb).sum(), np.abs(to_bias_bb).sum())
    rivals_bb = np.where(negative_bb, logits_bb, -np.inf)
    recalls = tuple((np.diag(logits_bb) - rivals_bb.max(axis=axis) > 1e-6 * scale).mean() for axis in (1, 0))
    return Expected(loss, gradients, sizes, recalls)


def _softmax(logits_bb, positive_bb, negative_bb):
    """Returns the mean over both directions, all rows and each row's positives, and its gradient in the logits.

    As in the losses, 1 - p is computed as the share of the negatives, because a share below 1e-16 would be lost.
    """
    loss, to_logits_bb = 0.0, np.zeros_like(logits_bb)
    for axis in (1, 0):
        positives, negatives = (
            np.logaddexp.reduce(np.where(which_bb, logits_bb, -np.inf), axis=axis, keepdims=True)
            for which_bb in (positive_bb, negative_bb)
        )
        weights_bb = positive_bb / positive_bb.sum(axis=axis, keepdims=True)
        mean = (weights_bb * logits_bb).sum(axis=axis, keepdims=True)
        loss += (positives - mean + np.logaddexp(0, negatives - positives)).mean() / 2
        both = np.logaddexp(positives, negatives)
        among_bb = np.where(positive_bb, np.exp(np.minimum(logits_bb - positives, 0)), 0)
        to_positives_bb = among_bb - weights_bb - among_bb * np.exp(negatives - both)
        to_logits_bb += np.where(positive_bb, to_positives_bb, negative_bb * np.exp(np.minimum(logits_bb - both, 0)))
    return loss, to_logits_bb / (2 * len(logits_bb))


def _sigmoid(logits_bb, positive_bb, negative_bb):
    """Returns the sum over all pairs divided by the batch size, and its gradient in the logits."""
    signs_bb = np.where(positive_bb, 1, -1)
    counted_bb = (positive_bb | negative_bb) / len(logits_bb)
    loss = (counted_bb * np.logaddexp(0, -signs_bb * logits_bb)).sum()
    return loss, -counted_bb * signs_bb * np.exp(-np.logaddexp(0, signs_bb * logits_bb))
