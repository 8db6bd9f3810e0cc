"""Assembled stages, for tests that take single steps."""

import jax

from jclip.train.assembly import assemble, devices_of, open_stage, open_tokenizer


def assembled(run, index=0, *, devices=None):
    """A stage ready to run, on the first `devices` devices or all."""
    on = devices_of(run, jax.devices()[:devices])
    return assemble(run, index, on, open_stage(run, index, on, open_tokenizer(run)))


def shapes_of(run, index=0, *, devices=None):
    """A stage of shapes alone."""
    return assemble(run, index, devices_of(run, jax.devices()[:devices]))


def first_inputs(part):
    """The state, constants and batch of a stage's first step; within the mesh."""
    return part.start(), part.constants(), part.place(part.open_batches()[0])
