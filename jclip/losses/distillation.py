"""Loss of teacher learning (Chen et al. 2022, section 3.1).

Axes: b batch, w width of the teacher's state.
"""

import jax
import jax.numpy as jnp

from jclip.errors import JclipError
from jclip.losses.normalise import l2_normalised


def teacher_loss(student_bw: jax.Array, teacher_bw: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Computes the mean squared error between a student's and a teacher's states, in float32.

    Args:
      student_bw, teacher_bw: states before the text projection, not normalised, of any float dtype. The teacher gets
        no gradient.

    Returns:
      The mean over batch and width, and {"cosine": mean cosine of student and teacher}, without gradient.

    Raises:
      JclipError: the shapes differ.
    """
    if student_bw.shape != teacher_bw.shape:
        raise JclipError(
            f"student states {student_bw.shape} and teacher states {teacher_bw.shape} differ: set head_width"
        )
    student_bw = student_bw.astype(jnp.float32)
    teacher_bw = jax.lax.stop_gradient(teacher_bw).astype(jnp.float32)
    cosine_b = (l2_normalised(jax.lax.stop_gradient(student_bw)) * l2_normalised(teacher_bw)).sum(axis=1)
    return jnp.square(student_bw - teacher_bw).mean(), {"cosine": cosine_b.mean()}
