"""Compares the shardings of a step's inputs and results with those that it takes."""

import jax


def taken(part):
    """Returns the shapes, with their shardings, of the state, constants and batch of a stage's step."""
    return part.taken, part.program.constants, part.program.batch


def moved(given, places):
    """Returns a sentence for each array, or shape, of `given` that has another sharding than `places` has for it.

    A place of None is that of an input that the compiled program does not read.
    """
    found = []

    def compare(path, leaf, place):
        if place is not None and not leaf.sharding.is_equivalent_to(place, leaf.ndim):
            found.append(f"{jax.tree_util.keystr(path)}: {leaf.sharding} is moved to {place}")

    jax.tree_util.tree_map_with_path(compare, given, places)
    return found
