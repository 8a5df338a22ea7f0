"""FID's features: resize, network, weight file, against others' and by hand."""

import hashlib
import pickle

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from diffflow_jax import evaluation
from diffflow_jax.evaluation.extractors import (
  fid_features,
  inception_v3,
  resize,
  torch_file,
)
from tests import inception_numpy, torch_files

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (3, 20, 33, 3), np.uint8)


def by_pil(images, size=299):
  """As clean-fid: every channel a float image."""
  one = lambda plane: Image.fromarray(plane).resize(
    (size, size), Image.Resampling.BICUBIC
  )
  planes = np.moveaxis(images.astype(np.float32), 3, 1)
  planes = [[np.asarray(one(plane)) for plane in image] for image in planes]
  return np.clip(np.moveaxis(np.asarray(planes), 1, 3), 0, 255)


def by_hand(kind, size_in, size_out=299):
  """Left and right pixel and the weight of the right one, in loops."""
  found = np.zeros((size_out, size_in))
  for j in range(size_out):
    place = j * size_in / size_out
    if kind == "torch":
      place = max((j + 0.5) * size_in / size_out - 0.5, 0.0)
    left = min(int(place), size_in - 1)
    right = min(left + 1, size_in - 1)
    found[j, left] += 1.0 - (place - left)
    found[j, right] += place - left
  return found


@pytest.fixture(scope="module")
def weights():
  return inception_numpy.weights()


@pytest.fixture(scope="module")
def path(weights, tmp_path_factory):
  path = tmp_path_factory.mktemp("inception") / "weights.pth"
  path.write_bytes(torch_files.zipped(weights))
  return str(path)


@pytest.fixture(scope="module")
def net(path):
  return evaluation.inception(path, batch_size=2, checksum="any")


@pytest.mark.parametrize("size_in", [8, 32, 299, 400, 701])
def test_resizes_are_those_of_the_tools(size_in):
  for kind in ("tf1", "torch"):
    want = by_hand(kind, size_in)
    got = resize.matrix(kind, size_in, 299)
    np.testing.assert_allclose(got, want, atol=1e-12)
  # a unit of every pixel, resized along one axis
  want = Image.fromarray(np.eye(size_in, dtype=np.float32)).resize(
    (299, size_in), Image.Resampling.BICUBIC
  )
  got = resize.matrix("clean", size_in, 299)
  np.testing.assert_allclose(got, np.asarray(want).T, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 20, 33, 3), (1, 330, 310, 3)])
def test_the_networks_input_is_that_of_the_tools(shape):
  x = rng.integers(0, 256, shape, np.uint8)
  check = lambda kind, want: np.testing.assert_allclose(
    fid_features.network_input(kind, x), want, atol=1e-5
  )
  check("clean", (by_pil(x) - 128.0) / 128.0)
  for kind, middle in (("tf1", 128.0), ("torch", 127.5)):
    rows, columns = (by_hand(kind, n) for n in shape[1:3])
    want = np.einsum(
      "ih,jw,nhwc->nijc", rows, columns, x.astype(float), optimize=True
    )
    check(kind, (want - middle) / middle)


@pytest.mark.parametrize("size", [(20, 33), (330, 310)])
def test_torchs_resize_is_torchs(size):
  torch = pytest.importorskip("torch", reason="torch is not installed")
  x = rng.integers(0, 256, (2, *size, 3), np.uint8)
  want = torch.nn.functional.interpolate(
    torch.tensor(x).permute(0, 3, 1, 2) / 255.0,
    (299, 299),
    mode="bilinear",
    align_corners=False,
  )
  np.testing.assert_allclose(
    fid_features.network_input("torch", x),
    2.0 * want.permute(0, 2, 3, 1).numpy() - 1.0,
    atol=1e-4,  # torch finds its places in float32
  )


def test_features_are_those_of_the_network_by_hand(net, weights):
  """The whole way, with a batch that is not full."""
  got = net(IMAGES)
  assert got.shape == (3, 2048) and got.dtype == np.float32
  seen = (by_pil(IMAGES[:2]) - 128.0) / 128.0
  want = inception_numpy.features(weights, seen)
  assert want.std(0).max() > 0.1  # the two images differ
  np.testing.assert_allclose(got[:2], want, atol=1e-4 * want.max())
  logits = net.logits(got)
  np.testing.assert_allclose(
    logits, got.astype(float) @ weights["fc.weight"].T, rtol=1e-3, atol=1e-3
  )
  assert logits.shape == (3, 1008)
  score = evaluation.inception_score(jax.nn.softmax(logits))
  assert 1.0 <= score.value <= 3.0
  # the same images as floats, with what a sampler leaves outside
  floats = (IMAGES / 127.5 - 1.0).astype(np.float32)
  floats[IMAGES == 255] = 1.3
  np.testing.assert_array_equal(net(jnp.asarray(floats)), got)


def test_grey_images_are_three_alike(net):
  grey = IMAGES[:2, ..., :1]
  np.testing.assert_array_equal(net(grey), net(grey.repeat(3, -1)))


def test_features_are_those_of_pytorch_fid(weights, path, monkeypatch):
  torch = pytest.importorskip("torch", reason="torch is not installed")
  try:
    from pytorch_fid import inception as theirs
  except (ImportError, RuntimeError) as error:
    pytest.skip(f"pytorch-fid cannot be imported: {error}")
  known = {k: torch.tensor(v) for k, v in weights.items()}
  counts = {
    k.replace("running_var", "num_batches_tracked"): torch.tensor(0)
    for k in known
    if k.endswith("running_var")
  }
  monkeypatch.setattr(
    theirs, "load_state_dict_from_url", lambda *_, **__: {**known, **counts}
  )
  network = theirs.InceptionV3().eval()
  with torch.no_grad():
    (want,) = network(torch.tensor(IMAGES).permute(0, 3, 1, 2) / 255.0)
  want = want.numpy()[:, :, 0, 0]
  got = evaluation.inception(path, "torch", batch_size=3, checksum="any")(
    IMAGES
  )
  np.testing.assert_allclose(got, want, atol=1e-4 * want.max())


def test_every_stage_has_its_size():
  stages = {}

  def see(x):
    network, key = inception_v3.InceptionV3(), jax.random.key(0)
    _, seen = network.init_with_output(key, x, capture_intermediates=True)
    return seen["intermediates"]

  made = jax.eval_shape(see, jax.ShapeDtypeStruct((1, 299, 299, 3), "float32"))
  for name, block in made.items():
    if name != "__call__":
      stages[name] = block["__call__"][0].shape[1:]
  sizes = [149, 147, 147, 73, 71]
  got = [stages[n][0] for n in sorted(stages) if n.startswith("Conv2d")]
  assert got == sizes
  want = {"5b": (35, 256), "5c": (35, 288), "5d": (35, 288), "7a": (8, 1280)}
  want |= {f"6{b}": (17, 768) for b in "abcde"}
  want |= {"7b": (8, 2048), "7c": (8, 2048)}
  for name, (size, channels) in want.items():
    assert stages[f"Mixed_{name}"] == (size, size, channels), name


def test_average_pools_leave_padding_out():
  np.testing.assert_allclose(inception_v3.average(jnp.ones((1, 5, 4, 2))), 1.0)
  x = rng.standard_normal((2, 5, 4, 3)).astype(np.float32)
  np.testing.assert_allclose(
    inception_v3.average(x), inception_numpy.average(x), atol=1e-6
  )


SMALL = {
  "a.weight": rng.standard_normal((2, 3, 4)).astype(np.float32),
  "b": np.arange(5, dtype=np.float32),
}


@pytest.mark.parametrize("make", [torch_files.zipped, torch_files.streamed])
def test_files_of_torch_are_read(make, tmp_path):
  data = make(SMALL)
  got = torch_file.arrays("file", data)
  assert list(got) == list(SMALL)
  for name, want in SMALL.items():
    np.testing.assert_array_equal(got[name], want)
  for cut in (len(data) // 2, len(data) - 3, 1, 0):
    with pytest.raises(ValueError, match="file must be a dict of tensors that"):
      torch_file.arrays("file", data[:cut])
  torch = pytest.importorskip("torch", reason="torch is not installed")
  (tmp_path / "ours.pth").write_bytes(data)
  theirs = torch.load(tmp_path / "ours.pth", weights_only=True)
  np.testing.assert_array_equal(theirs["a.weight"], SMALL["a.weight"])


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_writes_is_read(zipped, tmp_path):
  """Views, transposes and whole numbers among them."""
  torch = pytest.importorskip("torch", reason="torch is not installed")
  w = torch.arange(24.0).reshape(2, 3, 4)
  tensors = {"t": w.permute(2, 0, 1), "s": w[1:, :, 1], "n": torch.tensor(3)}
  tensors["h"] = w.half()
  path = tmp_path / "theirs.pth"
  torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
  got = torch_file.arrays("file", path.read_bytes())
  for name, want in tensors.items():
    np.testing.assert_array_equal(got[name], want.numpy())
    assert got[name].dtype == want.numpy().dtype


def test_nothing_that_a_file_names_is_run(tmp_path):
  told = tmp_path / "told"

  class Evil:
    def __reduce__(self):
      return open, (str(told), "w")

  evil = pickle.dumps({"a": Evil()}, 2)
  for data in (evil, torch_files.zipped(SMALL, main=evil)):
    with pytest.raises(ValueError, match=r"it names (io|_io)\.open"):
      torch_file.arrays("file", data)
  assert not told.exists()
  for main in (b"cbuiltins\neval\n.", b"cos\nsystem\n.", b"cnumpy\nload\n."):
    with pytest.raises(ValueError, match="it names"):
      torch_file.arrays("file", torch_files.zipped(SMALL, main=main))


@pytest.mark.parametrize(
  "how, said",
  [
    (dict(strides=[100, 4, 1]), "reaches beyond its storage"),
    (dict(strides=[-1, 4, 1]), "no whole sizes"),
    (dict(num=10_000), "a storage is cut off"),
  ],
)
def test_tensors_stay_within_their_storage(how, said):
  one = {"a": SMALL["a.weight"]}
  with pytest.raises(ValueError, match=said):
    torch_file.arrays("file", torch_files.zipped(one, **how))


def test_other_files_are_refused(tmp_path):
  path = str(tmp_path / "file.pth")
  with pytest.raises(ValueError, match=r"published at https://.*6726825d"):
    evaluation.inception(path)
  (tmp_path / "file.pth").write_bytes(torch_files.zipped(SMALL))
  found = hashlib.sha256((tmp_path / "file.pth").read_bytes()).hexdigest()
  with pytest.raises(ValueError, match=f"begins with 6726825d.*{found[:16]}"):
    evaluation.inception(path)
  with pytest.raises(ValueError, match=r"hold the 472 arrays of Inception, b"):
    evaluation.inception(path, checksum=found)
  with pytest.raises(ValueError, match="resize must be one of tf1, torch, cl"):
    evaluation.inception(path, "tf2")
  with pytest.raises(ValueError, match="batch_size"):
    evaluation.inception(path, batch_size=0)


@pytest.mark.parametrize(
  "images, error, said",
  [
    (IMAGES[0], ValueError, r"must be \(num, height, width, channels\)"),
    (np.zeros((2, 8, 8, 4), np.uint8), ValueError, "of 1 or 3 channels"),
    (np.zeros((0, 8, 8, 3), np.uint8), ValueError, r"not \(0, 8, 8, 3"),
    (IMAGES.astype(int), TypeError, "must be uint8, or floats"),
    (IMAGES.astype(float), ValueError, "but go from 0 to 255"),
    (np.full((1, 8, 8, 3), np.nan), ValueError, "must be finite"),
  ],
)
def test_images_that_cannot_be_meant_are_refused(net, images, error, said):
  with pytest.raises(error, match=said):
    net(images)
