# SPDX-License-Identifier: Apache-2.0
# A server that speaks as the Hugging Face hub does, as far as models are loaded from it, and a second one where large files lie. Faults are
# put in by the tests: a function that sees every request and may answer it wrongly.
import hashlib
import http.server
import json
import ssl
import threading
import time
import urllib.parse


def git_sha1(data):
  return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def sha256(data):
  return hashlib.sha256(data).hexdigest()


def is_large(name):
  return name.endswith((".safetensors", ".bin", ".gguf", ".onnx"))


def etag_of(name, data):
  return sha256(data) if is_large(name) else git_sha1(data)


class Fault:
  """How one answer goes wrong: another status, other bytes, an end too early, a stop in the middle, a slow line."""

  def __init__(self, status=None, headers=None, cut=None, stop=None, data=None, whole=False, rate=None):
    self.status, self.headers, self.cut, self.stop, self.data, self.whole, self.rate = status, headers or {}, cut, stop, data, whole, rate


class Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.1"

  def log_message(self, *args):
    pass

  def do_GET(self):
    self.serve()

  def do_HEAD(self):
    self.serve()

  def serve(self):
    hub, url = self.server.hub, urllib.parse.urlsplit(self.path)
    request = (self.server.role, self.command, url.path, dict(self.headers))
    with hub.lock:
      hub.requests.append(request)
    fault = hub.fault(*request) if hub.fault else None
    try:
      if fault and fault.status:
        self.answer(fault.status, b"no", fault.headers)
      elif self.server.role == "store":
        self.stored(url.path, fault)
      elif url.path.startswith("/api/models/"):
        self.listing(url, fault)
      else:
        self.resolve(url.path, fault)
    except (BrokenPipeError, ConnectionResetError):
      pass

  def answer(self, status, data=b"", headers=None):
    self.send_response(status)
    for name, value in (headers or {}).items():
      self.send_header(name, value)
    self.send_header("Content-Length", str(len(data)))
    self.end_headers()
    if self.command != "HEAD":
      self.wfile.write(data)

  def refusal(self, status, code):
    self.answer(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

  def find(self, owner, name, revision):
    """The commit and its files, or None with the refusal sent."""
    hub = self.server.hub
    repository = f"{owner}/{name}"
    moved = hub.moved.get(repository)
    if moved:
      self.answer(307, b"", {"Location": self.path.replace(repository, moved, 1)})
      return None
    if repository not in hub.models:
      self.refusal(404 if self.headers.get("Authorization") else 401, "RepoNotFound")
      return None
    model = hub.models[repository]
    commit = model["refs"].get(revision, revision)
    if commit not in model["commits"]:
      self.refusal(404, "RevisionNotFound")
      return None
    return commit, model["commits"][commit]

  def listing(self, url, fault):
    owner, name, word, revision = url.path.removeprefix("/api/models/").split("/", 3)
    found = self.find(owner, name, urllib.parse.unquote(revision))
    if not found:
      return
    commit, files = found
    blobs = "blobs" in urllib.parse.parse_qs(url.query) and self.server.hub.knows_blobs
    siblings = []
    for file, data in files.items():
      entry = {"rfilename": file}
      if blobs:
        entry.update(size=len(data), blobId=git_sha1(data))
        if is_large(file):
          entry["lfs"] = {"sha256": sha256(data), "size": len(data), "pointerSize": 130}
      siblings.append(entry)
    listing = {"id": f"{owner}/{name}", "sha": commit, "gated": False, "siblings": siblings, "cardData": {"tags": [["x"]]}}
    self.server.hub.change(listing)
    self.body(json.dumps(listing).encode(), {"Content-Type": "application/json"}, fault)

  def resolve(self, path, fault):
    owner, name, word, revision, file = path[1:].split("/", 4)
    found = self.find(owner, name, urllib.parse.unquote(revision))
    if not found:
      return
    commit, files = found
    if self.server.hub.gated:
      self.refusal(self.server.hub.gated, "GatedRepo")
      return
    file = urllib.parse.unquote(file)
    if file not in files:
      self.refusal(404, "EntryNotFound")
      return
    data = files[file]
    if is_large(file):
      self.answer(302, b"elsewhere", {
        "Location": f"{self.server.hub.store_url}/{sha256(data)}?signature=secret", "X-Repo-Commit": commit,
        "X-Linked-Etag": f'"{sha256(data)}"', "X-Linked-Size": str(len(data))})
    else:
      self.body(data, {"ETag": f'"{git_sha1(data)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}, fault)

  def stored(self, path, fault):
    if self.headers.get("Authorization"):
      self.answer(400, b"Only one auth mechanism allowed")
      return
    for model in self.server.hub.models.values():
      for files in model["commits"].values():
        for data in files.values():
          if sha256(data) == path[1:]:
            self.body(data, {"Accept-Ranges": "bytes"}, fault)
            return
    self.answer(404)

  def body(self, data, headers, fault):
    fault = fault or Fault()
    data = data if fault.data is None else fault.data
    status, first = 200, 0
    wanted = self.headers.get("Range")
    if wanted and not fault.whole:
      first = int(wanted.removeprefix("bytes=").split("-")[0])
      if first >= len(data):
        self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        return
      status = 206
      headers = {**headers, "Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"}
    data = data[first:]
    headers = {**headers, **fault.headers}
    self.send_response(status)
    for name, value in headers.items():
      self.send_header(name, value)
    self.send_header("Content-Length", str(len(data)))
    self.end_headers()
    if self.command == "HEAD":
      return
    end = len(data) if fault.cut is None else min(fault.cut, len(data))
    self.trickle(data[:end], fault)
    if end < len(data):
      self.close_connection = True
    with self.server.hub.lock:
      self.server.hub.bytes_sent += end

  def trickle(self, data, fault):
    if fault.stop is not None:
      self.wfile.write(data[:fault.stop])
      self.wfile.flush()
      self.server.hub.closed.wait(60)
      self.close_connection = True
    elif fault.rate:
      for at in range(0, len(data), fault.rate // 20):
        self.wfile.write(data[at:at + fault.rate // 20])
        self.wfile.flush()
        time.sleep(0.05)
    else:
      self.wfile.write(data)


class Server(http.server.ThreadingHTTPServer):
  daemon_threads = True

  def __init__(self, hub, role, context=None):
    super().__init__(("127.0.0.1", 0), Handler)
    self.hub, self.role, self.scheme = hub, role, "https" if context else "http"
    if context:
      self.socket = context.wrap_socket(self.socket, server_side=True)
    threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

  def handle_error(self, request, client_address):
    pass  # clients that go in the middle are what is tested

  @property
  def url(self):
    return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"


class Hub:
  def __init__(self):
    self.lock, self.closed = threading.Lock(), threading.Event()
    self.models, self.moved, self.requests = {}, {}, []
    self.fault, self.gated, self.knows_blobs, self.bytes_sent = None, None, True, 0
    self.change = lambda listing: None
    self.servers = [Server(self, "hub"), Server(self, "store")]
    self.url, self.store_url = (server.url for server in self.servers)

  def encrypted(self, role, certificate, key):
    """The same server once more, by https: its URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    self.servers.append(Server(self, role, context))
    return self.servers[-1].url

  def add(self, repository, files, refs=("main",)):
    commit = hashlib.sha1(repository.encode() + b"".join(files.values())).hexdigest()
    model = self.models.setdefault(repository, {"refs": {}, "commits": {}})
    model["commits"][commit] = files
    model["refs"].update({name: commit for name in refs})
    return commit

  def asked(self, role=None, command=None, part=""):
    with self.lock:
      return [r for r in self.requests if (not role or r[0] == role) and (not command or r[1] == command) and part in r[2]]

  def close(self):
    self.closed.set()
    for server in self.servers:
      server.shutdown()
      server.server_close()
