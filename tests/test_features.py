"""Features by name; DINOv2 against NumPy, torch and transformers."""

import types

import numpy as np
import pytest
from scipy import special

from diffflow_jax import evaluation
from diffflow_jax.evaluation.extractors import dinov2, vit, weights
from diffflow_jax.store import compilation
from tests import torch_files

rng = np.random.default_rng(0)
WIDTH, DEPTH, HEADS, SIDE = 32, 2, 4, 3
NET = vit.DINOv2(WIDTH, DEPTH, HEADS)
X = rng.standard_normal((2, SIDE * 14, SIDE * 14, 3)).astype(np.float32)


def card(*shape, **more):
  return types.SimpleNamespace(shape=shape, **more)


def published():
  """{name: array} as in the published files, random and of a small network."""
  draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
  found = {
    "cls_token": draw(1, 1, WIDTH),
    "pos_embed": draw(1, 1 + SIDE**2, WIDTH),
    "mask_token": draw(1, WIDTH),
    "patch_embed.proj.weight": draw(WIDTH, 3, 14, 14) / 24,
    "patch_embed.proj.bias": draw(WIDTH),
    "norm.weight": draw(WIDTH),
    "norm.bias": draw(WIDTH),
  }
  dense = {
    "attn.qkv": (3 * WIDTH, WIDTH),
    "attn.proj": (WIDTH, WIDTH),
    "mlp.fc1": (4 * WIDTH, WIDTH),
    "mlp.fc2": (WIDTH, 4 * WIDTH),
  }
  for i in range(DEPTH):
    for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
      found[f"blocks.{i}.{name}"] = draw(WIDTH)
    for name in ("ls1.gamma", "ls2.gamma"):
      found[f"blocks.{i}.{name}"] = draw(WIDTH)
    for name, (rows, columns) in dense.items():
      found[f"blocks.{i}.{name}.weight"] = draw(rows, columns) / columns**0.5
      found[f"blocks.{i}.{name}.bias"] = draw(rows)
  return found


ARRAYS = published()


def of_hugging_face(arrays):
  """The same by Hugging Face's names."""
  found = {
    "embeddings.cls_token": arrays["cls_token"],
    "embeddings.mask_token": arrays["mask_token"],
    "embeddings.position_embeddings": arrays["pos_embed"],
    "layernorm.weight": arrays["norm.weight"],
    "layernorm.bias": arrays["norm.bias"],
  }
  for kind in ("weight", "bias"):
    name = f"embeddings.patch_embeddings.projection.{kind}"
    found[name] = arrays[f"patch_embed.proj.{kind}"]
    for i in range(DEPTH):
      head, ours = f"encoder.layer.{i}", f"blocks.{i}"
      three = np.split(arrays[f"{ours}.attn.qkv.{kind}"], 3)
      for which, part in zip(("query", "key", "value"), three, strict=True):
        found[f"{head}.attention.attention.{which}.{kind}"] = part
      out = arrays[f"{ours}.attn.proj.{kind}"]
      found[f"{head}.attention.output.dense.{kind}"] = out
      for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
        found[f"{head}.{name}.{kind}"] = arrays[f"{ours}.{name}.{kind}"]
  for i in range(DEPTH):
    for j in (1, 2):
      name = f"encoder.layer.{i}.layer_scale{j}.lambda1"
      found[name] = arrays[f"blocks.{i}.ls{j}.gamma"]
  return found


def by_hand(w, x):
  """The class token by the paper, an image and a head at a time, in float64."""
  w = {name: array.astype(np.float64) for name, array in w.items()}

  def norm(h, name):
    mean, variance = h.mean(-1, keepdims=True), h.var(-1, keepdims=True)
    h = (h - mean) / np.sqrt(variance + 1e-6)
    return h * w[f"{name}.weight"] + w[f"{name}.bias"]

  dense = lambda h, name: h @ w[f"{name}.weight"].T + w[f"{name}.bias"]

  def attended(h, name):
    q, k, v = np.split(dense(h, f"{name}.qkv"), 3, axis=-1)
    size, out = WIDTH // HEADS, []
    for head in range(HEADS):
      s = slice(head * size, (head + 1) * size)
      shares = special.softmax(q[:, s] @ k[:, s].T / size**0.5, axis=1)
      out.append(shares @ v[:, s])
    return dense(np.concatenate(out, 1), f"{name}.proj")

  def one(x):
    patches = [
      np.einsum(
        "cij,ijc->", w["patch_embed.proj.weight"][d], x[r : r + 14, c : c + 14]
      )
      for r in range(0, len(x), 14)
      for c in range(0, len(x), 14)
      for d in range(WIDTH)
    ]
    h = np.reshape(patches, (-1, WIDTH)) + w["patch_embed.proj.bias"]
    h = np.concatenate([w["cls_token"][0], h]) + w["pos_embed"][0]
    for i in range(DEPTH):
      layer = f"blocks.{i}"
      y = attended(norm(h, f"{layer}.norm1"), f"{layer}.attn")
      h = h + w[f"{layer}.ls1.gamma"] * y
      y = dense(norm(h, f"{layer}.norm2"), f"{layer}.mlp.fc1")
      y = dense(y * special.ndtr(y), f"{layer}.mlp.fc2")
      h = h + w[f"{layer}.ls2.gamma"] * y
    return norm(h, "norm")[0]

  return np.stack([one(image) for image in x.astype(np.float64)])


def class_tokens(arrays):
  params, table = dinov2.assembled("file", arrays, NET)
  apply = compilation.quick(NET.apply)
  return np.asarray(apply({"params": params}, X, table[None]))


def test_dinov2_is_the_network_of_the_paper():
  want = by_hand(ARRAYS, X)
  assert want.std(0).max() > 0.1  # the two images differ
  np.testing.assert_allclose(class_tokens(ARRAYS), want, rtol=1e-4, atol=1e-4)


def test_dinov2_is_that_of_transformers():
  torch = pytest.importorskip("torch", reason="torch is not installed")
  theirs = pytest.importorskip(
    "transformers", reason="transformers is not installed"
  )
  config = theirs.Dinov2Config(
    hidden_size=WIDTH,
    num_hidden_layers=DEPTH,
    num_attention_heads=HEADS,
    image_size=SIDE * 14,
    patch_size=14,
    attn_implementation="eager",
  )
  model = theirs.Dinov2Model(config).eval()
  given = {n: torch.tensor(a) for n, a in of_hugging_face(ARRAYS).items()}
  if "encoder.layer.0.attention.q_proj.weight" in model.state_dict():
    given = {renamed(n): a for n, a in given.items()}  # transformers 5
  model.load_state_dict(given)
  with torch.no_grad():
    out = model(torch.tensor(X).permute(0, 3, 1, 2))
  want = out.pooler_output.numpy()
  np.testing.assert_allclose(class_tokens(ARRAYS), want, rtol=1e-4, atol=1e-4)


def renamed(name):
  """A parameter's name in transformers 5; files keep the older ones."""
  for which in ("query", "key", "value"):
    name = name.replace(
      f"attention.attention.{which}", f"attention.{which[0]}_proj"
    )
  return name.replace("attention.output.dense", "attention.o_proj")


def test_weights_of_hugging_face_are_the_published_ones(tmp_path):
  from safetensors.numpy import save_file

  path = str(tmp_path / "model.safetensors")
  save_file(of_hugging_face(ARRAYS), path)
  arrays, _ = weights.read(path, "DINOv2", "there", ("0",), "any")
  got = dinov2.published_names(arrays)
  assert got.keys() == ARRAYS.keys()
  for name, want in ARRAYS.items():
    np.testing.assert_array_equal(got[name], want)


@pytest.mark.parametrize("side", [16, 7, 40])
def test_positions_are_read_as_torch_reads_them(side):
  table = rng.standard_normal((37**2, 5)).astype(np.float32)
  got = vit.positions(table, side)
  square = table.reshape(37, 37, 5)
  np.testing.assert_array_equal(vit.positions(table, 37), table)
  # one place by hand: four taps on each axis, Keys' weights with a = -3/4
  row, column = 2, side - 1
  want = np.zeros(5)
  for i, u in taps(row, side):
    for j, v in taps(column, side):
      want += u * v * square[i, j].astype(np.float64)
  np.testing.assert_allclose(got[row * side + column], want, atol=1e-12)
  torch = pytest.importorskip("torch", reason="torch is not installed")
  want = torch.nn.functional.interpolate(
    torch.tensor(square).permute(2, 0, 1)[None],
    scale_factor=((side + 0.1) / 37,) * 2,
    mode="bicubic",
  )
  want = want[0].permute(1, 2, 0).reshape(side**2, 5)
  np.testing.assert_allclose(got, want.numpy(), atol=1e-4)


def taps(j, side, a=-0.75):
  """(index, weight) of the four neighbours of one place."""
  place = (j + 0.5) * 37 / (side + 0.1) - 0.5
  left = int(np.floor(place))
  f = place - left
  far = lambda u: a * u**3 - 5 * a * u**2 + 8 * a * u - 4 * a
  near = lambda u: (a + 2) * u**3 - (a + 3) * u**2 + 1
  found = zip(
    range(left - 1, left + 3),
    (far(1 + f), near(f), near(1 - f), far(2 - f)),
    strict=True,
  )
  return [(min(max(i, 0), 36), u) for i, u in found]


@pytest.mark.parametrize("size", [(32, 32), (300, 250)])
def test_dinov2s_input_is_that_of_edm2(size):
  torch = pytest.importorskip("torch", reason="torch is not installed")
  u = rng.integers(0, 256, (2, *size, 3), np.uint8)
  x = torch.nn.functional.interpolate(
    torch.tensor(u).permute(0, 3, 1, 2).float(),
    (224, 224),
    mode="bicubic",
    antialias=True,
  )
  want = x.permute(0, 2, 3, 1).numpy() / 255
  want = (want - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
  np.testing.assert_allclose(dinov2.network_input(u), want, atol=1e-4)


def test_other_weights_of_dinov2_are_refused(tmp_path):
  where = r"published at https://dl\.fbaipublicfiles\.com/dinov2/dinov2_vitb14"
  path = tmp_path / "weights.pth"
  with pytest.raises(ValueError, match=f"DINOv2's weights, as {where}.*d5383e"):
    evaluation.dinov2(str(path))
  small = {n: a for n, a in ARRAYS.items() if n.startswith("norm")}
  path.write_bytes(torch_files.zipped(small))
  with pytest.raises(ValueError, match=r"begins with 0b8b82f8 or d5383ea8"):
    evaluation.dinov2(str(path))
  with pytest.raises(ValueError, match=r"has 768 or 1024 entries, and it has"):
    evaluation.dinov2(str(path), checksum="any")
  wide = {"norm.weight": np.ones(768, np.float32)}
  path.write_bytes(torch_files.zipped(wide))
  with pytest.raises(ValueError, match=r"arrays of DINOv2, but differs in 1"):
    evaluation.dinov2(str(path), checksum="any")


def test_pixels_are_the_numbers_themselves():
  features = evaluation.features_of("pixels", card(4, 5, 3))
  assert features.dims == 60 and features.metric == "fd_pixels"
  u = rng.integers(0, 256, (300, 4, 5, 3), np.uint8)
  got = features(u)
  assert got.dtype == np.float32
  np.testing.assert_allclose(got, u.reshape(300, 60) / 127.5 - 1, atol=1e-6)
  assert evaluation.features_of("pixels", card(2)).metric == "fd_coordinates"
  points = rng.standard_normal((7, 2)).astype(np.float32)
  np.testing.assert_array_equal(
    evaluation.features_of("pixels", card(2))(points), points
  )
  with pytest.raises(ValueError, match=r"must have shape \(4, 5, 3\), not"):
    features(u[:, :3])


MODULE = """
import numpy as np

def means(x):
  return np.asarray(x, np.float32).mean((1, 2))

def many(x):
  return np.asarray(x)

def some(x):
  return means(x)[:2]

number = 3
"""


def test_features_of_ones_own(tmp_path, monkeypatch):
  (tmp_path / "ours_for_a_test.py").write_text(MODULE)
  monkeypatch.syspath_prepend(tmp_path)
  make = lambda name, *shape: evaluation.features_of(
    f"ours_for_a_test:{name}", card(*shape)
  )
  features = make("means", 4, 5, 3)
  assert features.dims == 3 and features.metric == "fd_means"
  u = rng.integers(0, 256, (300, 4, 5, 3), np.uint8)
  np.testing.assert_allclose(features(u), u.mean((1, 2)), rtol=1e-5)
  for name, said in (
    ("number", "must be a function: images"),
    ("nothing", "cannot be imported"),
    ("many", r"must return floats \(num, d\), but of \(2, 4, 5, 3\)"),
  ):
    with pytest.raises(ValueError, match=said):
      make(name, 4, 5, 3)
  with pytest.raises(ValueError, match="cannot be called with float32"):
    make("means", 2)
  with pytest.raises(ValueError, match=r"make 3 features of each .* \(2, 3\)"):
    make("some", 4, 5, 3)(u)


@pytest.mark.parametrize(
  "spec, shape, said",
  [
    ("pixel", (4, 4, 1), "not known: pixels, .*did you mean pixels?"),
    ("inception", (4, 4, 1), "not known.*did you mean inception:PATH"),
    ("inception:", (4, 4, 1), "inception needs a path"),
    ("inception:x", (2,), r"inception takes images .*shape \(2,\)"),
    ("dinov2:x", (4, 4, 4), r"dinov2 takes images of 1 or 3 channels"),
    ("inception:a,size=3", (4, 4, 3), "size is not a setting of inception"),
    ("inception:a,batch_size=-1", (4, 4, 3), "batch_size must be an int"),
    ("inception:a,resize=tf2", (4, 4, 3), "resize must be one of tf1, tor"),
    ("inception:nowhere.pth", (4, 4, 3), "published at https"),
    ("classifier:nowhere", (4, 4, 3), "must hold classifier.json, as py"),
    (3, (2,), "must be a text"),
  ],
)
def test_features_that_cannot_be_meant(spec, shape, said):
  with pytest.raises(ValueError, match=said) as raised:
    evaluation.features_of(spec, card(*shape))
  assert "\n" not in str(raised.value)
