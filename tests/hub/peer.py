# SPDX-License-Identifier: Apache-2.0
# peer.py GPTQ-CONVERT GOLDEN: one cache folder for gptq-convert and huggingface_hub (from PyPI; not part of the tests): what the one has loaded
# the other uses, both ways, and huggingface_hub finds nothing wrong with it.
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from server import Hub, etag_of  # noqa: E402

convert, golden = sys.argv[1:3]
checkpoint = os.path.join(golden, "checkpoints", "random-qwen3-w4-g128")
files = {"README.md": b"---\nlicense: mit\n---\n"}
for name in ("config.json", "generation_config.json", "model.safetensors"):
  with open(os.path.join(checkpoint, name), "rb") as file:
    files[name] = file.read()

with tempfile.TemporaryDirectory() as folder:
  hub = Hub()
  commits = {name: hub.add(name, {**files, "which.txt": name.encode()}) for name in ("studio/ours", "studio/theirs")}
  os.environ.update(HF_HOME=folder, HF_ENDPOINT=hub.url, HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DOWNLOAD_TIMEOUT="10")
  import huggingface_hub

  def run(name):
    subprocess.run([convert, name, os.path.join(folder, "out.gptq"), "--force"], check=True)

  def count(part):
    return len(hub.asked(command="GET", part=part))

  run("studio/ours")
  loaded = count("/resolve/")
  for name, data in files.items():
    path = huggingface_hub.hf_hub_download("studio/ours", name)
    assert open(path, "rb").read() == data and f"/snapshots/{commits['studio/ours']}/" in path, path
    assert huggingface_hub.try_to_load_from_cache("studio/ours", name) == path
  assert huggingface_hub.snapshot_download("studio/ours", local_files_only=True).endswith(commits["studio/ours"])
  assert count("/resolve/") == loaded == len(files), "huggingface_hub loads again what gptq-convert has loaded"

  for name in files:
    huggingface_hub.hf_hub_download("studio/theirs", name)
  loaded = count("/resolve/")
  run("studio/theirs")
  assert count("/resolve/") == loaded, "gptq-convert loads again what huggingface_hub has loaded"

  info = huggingface_hub.scan_cache_dir()
  assert not info.warnings, info.warnings
  repositories = {repo.repo_id: repo for repo in info.repos}
  assert set(repositories) == set(commits), repositories
  for name, repo in repositories.items():
    revision, = repo.revisions
    assert revision.commit_hash == commits[name] and set(revision.refs) == {"main"}
    assert {f.file_name: f.blob_path.name for f in revision.files} == {n: etag_of(n, d) for n, d in files.items()}
  print(f"huggingface_hub {huggingface_hub.__version__} and gptq-convert share one cache: {len(files)} files, both ways")
