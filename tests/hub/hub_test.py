# SPDX-License-Identifier: Apache-2.0
# hub_test.py GPTQ-CONVERT GPTQ-RUN GOLDEN: models loaded by their names from a server on this machine that fails in every way a server does.
import concurrent.futures
import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from server import Fault, Hub, etag_of, git_sha1, is_large, sha256  # noqa: E402

CONVERT, RUN, GOLDEN = map(os.path.abspath, sys.argv[1:4])
CHECKPOINT = os.path.join(GOLDEN, "checkpoints", "random-qwen3-w4-g128")
REPOSITORY = "studio/tiny-qwen3"


def read(path):
  with open(path, "rb") as file:
    return file.read()


def tensors_of(data):
  size, = struct.unpack("<Q", data[:8])
  header = json.loads(data[8:8 + size])
  header.pop("__metadata__", None)
  return {name: (entry, data[8 + size + entry["data_offsets"][0]:8 + size + entry["data_offsets"][1]]) for name, entry in header.items()}


def safetensors(tensors):
  header, body = {}, b""
  for name, (entry, data) in tensors.items():
    header[name] = {"dtype": entry["dtype"], "shape": entry["shape"], "data_offsets": [len(body), len(body) + len(data)]}
    body += data
  text = json.dumps(header).encode()
  return struct.pack("<Q", len(text)) + text + body


def shards(data, count):
  """The same tensors in several files, and their index."""
  tensors, files, index = tensors_of(data), {}, {}
  names = sorted(tensors)
  for i in range(count):
    file = f"model-{i + 1:05}-of-{count:05}.safetensors"
    part = names[len(names) * i // count:len(names) * (i + 1) // count]
    files[file] = safetensors({name: tensors[name] for name in part})
    index.update({name: file for name in part})
  files["model.safetensors.index.json"] = json.dumps({"metadata": {}, "weight_map": index}).encode()
  return files


DESCRIPTIONS = {
  "config.json": read(os.path.join(CHECKPOINT, "config.json")),
  "generation_config.json": read(os.path.join(CHECKPOINT, "generation_config.json")),
  "README.md": b"---\nlicense: apache-2.0\n---\n# Tiny\n",
}
WEIGHTS = {"model.safetensors": read(os.path.join(CHECKPOINT, "model.safetensors"))}
OTHERS = {  # what nobody asks for
  "pytorch_model.bin": b"pickle" * 100, "onnx/model.onnx": b"onnx", "original/consolidated.00.pth": b"pth", ".gitattributes": b"*",
  "original/model.safetensors": b"another", "../../../escape.safetensors": b"evil", "training_args.bin": b"x", "logo.png": b"png",
}


class HubTest(unittest.TestCase):
  def setUp(self):
    self.folder = tempfile.mkdtemp(prefix="gptq-hub-")
    self.addCleanup(shutil.rmtree, self.folder)
    self.hub = Hub()
    self.addCleanup(self.hub.close)
    self.target = os.path.join(self.folder, "out.gptq")
    self.cache = os.path.join(self.folder, "home", "hub")
    self.commit = self.hub.add(REPOSITORY, {**DESCRIPTIONS, **WEIGHTS, **OTHERS})
    self.environment = {
      "PATH": os.environ["PATH"], "HOME": self.folder, "HF_HOME": os.path.join(self.folder, "home"), "HF_ENDPOINT": self.hub.url,
      "GPTQ_CACHE": os.path.join(self.folder, "converted"), "HF_TOKEN": "hf_secret", "HF_HUB_DOWNLOAD_TIMEOUT": "10", "GPTQ_HUB_TRIES": "4",
      **{name: value for name, value in os.environ.items() if name.startswith(("ASAN_", "UBSAN_", "LSAN_", "LD_"))}}

  # Tools

  def run_tool(self, *arguments, ok=True, **more):
    done = subprocess.run(arguments, env={**self.environment, **more}, capture_output=True, text=True, timeout=120)
    text = done.stdout + done.stderr
    self.assertEqual(done.returncode, 0 if ok else 1, text)
    self.assertNotIn("secret", text)
    return text

  def convert(self, name=REPOSITORY, ok=True, target=None, **more):
    return self.run_tool(CONVERT, name, target or self.target, "--force", ok=ok, **more)

  def expected(self, files=None):
    """What the same files give as a folder on the disk."""
    folder = os.path.join(self.folder, "plain", REPOSITORY.split("/")[1])
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    for name, data in (files or {**DESCRIPTIONS, **WEIGHTS}).items():
      with open(os.path.join(folder, name), "wb") as file:
        file.write(data)
    target = os.path.join(self.folder, "plain.gptq")
    self.run_tool(CONVERT, folder, target, "--force")
    return read(target)

  def model_folder(self, repository=REPOSITORY):
    return os.path.join(self.cache, "models--" + repository.replace("/", "--"))

  def blobs(self):
    folder = os.path.join(self.model_folder(), "blobs")
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []

  def assert_converted(self, files=None):
    self.assertEqual(read(self.target), self.expected(files))

  def assert_nothing_half(self):
    """Every blob has the hash it is called by, and no .gptq file is there."""
    self.assertFalse(os.path.exists(self.target))
    self.assertFalse([name for name in os.listdir(self.folder) if ".part-" in name])
    for name in self.blobs():
      data = read(os.path.join(self.model_folder(), "blobs", name))
      if not name.endswith(".incomplete"):
        self.assertIn(name, (git_sha1(data), sha256(data)))

  def ranges(self):
    return [request[3]["Range"] for request in self.hub.asked("store", "GET") if "Range" in request[3]]

  # What is loaded, and where it lies

  def test_loads_what_it_needs(self):
    text = self.convert()
    self.assert_converted()
    self.assertIn("model.safetensors, 595 KB", text)
    asked = {request[2].rsplit("/", 1)[1] for request in self.hub.asked("hub", "GET", "/resolve/")}
    self.assertEqual(asked, set(DESCRIPTIONS) | set(WEIGHTS))
    self.assertTrue(all(f"/resolve/{self.commit}/" in request[2] for request in self.hub.asked("hub", "GET", "/resolve/")))

  def test_token_goes_to_the_hub_alone(self):
    self.convert()
    self.assertTrue(all(request[3].get("Authorization") == "Bearer hf_secret" for request in self.hub.asked("hub")))
    self.assertTrue(self.hub.asked("store"))
    self.assertFalse([request for request in self.hub.asked("store") if "Authorization" in request[3]])

  def test_token_of_the_file(self):
    os.makedirs(os.path.join(self.folder, "home"))
    with open(os.path.join(self.folder, "home", "token"), "w") as file:
      file.write("hf_filed\n")
    self.convert(HF_TOKEN="")
    self.assertEqual({request[3].get("Authorization") for request in self.hub.asked("hub")}, {"Bearer hf_filed"})

  def test_layout_is_the_hubs(self):
    self.convert()
    folder = self.model_folder()
    self.assertEqual(read(os.path.join(folder, "refs", "main")).decode(), self.commit)
    for name, data in {**DESCRIPTIONS, **WEIGHTS}.items():
      link = os.path.join(folder, "snapshots", self.commit, name)
      self.assertEqual(os.readlink(link), "../../blobs/" + etag_of(name, data))
      self.assertEqual(read(link), data)
    self.assertEqual(self.blobs(), sorted(etag_of(name, data) for name, data in {**DESCRIPTIONS, **WEIGHTS}.items()))
    self.assertEqual(sorted(os.listdir(self.cache)), [".locks", os.path.basename(folder)])

  def test_templates_in_a_folder(self):
    template = b"{{ messages[0].content }}"
    files = {**DESCRIPTIONS, **WEIGHTS, "additional_chat_templates/tool.jinja": template, "chat_template.jinja": template}
    commit = self.hub.add("studio/chatty", files)
    self.convert("studio/chatty")
    link = os.path.join(self.model_folder("studio/chatty"), "snapshots", commit, "additional_chat_templates", "tool.jinja")
    self.assertEqual(os.readlink(link), "../../../blobs/" + git_sha1(template))
    self.assertIn("chat_template.tool", self.run_tool(CONVERT, "inspect", self.target))

  def test_shards(self):
    files = {**DESCRIPTIONS, **shards(WEIGHTS["model.safetensors"], 3)}
    commit = self.hub.add(REPOSITORY, {**files, "consolidated.safetensors": b"the same once more"})
    self.convert()
    self.assert_converted(files)
    self.assertFalse(self.hub.asked(part="consolidated"))
    self.assertTrue(os.path.exists(os.path.join(self.model_folder(), "snapshots", commit, "model-00003-of-00003.safetensors")))

  def test_a_gguf_file(self):
    self.hub.add("studio/tiny-GGUF", {"tiny-Q4_0.gguf": b"GGUF" + bytes(100), "tiny-Q8_0.gguf": b"GGUF" + bytes(101), "README.md": b"x"})
    text = self.convert("studio/tiny-GGUF", ok=False)
    self.assertIn("name one of them, such as studio/tiny-GGUF/tiny-Q4_0.gguf", text)
    self.convert("studio/tiny-GGUF/tiny-Q8_0.gguf", ok=False)  # comes, and is no model
    self.assertEqual(len(self.hub.asked("store", "GET")), 1)
    self.assertIn("no file 'tiny-Q2.gguf'", self.convert("studio/tiny-GGUF/tiny-Q2.gguf", ok=False))

  def test_pickles_are_refused(self):
    self.hub.add("studio/old", {"config.json": DESCRIPTIONS["config.json"], "pytorch_model.bin": b"pickle"})
    self.assertIn("pickle", self.convert("studio/old", ok=False))
    self.assertFalse(self.hub.asked("store"))

  def test_revisions(self):
    other = {**DESCRIPTIONS, **WEIGHTS, "README.md": b"---\nlicense: mit\n---\n"}
    commit = self.hub.add(REPOSITORY, other, refs=("v1.0", "refs/pr/7"))
    for revision in ("v1.0", "refs/pr/7", commit):
      self.convert(f"{REPOSITORY}@{revision}")
      self.assert_converted(other)
    self.assertTrue(self.hub.asked("hub", "GET", "/revision/refs%2Fpr%2F7"))
    self.assertEqual(read(os.path.join(self.model_folder(), "refs", "refs", "pr", "7")).decode(), commit)
    self.assertFalse(os.path.exists(os.path.join(self.model_folder(), "refs", commit)))
    for revision in ("../../x", "a/../../b", "-x", ""):
      self.assertIn("there is no '", self.convert(f"{REPOSITORY}@{revision}", ok=False))

  def test_a_folder_wins(self):
    os.makedirs(os.path.join(self.folder, "plain", "studio"))
    shutil.copytree(CHECKPOINT, os.path.join(self.folder, "plain", REPOSITORY))
    done = subprocess.run([CONVERT, REPOSITORY, self.target], cwd=os.path.join(self.folder, "plain"), env=self.environment, capture_output=True)
    self.assertEqual((done.returncode, self.hub.asked()), (0, []))

  # What is there already

  def test_loads_nothing_twice(self):
    self.convert()
    before = len(self.hub.asked())
    self.convert()
    self.assert_converted()
    self.assertEqual([request[2] for request in self.hub.asked()[before:]], [f"/api/models/{REPOSITORY}/revision/main"])

  def test_offline(self):
    self.convert()
    before = len(self.hub.asked())
    self.convert(HF_HUB_OFFLINE="1")
    self.convert(f"{REPOSITORY}@{self.commit}", HF_HUB_OFFLINE="1")
    self.assert_converted()
    self.assertEqual(len(self.hub.asked()), before)
    self.assertIn("HF_HUB_OFFLINE is set", self.convert("studio/unknown", ok=False, HF_HUB_OFFLINE="yes"))

  def test_only_what_is_missing(self):
    self.convert()
    for name in (git_sha1(DESCRIPTIONS["config.json"]), sha256(WEIGHTS["model.safetensors"])):
      os.unlink(os.path.join(self.model_folder(), "blobs", name))
    before = len(self.hub.asked())
    self.convert()
    self.assert_converted()
    self.assertEqual(len(self.hub.asked("hub", "GET", "/resolve/")), before - 1 - len(self.hub.asked("store")) + 1 + 2)

  def test_a_new_commit_shares_its_files(self):
    self.convert()
    commit = self.hub.add(REPOSITORY, {**DESCRIPTIONS, **WEIGHTS, "README.md": b"---\nlicense: mit\n---\n"})
    self.convert()
    self.assertEqual(len(self.hub.asked("store", "GET")), 1)
    self.assertEqual(read(os.path.join(self.model_folder(), "refs", "main")).decode(), commit)

  def test_a_blob_of_another_size_is_loaded_anew(self):
    self.convert()
    blob = os.path.join(self.model_folder(), "blobs", sha256(WEIGHTS["model.safetensors"]))
    os.truncate(blob, 1000)
    self.convert()
    self.assert_converted()

  # Servers that fail

  def test_no_network(self):
    text = self.convert(ok=False, HF_ENDPOINT="http://127.0.0.1:9")
    for words in ("cannot be reached", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
      self.assertIn(words, text)
    self.convert()
    text = self.convert(HF_ENDPOINT="http://127.0.0.1:9")
    self.assertIn("is taken as it was when last loaded", text)
    self.assert_converted()

  def test_goes_on_after_cuts(self):
    self.hub.fault = lambda role, command, path, headers: Fault(cut=100_000) if role == "store" else None
    self.convert()
    self.assert_converted()
    self.assertEqual(self.ranges(), [f"bytes={at}-" for at in range(100_000, 595_016, 100_000)])

  def test_cuts_by_a_server_without_ranges(self):
    cuts = iter([200_000, 300_000, None])
    self.hub.fault = lambda role, command, path, headers: Fault(cut=next(cuts), whole=True) if role == "store" else None
    self.convert()
    self.assert_converted()

  def test_gives_up_where_nothing_comes(self):
    self.hub.fault = lambda role, command, path, headers: Fault(cut=200_000, whole=True) if role == "store" else None
    self.convert(ok=False)
    self.assert_nothing_half()
    self.assertLess(len(self.hub.asked("store")), 10)

  def test_another_range_than_asked(self):
    seen = []

    def fault(role, command, path, headers):
      if role != "store":
        return None
      seen.append(path)
      return Fault(cut=100_000) if len(seen) == 1 else Fault(headers={"Content-Range": "bytes 5-595015/595016"})
    self.hub.fault = fault
    self.assertIn("another part of", self.convert(ok=False))
    self.assertEqual(os.path.getsize(self.incomplete()), 100_000)  # what came before is kept
    self.hub.fault = None
    self.convert()
    self.assert_converted()
    self.assertEqual(self.ranges(), ["bytes=100000-", "bytes=100000-"])

  def test_too_many_requests(self):
    counts = {"hub": 0, "store": 0}

    def fault(role, command, path, headers):
      counts[role] += 1
      return Fault(status=429, headers={"Retry-After": "2"}) if counts[role] == 1 else None
    self.hub.fault = fault
    begin = time.monotonic()
    text = self.convert()
    self.assertGreaterEqual(time.monotonic() - begin, 4)
    self.assertIn("HTTP 429; again in 2 s", text)
    self.assert_converted()

  def test_too_much_patience_wanted(self):
    self.hub.fault = lambda role, command, path, headers: Fault(status=429, headers={"Retry-After": "86400"}) if role == "store" else None
    self.assertIn("24 h 00 min", self.convert(ok=False))
    self.assert_nothing_half()

  def test_errors_that_pass(self):
    statuses = iter([503, 500, None, 502, 504, 408])
    self.hub.fault = lambda role, command, path, headers: (lambda s: Fault(status=s) if s else None)(next(statuses, None))
    self.convert()
    self.assert_converted()

  def test_errors_that_stay(self):
    self.hub.fault = lambda role, command, path, headers: Fault(status=503) if role == "store" else None
    text = self.convert(ok=False)
    self.assertIn("HTTP 503", text)
    self.assertIn("'model.safetensors'", text)
    self.assertEqual(len(self.hub.asked("store")), 4)
    self.assert_nothing_half()

  def test_a_connection_that_stands_still(self):
    stops = iter([50_000, 70_000])
    self.hub.fault = lambda role, command, path, headers: (lambda n: Fault(stop=n) if n else None)(next(stops, None)) if role == "store" else None
    self.assertIn("nothing came for 2 s", self.convert(HF_HUB_DOWNLOAD_TIMEOUT="2"))
    self.assert_converted()
    self.assertEqual(self.ranges(), ["bytes=50000-", "bytes=120000-"])

  def test_a_slow_line_is_no_fault(self):
    self.hub.fault = lambda role, command, path, headers: Fault(rate=200_000) if role == "store" else None
    text = self.convert(HF_HUB_DOWNLOAD_TIMEOUT="2")  # less than it takes
    self.assert_converted()
    rate = int(re.search(r"model.safetensors, 595 KB, (\d+) KB/s", text)[1])
    self.assertTrue(20 < rate <= 200, text)
    self.assertEqual(len(self.hub.asked("store")), 1)

  def test_wrong_bytes_once(self):
    wrong = iter([bytes(len(WEIGHTS["model.safetensors"]))])
    self.hub.fault = lambda role, command, path, headers: Fault(data=next(wrong, None)) if role == "store" else None
    self.assertIn("it is loaded once more", self.convert())
    self.assert_converted()

  def test_wrong_bytes(self):
    self.hub.fault = lambda role, command, path, headers: Fault(data=bytes(len(WEIGHTS["model.safetensors"]))) if role == "store" else None
    self.assertIn("nothing of it is kept", self.convert(ok=False))
    self.assertNotIn(sha256(WEIGHTS["model.safetensors"]), " ".join(self.blobs()))
    self.assert_nothing_half()

  def test_wrong_bytes_of_a_small_file(self):
    wrong = DESCRIPTIONS["config.json"].replace(b"4", b"5")
    self.hub.fault = lambda role, command, path, headers: Fault(data=wrong) if path.endswith("/config.json") else None
    self.assertIn("'config.json' came twice", self.convert(ok=False))
    self.assertNotIn(git_sha1(DESCRIPTIONS["config.json"]), " ".join(self.blobs()))
    self.assert_nothing_half()

  def test_more_bytes_than_announced(self):
    longer = WEIGHTS["model.safetensors"] + b"more"
    self.hub.fault = lambda role, command, path, headers: Fault(data=longer) if role == "store" else None
    self.assertIn("more than the 595016 bytes", self.convert(ok=False))
    self.assert_nothing_half()

  def test_redirects(self):
    self.hub.moved["old/name"] = REPOSITORY
    self.convert("old/name")
    self.hub.moved.update({"a/loop": "b/loop", "b/loop": "a/loop"})
    self.assertIn("redirects", self.convert("a/loop", ok=False))
    self.hub.fault = lambda role, command, path, headers: Fault(status=302, headers={"Location": "file:///etc/passwd"})
    self.assertRegex(self.convert("studio/evil", ok=False), r"Protocol \"?file\"? not supported")

  def test_a_proxy(self):
    proxy = self.hub.url
    text = self.convert(HF_ENDPOINT="http://hub.invalid", http_proxy=proxy, no_proxy="127.0.0.1")
    self.assertNotIn("reached", text)
    self.assertTrue(all(request[3]["Host"] == "hub.invalid" for request in self.hub.asked("hub")))
    self.assert_converted()

  def test_encryption(self):
    certificate, key = (os.path.join(self.folder, name) for name in ("certificate.pem", "key.pem"))
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=x",
                    "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate], check=True, capture_output=True)
    url = self.hub.encrypted("hub", certificate, key)
    self.assertIn("certificate", self.convert(ok=False, HF_ENDPOINT=url))
    self.assertFalse(self.hub.asked())
    self.assertIn("which is not encrypted", self.convert(ok=False, HF_ENDPOINT=url, CURL_CA_BUNDLE=certificate))
    self.assertFalse(self.hub.asked("store"))
    self.hub.store_url = self.hub.encrypted("store", certificate, key)
    self.convert(HF_ENDPOINT=url, CURL_CA_BUNDLE=certificate)
    self.assert_converted()

  # Servers that say no

  def test_gated(self):
    for status, token, words in ((401, "", "set HF_TOKEN"), (403, "hf_secret", "account of your token")):
      self.hub.gated = status
      text = self.convert(ok=False, HF_TOKEN=token)
      self.assertIn("is gated: accept its licence at " + self.hub.url + "/" + REPOSITORY, text)
      self.assertIn(words, text)
    self.assertEqual(len(self.hub.asked("hub", "GET", "/resolve/")), 2)  # not tried again

  def test_what_is_not_there(self):
    self.assertIn("no such model at", self.convert("studio/none", ok=False))
    self.assertIn("HF_TOKEN must be set", self.convert("studio/none", ok=False, HF_TOKEN=""))
    self.assertIn("has no revision 'v9'", self.convert(REPOSITORY + "@v9", ok=False))
    self.hub.fault = lambda role, command, path, headers: Fault(status=401)
    self.assertIn("refuses the token", self.convert(ok=False))
    self.hub.fault = lambda role, command, path, headers: Fault(status=404)
    self.assertIn("no such model", self.convert(ok=False))
    self.assertEqual(len(self.hub.asked()), 5)

  def test_no_room(self):
    def enlarge(listing):
      for entry in listing["siblings"]:
        if "lfs" in entry:
          entry["lfs"]["size"] = entry["size"] = 10**15
    self.hub.change = enlarge
    text = self.convert(ok=False)
    self.assertIn("takes 1250000.0 GB", text)
    self.assertFalse(self.hub.asked("store"))
    self.assert_nothing_half()

  def test_hostile_listings(self):
    def with_(**fields):
      return lambda listing: listing.update(fields)

    def file(**fields):
      return lambda listing: [entry.update(fields) for entry in listing["siblings"] if entry["rfilename"] == "config.json"]
    evil = "../../../../evil"
    for change, words in ((with_(sha=evil), "must be a commit"), (with_(sha=5), "must be a string"), (with_(siblings=7), "must be a list"),
                          (with_(siblings=[5]), "no file"), (with_(siblings=[]), "no config.json"), (file(rfilename=evil), "no config.json"),
                          (file(rfilename="config.json/x"), "no config.json"), (file(size=10**6), "came twice|too early|HTTP 416"),
                          (file(size=3), "more than the 3 bytes"), (file(blobId="0" * 40), "came twice")):
      self.hub.change = change
      self.assertRegex(self.convert(ok=False), words)
      self.assertFalse([name for _, _, names in os.walk(self.folder) for name in names if "evil" in name])
      self.assert_nothing_half()
      shutil.rmtree(self.cache, ignore_errors=True)

  def test_an_index_that_leads_away(self):
    files = {**DESCRIPTIONS, **shards(WEIGHTS["model.safetensors"], 2)}
    index = json.loads(files["model.safetensors.index.json"])
    index["weight_map"]["x"] = "../../escape.safetensors"
    self.hub.add(REPOSITORY, {**files, "model.safetensors.index.json": json.dumps(index).encode()})
    self.convert()  # as a folder: the index is left aside, its shards speak for themselves
    self.assertFalse(self.hub.asked(part="escape"))

  def test_a_mirror_without_hashes_in_its_list(self):
    self.hub.knows_blobs = False
    self.convert()
    self.assert_converted()
    self.assertEqual(len(self.hub.asked("hub", "HEAD")), len(DESCRIPTIONS) + len(WEIGHTS))
    before = len(self.hub.asked())
    self.convert()
    self.assertEqual(len(self.hub.asked()), before + 1)

  # Programs that end

  def start(self, rate=150_000):
    self.hub.fault = lambda role, command, path, headers: Fault(rate=rate) if role == "store" else None
    process = subprocess.Popen([CONVERT, REPOSITORY, self.target, "--force"], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    self.addCleanup(process.stdout.close)
    self.addCleanup(process.stderr.close)
    return process

  def incomplete(self):
    return os.path.join(self.model_folder(), "blobs", sha256(WEIGHTS["model.safetensors"]) + ".incomplete")

  def wait_for(self, size):
    for _ in range(1500):
      if os.path.exists(self.incomplete()) and os.path.getsize(self.incomplete()) >= size:
        return
      time.sleep(0.02)
    self.fail("nothing is loaded")

  def test_killed_and_called_again(self):
    for step, number in enumerate((signal.SIGKILL, signal.SIGINT, signal.SIGKILL)):
      process = self.start()
      self.wait_for(120_000 * (step + 1))
      process.send_signal(number)
      self.assertNotEqual(process.wait(), 0)
      self.assert_nothing_half()
      self.assertFalse(os.path.exists(os.path.join(self.model_folder(), "refs", "main")))
    self.hub.fault = None
    text = self.convert()
    self.assertIn("are there already, the rest is loaded", text)
    self.assert_converted()
    firsts = [int(text.removeprefix("bytes=").removesuffix("-")) for text in self.ranges()]
    self.assertEqual(len(firsts), 3)
    self.assertGreaterEqual(firsts[2], 360_000)

  def test_a_damaged_beginning(self):
    data = WEIGHTS["model.safetensors"]
    for there in (b"garbage" * 1000, bytes(len(data)), data + b"longer", data, b""):
      shutil.rmtree(self.cache, ignore_errors=True)
      os.makedirs(os.path.dirname(self.incomplete()))
      with open(self.incomplete(), "wb") as file:
        file.write(there)
      self.convert()
      self.assert_converted()

  def test_two_at_once(self):
    processes = [self.start(), self.start()]
    results = [process.wait(timeout=60) for process in processes]
    self.assertEqual(results, [0, 0], [process.stderr.read() for process in processes])
    self.assertEqual(len(self.hub.asked("store", "GET")), 1)
    self.assert_converted()

  def test_a_full_disk(self):
    done = subprocess.run(["bash", "-c", 'ulimit -f 300; trap "" XFSZ; exec "$0" "$@"', CONVERT, REPOSITORY, self.target], env=self.environment,
                          capture_output=True, text=True)
    self.assertEqual(done.returncode, 1, done.stderr)
    self.assertIn("cannot write", done.stderr)
    self.assert_nothing_half()
    self.convert()
    self.assert_converted()
    self.assertEqual(self.ranges(), ["bytes=307200-"])

  def test_a_cache_that_cannot_be_written(self):
    self.convert()
    os.unlink(os.path.join(self.model_folder(), "refs", "main"))
    subprocess.run(["chmod", "-R", "a-w", self.cache], check=True)
    self.addCleanup(subprocess.run, ["chmod", "-R", "u+w", self.cache])
    self.convert()
    self.assert_converted()

  # Weights that do not stay

  def test_discard(self):
    self.run_tool(CONVERT, REPOSITORY, self.target, "--discard")
    self.assert_converted()
    self.assertEqual(self.blobs(), sorted(etag_of(name, data) for name, data in DESCRIPTIONS.items()))
    self.assertEqual(sorted(os.listdir(os.path.join(self.model_folder(), "snapshots", self.commit))), sorted(DESCRIPTIONS))
    self.assertFalse(os.path.exists(os.path.join(self.model_folder(), "refs", "main")))
    self.convert()
    self.run_tool(CONVERT, REPOSITORY, self.target, "--discard", "--force")  # what was there before stays
    self.assertIn(sha256(WEIGHTS["model.safetensors"]), self.blobs())

  def test_discard_other_kinds_of_models(self):
    families = os.path.join(GOLDEN, "families")
    for family in sorted(os.listdir(families)):
      files = {name: read(os.path.join(families, family, name)) for name in os.listdir(os.path.join(families, family)) if "reference" not in name}
      self.hub.add(f"studio/{family}", files)
      self.run_tool(CONVERT, f"studio/{family}", self.target, "--discard", "--force")
      shutil.copytree(os.path.join(families, family), os.path.join(self.folder, family), ignore=shutil.ignore_patterns("reference*"))
      self.run_tool(CONVERT, os.path.join(self.folder, family), self.target + "2", "--force")
      self.assertEqual(read(self.target), read(self.target + "2"), family)

  # gptq-run

  def test_run(self):
    text = self.run_tool(RUN, REPOSITORY, "--ids", "1,2,3", "-n", "4", "--print-ids")
    self.assertRegex(text, r"(?m)^\d+,\d+,\d+,\d+$")
    before = len(self.hub.asked())
    again = self.run_tool(RUN, REPOSITORY, "--ids", "1,2,3", "-n", "4", "--print-ids")
    self.assertEqual(re.findall(r"(?m)^[\d,]+$", text), re.findall(r"(?m)^[\d,]+$", again))
    self.assertEqual(len(self.hub.asked()), before + 1)
    shutil.rmtree(self.cache)
    self.run_tool(RUN, REPOSITORY, "--ids", "1,2,3", "-n", "4", "--print-ids", HF_HUB_OFFLINE="1")
    self.assertEqual(len(self.hub.asked()), before + 1)
    text = self.run_tool(RUN, "studio/none", "--ids", "1", ok=False)
    self.assertIn("no such model at", text)
    self.assertIn("gptq-run: no model 'studio/none'", text)
    self.assertIn("cannot open", self.run_tool(RUN, "no/such.gptq", "--ids", "1", ok=False))


# They wait more than they work, so four at a time.
def run_one(test):
  result = unittest.TextTestRunner(stream=io.StringIO(), verbosity=2).run(test)
  return test.id().split(".", 1)[1], [text for _, text in result.failures + result.errors]


if __name__ == "__main__":
  names = sys.argv[4:]
  tests = [t for t in unittest.defaultTestLoader.loadTestsFromTestCase(HubTest) if not names or t.id().rsplit(".", 1)[1] in names]
  failed = 0
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    for name, problems in pool.map(run_one, tests):
      print(name, "failed" if problems else "ok", *problems, sep="\n" if problems else " ", flush=True)
      failed += bool(problems)
  print(f"{len(tests) - failed} passed, {failed} failed")
  sys.exit(failed > 0 or not tests)
