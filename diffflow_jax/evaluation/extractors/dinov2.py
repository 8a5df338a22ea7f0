"""FD_DINOv2's features: bytes u to 224×224, through the published network.

    input     (u/255 - m)/s, by a cubic with antialiasing                  (1)

m and s are ImageNet's means and deviations; as in EDM2 (arXiv:2312.02696), what
the cubic overshoots stays. Features are the class token, after its norm.
"""

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.evaluation.extractors import images, resize, vit, weights
from diffflow_jax.evaluation.extractors.extractor import Features, padded
from diffflow_jax.process import ranges
from diffflow_jax.store import compilation

SIZE = 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PUBLISHED = "https://dl.fbaipublicfiles.com/dinov2/"
KNOWN = {
  "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73": "vitb14",
  "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428": "vitl14",
}
WHERE = " or ".join(
  f"{PUBLISHED}dinov2_{n}/dinov2_{n}_pretrain.pth" for n in KNOWN.values()
)
SIZES = {768: ("vitb14", 12, 12), 1024: ("vitl14", 24, 16)}  # depth, heads


def network_input(u):
  """uint8 (n, h, w, 3) -> float32 (n, 224, 224, 3), eq. (1)."""
  rows, columns = (
    np.asarray(resize.matrix("clean", size, SIZE), np.float32)
    for size in u.shape[1:3]
  )
  x = jnp.einsum(
    "ih,jw,nhwc->nijc",
    rows,
    columns,
    u.astype(jnp.float32),
    precision=vit.HIGHEST,
  )
  return (x / 255.0 - np.float32(MEAN)) / np.float32(DEVIATION)


def published_names(arrays):
  """Arrays by the names of the published files, of whichever kind of file.

  Hugging Face's have other names, and query, key and value apart.
  """
  if "embeddings.cls_token" not in arrays:
    return arrays
  renamed = {
    "embeddings.cls_token": "cls_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
    "encoder.layer.": "blocks.",
    "attention.output.dense": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
  }
  found, apart = {}, {}
  for name, array in arrays.items():
    for theirs, ours in renamed.items():
      name = name.replace(theirs, ours)
    head, asked, rest = name.partition(".attention.attention.")
    if not asked:
      found[name] = array
      continue
    which, kind = rest.split(".")
    apart.setdefault(f"{head}.attn.qkv.{kind}", {})[which] = array
  for name, three in apart.items():
    found[name] = np.concatenate(
      [three[which] for which in ("query", "key", "value")]
    )
  return found


def parameters(path, arrays):
  """(network, its parameters, position table) of a file's arrays.

  Raises:
    ValueError: names or shapes of something else.
  """
  arrays = published_names(arrays)
  width = arrays["norm.weight"].shape[0] if "norm.weight" in arrays else 0
  if width not in SIZES:
    raise ValueError(
      f"{path} must hold DINOv2 ViT-B/14 or ViT-L/14, whose norm.weight has "
      f"{' or '.join(map(str, SIZES))} entries, and it has {width}"
    )
  _, depth, num_heads = SIZES[width]
  net = vit.DINOv2(width, depth, num_heads)
  return net, *assembled(path, arrays, net)


def assembled(path, arrays, net):
  """(parameters, position table (1 + side², d)) of a network of any size."""
  shape = net.width, 3, vit.PATCH, vit.PATCH
  table = arrays.get("pos_embed", np.zeros((1, 0, 0)))
  wanted = {**_shapes(net), "patch_embed.proj.weight": shape}
  wanted["patch_embed.proj.bias"] = (net.width,)
  wanted["pos_embed"] = (1, table.shape[1], net.width)
  arrays = {n: a for n, a in arrays.items() if n != "mask_token"}
  weights.check_shapes(path, "DINOv2", arrays, wanted)
  arrays = {n: np.asarray(a, np.float32) for n, a in arrays.items()}
  del arrays["pos_embed"]
  kernel = arrays.pop("patch_embed.proj.weight").reshape(net.width, -1)
  arrays["patch_embed.weight"] = kernel
  arrays["patch_embed.bias"] = arrays.pop("patch_embed.proj.bias")
  flat = {n.replace("blocks.", "blocks_"): a for n, a in arrays.items()}
  return traverse_util.unflatten_dict(flat, sep="."), np.asarray(table[0])


def _shapes(net):
  """{name: shape} of what a file must hold, but for its patches."""
  image = jax.ShapeDtypeStruct((1, vit.PATCH, vit.PATCH, 3), jnp.float32)
  table = jax.ShapeDtypeStruct((1, 2, net.width), jnp.float32)
  made = jax.eval_shape(net.init, jax.random.key(0), image, table)["params"]
  flat = traverse_util.flatten_dict(made, sep=".")
  return {
    name.replace("blocks_", "blocks."): array.shape
    for name, array in flat.items()
    if not name.startswith("patch_embed")
  }


@ranges.checked(batch_size="an integer >= 1")
def dinov2(path, *, batch_size=32, checksum=None):
  """FD_DINOv2's features, of the weights that DINOv2 published.

  ViT-L/14, which EDM2's numbers are of, or ViT-B/14.

  Args:
    path: the published .pth file, or Hugging Face's safetensors of the same
      numbers, whose checksum has to be given; on a disk or in a bucket.
    batch_size: images that go through the network together.
    checksum: None for what is published, how another file's SHA-256 begins, or
      "any" for weights of your own.
  Returns:
    Features of images (num, h, w, 1 or 3): (num, 1024 or 768) float32.
  Raises:
    ValueError: no such file (it says where that is published), another
      checksum, names or shapes.
  """
  arrays, found = weights.read(path, "DINOv2", WHERE, KNOWN, checksum)
  net, params, table = parameters(path, arrays)
  places = vit.positions(table[1:], SIZE // vit.PATCH)
  table = jnp.asarray(np.concatenate([table[:1], places]), jnp.float32)[None]
  apply = compilation.brisk(
    lambda p, u: net.apply({"params": p}, network_input(u), table)
  )
  run = padded(lambda u: apply(params, u), batch_size)
  size = SIZES[net.width][0]
  own = "" if found in KNOWN else "_own"
  return Features(
    metric=f"fd_dinov2_{size}{own}",
    name=f"DINOv2 {size} of {path}",
    fingerprint=f"dinov2_{size} {found} 224 cubic",
    dims=net.width,
    batch=batch_size,
    of=lambda u: run(images.colours(u)),
  )
