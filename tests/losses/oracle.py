"""The contrastive loss and its gradients in float64 numpy, written from the definition."""

import numpy as np


def contrastive(image_bd, text_bd, logit_scale, image_ids_b=None, text_ids_b=None):
    """(loss, (image gradient, text gradient, logit scale gradient), (image-to-text R@1, text-to-image R@1))."""
    image_bd, text_bd = np.asarray(image_bd, np.float64), np.asarray(text_bd, np.float64)
    scale, size = np.exp(np.float64(logit_scale)), len(image_bd)
    image_norm_b1, text_norm_b1 = (np.linalg.norm(x, axis=1, keepdims=True) for x in (image_bd, text_bd))
    z_bd, w_bd = image_bd / image_norm_b1, text_bd / text_norm_b1
    logits_bb = scale * z_bd @ w_bd.T
    own_b, masked_bb = np.diag(logits_bb), np.zeros((size, size), bool)
    for ids in (image_ids_b, text_ids_b):
        if ids is not None:
            masked_bb |= np.equal.outer(ids, ids)
    np.fill_diagonal(masked_bb, False)

    def log_softmax(axis):
        kept = np.where(masked_bb, -np.inf, logits_bb)
        kept = kept - kept.max(axis=axis, keepdims=True)
        return kept - np.log(np.exp(kept).sum(axis=axis, keepdims=True))

    rows_bb, columns_bb = log_softmax(1), log_softmax(0)
    loss = -(np.diag(rows_bb).mean() + np.diag(columns_bb).mean()) / 2
    to_logits_bb = (np.exp(rows_bb) + np.exp(columns_bb) - 2 * np.eye(size)) / (2 * size)

    def through_norm(unit_bd, norm_b1, to_unit_bd):
        return (to_unit_bd - unit_bd * (unit_bd * to_unit_bd).sum(axis=1, keepdims=True)) / norm_b1

    gradients = (
        through_norm(z_bd, image_norm_b1, scale * to_logits_bb @ w_bd),
        through_norm(w_bd, text_norm_b1, scale * to_logits_bb.T @ z_bd),
        (to_logits_bb * logits_bb).sum(),
    )
    negatives_bb = np.where(masked_bb | np.eye(size, dtype=bool), -np.inf, logits_bb)
    recalls = tuple((own_b - negatives_bb.max(axis=axis) > 1e-6 * scale).mean() for axis in (1, 0))
    return loss, gradients, recalls
