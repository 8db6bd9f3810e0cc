"""Teacher learning: a student's text state drawn to the teacher's (Chen et al. 2022, section 3.1).

Axes: b batch, w width of the teacher's state.
"""

import jax
import jax.numpy as jnp

from jclip.errors import JclipError
from jclip.losses.unit import unit


def teacher_loss(student_bw: jax.Array, teacher_bw: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean squared error between states, computed in float32.

    Args:
      student_bw, teacher_bw: states before the text projection, not normalised; any float dtype. The teacher's takes no
        gradient.

    Returns:
      The mean over batch and width, and {"cosine": the mean cosine between the two}, which takes no gradient.

    Raises:
      JclipError: states of different shapes.
    """
    if student_bw.shape != teacher_bw.shape:
        raise JclipError(f"student states {student_bw.shape} and teacher states {teacher_bw.shape} differ in shape")
    student_bw = student_bw.astype(jnp.float32)
    teacher_bw = jax.lax.stop_gradient(teacher_bw).astype(jnp.float32)
    cosine_b = (unit(jax.lax.stop_gradient(student_bw)) * unit(teacher_bw)).sum(axis=1)
    return jnp.square(student_bw - teacher_bw).mean(), {"cosine": cosine_b.mean()}
