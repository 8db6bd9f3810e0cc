import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jclip.errors import JclipError
from jclip.losses.distillation import teacher_loss

STUDENT = jnp.array([[3.0, 0.0], [1.0, 1.0]])
TEACHER = jnp.array([[0.0, 4.0], [2.0, 2.0]])


def test_by_hand():
    # Squared errors 9, 16, 1, 1; the first pair is orthogonal, the second has one direction.
    loss, metrics = teacher_loss(STUDENT, TEACHER)
    assert loss == pytest.approx(27 / 4)
    assert metrics == {"cosine": pytest.approx(0.5)}


def test_gradient_by_hand_and_none_for_the_teacher():
    gradients = jax.grad(lambda s, t: sum(jax.tree.leaves(teacher_loss(s, t))), argnums=(0, 1))(STUDENT, TEACHER)
    np.testing.assert_allclose(gradients[0], 2 * (STUDENT - TEACHER) / 4)
    assert (gradients[1] == 0).all()


def test_half_precision_states_are_compared_in_float32():
    loss, _ = teacher_loss(jnp.full((1, 4096), 1 / 3, jnp.bfloat16), jnp.zeros((1, 4096), jnp.bfloat16))
    assert loss.dtype == jnp.float32
    assert loss == pytest.approx(float(jnp.bfloat16(1 / 3)) ** 2, rel=1e-6)


def test_states_of_different_width():
    with pytest.raises(JclipError, match=r"student states \(2, 2\) and teacher states \(2, 3\) differ"):
        teacher_loss(STUDENT, jnp.zeros((2, 3)))
