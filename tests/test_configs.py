"""The shipped configs: complete, resolvable, and of the stated size."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest

from diffflow_jax import networks
from diffflow_jax.process import conditions
from diffflow_jax.training import checks
from diffflow_jax.training.resolve import resolve
from tests import commands

# but test_features_classifier.py's, and what a teacher completes
PATHS = [
  path
  for path in sorted((commands.ROOT / "configs").glob("*.py"))
  if not path.stem.startswith("features_") and path.stem != "distill"
]
ALL = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def _module(path):
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def _num_parameters(network, shape, cond=None):
  """The count, and whether the output is like the input; allocates nothing."""
  cond = jnp.zeros(2, jnp.int32) if cond is None else cond
  inputs = (jnp.zeros((2, *shape)), jnp.zeros(2), cond)
  params = jax.eval_shape(network.init, jax.random.key(0), *inputs)
  out = jax.eval_shape(network.apply, params, *inputs)
  assert out.shape == inputs[0].shape and out.dtype == jnp.float32
  return networks.count(params)


@ALL
def test_smoke_forms_resolve_without_any_files(path):
  config = _module(path).get_config("smoke")
  assert config.num_steps <= 20
  run = resolve(config)
  cond = conditions.zeros(run.card.conditions, 2)
  assert _num_parameters(run.network, run.dataset.shape, cond) < 1e6


@ALL
def test_all_configs_have_the_same_fields_and_show_their_command(path):
  module = _module(path)
  reference = _module(commands.ROOT / "configs" / "digits.py").get_config()
  fields = set(module.get_config())
  assert fields - checks.MAY_LACK == set(reference) - checks.MAY_LACK
  assert f"--config=configs/{path.name}" in module.__doc__
  with pytest.raises(ValueError, match="smoke, not 'huge'"):
    module.get_config("huge")


@pytest.mark.parametrize(
  "name,size,shape,num_classes",
  [
    ("fashion_mnist", "", (28, 28, 1), 10),
    ("fashion_mnist", "cpu", (28, 28, 1), 10),
    ("cifar10", "", (32, 32, 3), 10),
    ("imagenet64", "", (64, 64, 3), 1000),
    ("imagenet256_latent", "", (32, 32, 4), 1000),
  ],
)
def test_networks_have_the_size_that_the_config_states(
  name, size, shape, num_classes
):
  module = _module(commands.ROOT / "configs" / f"{name}.py")
  spec = dict(module.get_config(size).network)
  make = networks.NETWORKS[spec.pop("name")]
  count = _num_parameters(make(num_classes=num_classes, **spec), shape) / 1e6
  rounded = f"{count:.1f}M" if count < 10 else f"{count:.0f}M"
  assert f" {rounded} parameters" in " ".join(module.__doc__.split()), count
