"""Small data files in the formats that the library reads, written by hand."""

import gzip
import struct

import numpy as np
from PIL import Image

RNG = lambda seed=0: np.random.Generator(np.random.Philox(key=seed))


def write_idx(path, array):
  """An IDX file of uint8; gzipped if its name ends so."""
  header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
  content = header + array.astype(np.uint8).tobytes()
  path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def mnist_folder(folder, num=20, suffix=".gz"):
  folder.mkdir(exist_ok=True)
  x, labels = RNG().integers(0, 256, (num, 6, 5)), np.arange(num) % 10
  for prefix in ("train", "t10k"):
    write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", x)
    write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", labels)
  return x, labels


def cifar_folder(folder, num=4):
  folder.mkdir(exist_ok=True)
  names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
  records = RNG().integers(0, 256, (len(names), num, 3073), dtype=np.uint8)
  records[:, :, 0] %= 10
  for name, part in zip(names, records, strict=True):
    (folder / name).write_bytes(part.tobytes())
  return records


def image_folder(folder, classes=("cat", "dog"), each=6):
  """JPEG and PNG images of many sizes; class k is of brightness 60 + 120 k."""
  for k, name in enumerate(classes):
    (folder / name).mkdir(parents=True)
    for i in range(each):
      noise = RNG(i).integers(-9, 10, (20 + 3 * i, 40 - 2 * i, 3))
      image = Image.fromarray((60 + 120 * k + noise).astype(np.uint8))
      image.save(folder / name / f"{i}.{'png' if i % 2 else 'jpg'}")
  return folder


def numpy_files(folder, num=12):
  folder.mkdir(exist_ok=True)
  x = RNG().standard_normal((num, 4, 4, 2)).astype(np.float16)
  labels = np.arange(num) % 3
  np.save(folder / "x.npy", x)
  np.save(folder / "labels.npy", labels)
  images = RNG().integers(0, 256, (num, 4, 4, 1), dtype=np.uint8)
  np.savez(folder / "x.npz", x=images, label=labels)
  return x, labels, images
