"""A recipe with another density, another weighting, or both."""

from diffflow_jax.objective import densities, weightings


def exchange(recipe, density=None, weighting=None):
  """The recipe with what is named of it in another's place.

  A density alone changes the loss's variance and not the loss: the weighting
  stays the recipe's. A weighting named beside a density is made of the new
  one, as in a paper that draws from it: "u_mse" is the u-MSE under it. Where
  the density follows the loss there is no law yet, and w is of the recipe's.

  Args:
    recipe: an Objective; density, weighting: None or (name, settings).
  Raises:
    ValueError: as `densities.make` and `weightings.make`.
  """
  exchanged = recipe
  if density is not None:
    name, settings = density
    made = densities.make(name, recipe, **settings)
    exchanged = recipe.replace(density=made)
  if weighting is not None:
    name, settings = weighting
    follows = hasattr(exchanged.density, "update")
    made = weightings.make(name, recipe if follows else exchanged, **settings)
    exchanged = exchanged.replace(weighting=made)
  return exchanged
