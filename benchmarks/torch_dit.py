"""The DiT's train step of `accelerator.py`, in PyTorch under torch.compile.

  python benchmarks/torch_dit.py torch OUT.json [--batch=N] [--tiny]

The same network (arXiv:2212.09748, adaLN-Zero) with the same number of
parameters, flow matching, label dropout, AdamW on clipped gradients, an average
of the parameters; bf16 autocast, attention by PyTorch's own choice.
"""

import argparse
import json
import statistics
import sys
import time


def build(torch, width, depth, heads, patch, channels, classes, side=32):
  """The network: (z (batch, channels, h, w), logsnr, label) -> like z."""
  nn, functional = torch.nn, torch.nn.functional
  tokens = (side // patch) ** 2

  def normed(h, shift, scale):
    h = functional.layer_norm(h, (width,), eps=1e-6)
    return h * (1 + scale[:, None]) + shift[:, None]

  class Block(nn.Module):
    def __init__(self):
      super().__init__()
      self.modulation = nn.Linear(width, 6 * width)
      self.qkv = nn.Linear(width, 3 * width, bias=False)
      self.out = nn.Linear(width, width)
      self.up = nn.Linear(width, 4 * width)
      self.down = nn.Linear(4 * width, width)

    def forward(self, h, emb):
      a, b, gate, c, d, gate2 = self.modulation(emb).chunk(6, -1)
      q, k, v = (
        part.unflatten(-1, (heads, -1)).transpose(1, 2)
        for part in self.qkv(normed(h, a, b)).chunk(3, -1)
      )
      y = functional.scaled_dot_product_attention(q, k, v)
      h = h + gate[:, None] * self.out(y.transpose(1, 2).flatten(2))
      y = functional.gelu(self.up(normed(h, c, d)), approximate="tanh")
      return h + gate2[:, None] * self.down(y)

  class Dit(nn.Module):
    def __init__(self):
      super().__init__()
      pixels = patch * patch * channels
      self.embed = nn.Linear(pixels, width)
      self.level = nn.Sequential(
        nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width)
      )
      self.label = nn.Embedding(classes + 1, width)
      self.blocks = nn.ModuleList(Block() for _ in range(depth))
      self.last = nn.Linear(width, 2 * width)
      self.out = nn.Linear(width, pixels)
      self.register_buffer("place", 0.02 * torch.randn(tokens, width))
      self.register_buffer("speed", torch.logspace(-1, 0.5, 128))

    def forward(self, z, logsnr, label):
      angle = logsnr[:, None] * self.speed
      features = torch.cat([angle.cos(), angle.sin()], -1)
      emb = functional.silu(self.level(features) + self.label(label))
      patches = functional.unfold(z, patch, stride=patch).transpose(1, 2)
      h = self.embed(patches) + self.place
      for block in self.blocks:
        h = block(h, emb)
      h = self.out(normed(h, *self.last(emb).chunk(2, -1)))
      return functional.fold(
        h.transpose(1, 2), z.shape[-2:], patch, stride=patch
      )

  return Dit()


def make_step(torch, net, classes, device):
  """x, label -> loss; one step of training."""
  params = list(net.parameters())
  average = [p.detach().clone() for p in params]
  fused = dict(fused=True) if device == "cuda" else {}
  optimizer = torch.optim.AdamW(params, 1e-4, weight_decay=0.0, **fused)

  def loss_of(x, label):
    t = torch.rand(len(x), device=device) * (1 - 2e-6) + 1e-6
    eps, w = torch.randn_like(x), t[:, None, None, None]
    label = torch.where(torch.rand_like(t) < 0.1, classes, label)
    logsnr = 2 * (torch.log1p(-t) - torch.log(t))
    with torch.autocast(device, torch.bfloat16):
      u = net((1 - w) * x + w * eps, logsnr, label)
    return ((eps - x - u.float()) ** 2).mean()

  def step(loss_of, x, label):
    loss = loss_of(x, label)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(params, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
      torch._foreach_lerp_(average, params, 1e-4)
    return loss

  return loss_of, step


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("name")
  parser.add_argument("out")
  parser.add_argument("--batch", type=int, default=2)
  parser.add_argument("--tiny", action="store_true")
  args = parser.parse_args()
  found = {"device": None}

  def save():
    with open(args.out, "w") as file:
      json.dump(found, file)

  try:
    import torch
  except ImportError:
    found["skipped"] = "PyTorch is not installed"
    return save()
  found["torch"] = torch.__version__
  if not (torch.cuda.is_available() or args.tiny):
    found["skipped"] = "PyTorch finds no GPU"
    return save()
  device = "cuda" if torch.cuda.is_available() else "cpu"
  gpu = device == "cuda"
  found["device"] = torch.cuda.get_device_name() if gpu else "cpu"
  sizes = (32, 2, 2, 4) if args.tiny else (768, 12, 12, 2)
  net = build(torch, *sizes, channels=4, classes=1000).to(device)
  found["parameters"] = sum(p.numel() for p in net.parameters())
  loss_of, step = make_step(torch, net, 1000, device)
  found["compiled"] = not args.tiny
  if not args.tiny:
    torch.set_float32_matmul_precision("high")
    loss_of = torch.compile(loss_of)
  x = torch.randn(args.batch, 4, 32, 32, device=device)
  label = torch.arange(args.batch, device=device) % 1000

  def timed(steps):
    start = time.perf_counter()
    for _ in range(steps):
      loss = step(loss_of, x, label)
    loss.item()  # waits
    return (time.perf_counter() - start) / steps

  found["first_step_s"] = timed(1)
  save()
  times = [timed(1 if args.tiny else 10) for _ in range(2 if args.tiny else 6)]
  seconds = statistics.median(times[1:])
  found |= {
    "batch": args.batch,
    "ms": 1e3 * seconds,
    "images_per_s": args.batch / seconds,
  }
  if gpu:
    found["peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
  return save()


if __name__ == "__main__":
  sys.exit(main())
