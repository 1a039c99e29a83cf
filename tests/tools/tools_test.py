# SPDX-License-Identifier: Apache-2.0
# tools_test.py GPTQ-CONVERT GPTQ-RUN GPTQ-EVAL GPTQ-BENCH GOLDEN: what the tools say and leave behind when they are used wrongly, and saves that go on.
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import unittest

CONVERT, RUN, EVAL, BENCH, GOLDEN = map(os.path.abspath, sys.argv[1:6])
MODEL = os.path.join(GOLDEN, "tiny-1.0.gptq")
CHECKPOINT = os.path.join(GOLDEN, "checkpoints", "random-qwen3-w4-g128")


def run(*command, **how):
  how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 120, **how}
  return subprocess.run(command, **how)


class Case(unittest.TestCase):
  def setUp(self):
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = folder.name

  def path(self, name, content=None):
    path = os.path.join(self.folder, name)
    if content is not None:
      with open(path, "wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())
    return path

  def node(self, name="full", minor=7):
    """A device of our own, never the real one: a tool that is wrong would replace it."""
    path = self.path(name)
    try:
      os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, minor))
      with open(path, "wb"):
        return path
    except PermissionError:
      self.skipTest("device nodes are not ours to make")

  def ok(self, *command, **how):
    done = run(*command, **how)
    self.assertEqual(done.returncode, 0, (command, done.stderr))
    return done.stdout.decode(), done.stderr.decode()

  def refused(self, says, *command, code=None, **how):
    done = run(*command, **how)
    said = (done.stderr + (done.stdout or b"")).decode()
    self.assertIn(done.returncode, [code] if code is not None else [1, 2], (command, said))
    for part in [says] if isinstance(says, str) else says:
      self.assertIn(part, said, command)
    return said


class JsonLines(Case):
  WRONG = [b'{"text":"a', b'{"text": "\\ud800"}', b'{"text": "\xff"}', b'{"text": "a"}{"text": "b"}', b'{"text": "a", "text": "b"}', b"[1]", b'{"text": 1}', b'\xef\xbb\xbf{"text": "a"}', b"{}"]

  def test_file_and_line_are_named(self):
    for line in self.WRONG:
      texts = self.path("texts", b'{"text": "a"}\n \n' + line + b"\n")
      self.refused(texts + ":3", EVAL, "constraint", MODEL, "--regex", "a", "--texts", texts, code=1)
      self.refused(texts + ":3", EVAL, "embed", MODEL, "--texts", texts, code=1)
      schemas = self.path("schemas", b'{"schema": "{}", "texts": ["1"]}\n' + line.replace(b"text", b"schema") + b"\n")
      self.refused(schemas + ":2", EVAL, "constraint", MODEL, "--schemas", schemas, code=1)
    self.refused("\"texts\"", EVAL, "constraint", MODEL, "--schemas", self.path("schemas", '{"schema": "{}", "texts": [1]}'), code=1)
    self.refused("folder", EVAL, "constraint", MODEL, "--regex", "a", "--texts", self.folder, code=1)

  def test_the_mark_of_utf8_and_lines_of_windows(self):
    out, _ = self.ok(EVAL, "constraint", MODEL, "--regex", "a", "--texts", self.path("texts", b'\xef\xbb\xbf{"text": "a"}\r\n\r\n{"text": "b"}'))
    self.assertIn("1: accepted at byte 1\n2: refused at byte 0\n", out)


class Outputs(Case):
  def commands(self, target):
    """Of each way to write a file, with what it needs."""
    model = self.path("dense.gptq")
    if not os.path.exists(model):
      self.ok(CONVERT, "synth", os.path.join(GOLDEN, "checkpoints", "random-qwen3-w4-g128", "config.json"), model, "--bits", "16", "--head-bits", "16")
    return {
      "convert": [CONVERT, CHECKPOINT, target, "--force"],
      "synth": [CONVERT, "synth", os.path.join(CHECKPOINT, "config.json"), target, "--force"],
      "quantize": [CONVERT, "quantize", model, target, "--force", "--rows", "1", "--row-tokens", "16", "--calibration", self.path("a.ids", "1 " * 64)],
      "report": [CONVERT, "quantize", model, self.path("q.gptq"), "--force", "--rows", "1", "--row-tokens", "16", "--calibration", self.path("a.ids", "1 " * 64), "--report", target],
      "export": [CONVERT, "export", model, target, "--force"],
      "logits": [EVAL, "logits", MODEL, "--ids", "1,2,3", "-o", target],
      "plot": [EVAL, "table", MODEL, MODEL, self.path("text", "ab abc d " * 60), "--ctx", "60", "--plot", target],
      "save": [RUN, MODEL, "--ids", "1,2,3", "-n", "2", "--save", target],
    }

  def test_devices_stay(self):
    node = self.node()
    for name, command in self.commands(node).items():
      self.refused("is not a", *command, code=1)
      self.assertTrue(stat.S_ISCHR(os.lstat(node).st_mode), name)

  def test_folders_and_pipes_stay(self):
    pipe, folder = self.path("pipe"), self.path("folder")
    os.mkfifo(pipe)
    os.mkdir(folder)
    for target in (pipe, folder):
      for name, command in self.commands(target).items():
        if name != "export" or target == pipe:
          self.refused("is not a", *command, code=1)
    self.assertTrue(stat.S_ISFIFO(os.lstat(pipe).st_mode))

  def test_links_stay(self):
    file, link = self.path("file", "kept"), self.path("link")
    for target in ("file", "nowhere", "folder"):
      if not os.path.lexists(self.path("folder")):
        os.mkdir(self.path("folder"))
      os.symlink(target, link)
      for name, command in self.commands(link).items():
        self.refused("is a link", *command, code=1)
        self.assertEqual(os.readlink(link), target, name)
      os.remove(link)
    with open(file) as stays:
      self.assertEqual(stays.read(), "kept")

  def test_what_cannot_be_written_is_told(self):
    def few_bytes():
      signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
      resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    for name in ("logits", "save", "convert"):
      target = self.path(name)
      self.refused("cannot write", *self.commands(target)[name], code=1, preexec_fn=few_bytes)
      self.assertEqual([f for f in os.listdir(self.folder) if f.startswith(name)], [])

  def test_standard_output(self):
    full = self.node()
    for command in ([EVAL, "--help"], [RUN, "--help"], [BENCH, "--help"], [CONVERT, "--help"], [RUN, "--version"], [CONVERT, "--version"], [CONVERT, "--families"],
                    [CONVERT, "inspect", MODEL], [CONVERT, "inspect", MODEL, "--json"], [CONVERT, "verify", MODEL], [RUN, MODEL, "--ids", "1,2", "-n", "2"], [EVAL, "perplexity", MODEL, self.path("text", "ab " * 40), "--ctx", "16"],
                    [BENCH, MODEL, "-p", "8", "-n", "0", "-r", "1"], [EVAL, "tokenize", MODEL]):
      with open(full, "wb") as out:
        done = run(*command, stdout=out)
      self.assertEqual(done.returncode, 1, command)
      self.assertIn(b"cannot write to standard output", done.stderr, command)

  def test_the_file_is_there(self):
    target = self.path("logits")
    self.ok(EVAL, "logits", MODEL, "--ids", "1,2,3", "-o", target)
    self.assertGreater(os.path.getsize(target), 0)
    self.assertEqual(os.path.getsize(target) % 12, 0)


class Options(Case):
  def test_no_value_is_empty(self):
    for name in ("--regex", "--json-schema", "--json-compact", "--grammar", "--tools", "--lora", "--speculate", "--prediction", "--save", "--restore", "--stop", "--ban-phrase", "--ids", "--kv", "-n", "--temp",
                 "--device", "--backend"):
      self.refused(name.lstrip("-").replace("n", "n") if name == "-n" else name, RUN, MODEL, *([] if name == "--ids" else ["-p", "a"]), name, "", code=2)
    texts = self.path("texts", '{"text": "a"}')
    self.refused("--query", EVAL, "embed", MODEL, "--texts", texts, "--query", "", code=2)
    self.refused("--regex", EVAL, "constraint", MODEL, "--texts", texts, "--regex", "", code=2)
    self.refused("--speculate", BENCH, MODEL, "--speculate", "", code=2)
    self.refused("--report", CONVERT, "quantize", MODEL, self.path("q"), "--report", "", code=2)
    self.refused("--lora", CONVERT, "export", MODEL, self.path("e"), "--lora", "", code=2)
    self.refused("the prompt is empty", RUN, MODEL, "-p", "", "-n", "1", code=1)
    self.assertEqual(self.ok(RUN, MODEL, "-p", "a", "--choice", "")[0], "\n")

  def test_each_use_takes_one_value(self):
    for option, value in (("--choice", "ab"), ("--stop", "zz"), ("--ban-phrase", "zz"), ("--device", "cpu")):
      self.ok(RUN, "-p", "a", "-n", "4", option, value, MODEL)
    out, _ = self.ok(RUN, "-p", "a", "--score", "a", "--score", "b", MODEL)
    self.assertEqual(len(out.splitlines()), 2)
    self.ok(RUN, "-p", "a", "-n", "4", "--choice", "ab", "--choice", "ba", MODEL)
    self.ok(BENCH, "-p", "8", "-n", "0", "-r", "1", "-t", "1", MODEL)
    self.ok(CONVERT, "quantize", "--keep", "a", "--calibration", self.path("a.ids", "1 2"), "--dry-run", *self.dense())

  def dense(self):
    model = self.path("dense.gptq")
    self.ok(CONVERT, "synth", os.path.join(CHECKPOINT, "config.json"), model, "--bits", "16", "--head-bits", "16")
    return model, self.path("q.gptq")

  def test_numbers(self):
    for wrong in ("-1", "99999999999999999999999", "1.5", "x", "1x"):
      self.refused("--seed", RUN, MODEL, "-p", "a", "--seed", wrong, code=2)
    for wrong in ("1,2,", ",1", "1,,2", "1 2"):
      self.refused("token ids", RUN, MODEL, "--ids", wrong, "-n", "1", code=1)
      self.refused("token ids", EVAL, "logits", MODEL, "--ids", wrong, "-o", self.path("l"), code=1)
    self.refused("--sessions", BENCH, MODEL, "-s", "0", code=2)
    self.refused("--sessions", BENCH, MODEL, "-s", "1,0", code=2)
    self.refused("--stride", EVAL, "perplexity", MODEL, self.path("text", "ab " * 40), "--stride", "0", code=2)
    self.refused(["--pooling", "last", "mean"], EVAL, "embed", MODEL, "--texts", self.path("t", '{"text": "a"}'), "--pooling", "foo", code=2)
    self.refused(["--kv", "f16"], RUN, MODEL, "-p", "a", "--kv", "f8", code=2)
    self.refused("2x", RUN, MODEL, "-p", "a", "--lora", self.path("adapter", "x") + ":2x", code=1)
    self.assertNotIn("INT", [line.split("--kv")[1] for line in self.ok(RUN, "--help")[0].splitlines() if "--kv" in line][0])

  def test_what_nothing_would_come_of(self):
    generate = [RUN, MODEL, "-p", "a"]
    for more in (["--regex", "a"], ["--print-ids"], ["--hide-thinking"], ["-n", "3"], ["--temp", "1"], ["--stop", "a"], ["--seed", "3"], ["--ignore-eos"]):
      self.refused(["--tokens" if more[0] == "-n" else more[0], "--score"], *generate, "--score", "b", *more, code=1)
    self.refused("--system", *generate, "--system", "a", code=2)
    self.refused("--device-layers", *generate, "--device", "cpu", "--device-layers", "1", code=1)
    self.refused("--device-bytes", *generate, "--device", "cpu", "--device-bytes", "1G", code=1)
    self.refused("--mirostat-ent", *generate, "--mirostat-ent", "5", code=1)
    self.refused("--dynatemp-range", *generate, "--dynatemp-range", "0.5", code=1)
    self.refused("--ignore-eos", *generate, "--ignore-eos", "--regex", "a", code=2)
    self.ok(*generate, "-n", "2", "--temp", "0.8", "--mirostat-ent", "5", "--dynatemp-range", "0.5")

  def test_versions(self):
    version = self.ok(CONVERT, "--version")[0].split()[1]
    for tool in (RUN, EVAL, BENCH):
      self.assertEqual(self.ok(tool, "--version")[0], f"{os.path.basename(tool)} {version}\n")


class Messages(Case):
  def test_no_names_of_c(self):
    for command in ([RUN, MODEL, "--chat"], [RUN, MODEL, "-p", "a", "--temp", "-1"], [RUN, MODEL, "-p", "a", "-c", "99999999"], [RUN, MODEL, "--ids", "1,99999999"], [RUN, self.path("no model", "x"), "-p", "a"],
                    [RUN, MODEL, "-p", "a", "--show-marks"], [RUN, MODEL, "-p", "a", "--grammar", self.path("g", "root ::= x")], [RUN, MODEL, "--ids", "1,2,3,4", "-c", "2"]):
      done = run(*command, input=None if "--chat" not in command else b"hello\n", **({"stdin": None} if "--chat" in command else {}))
      said = done.stderr.decode()
      self.assertNotIn(done.returncode, (0, -6) if "--chat" not in command else (-6,), (command, said))
      self.assertNotRegex(said, r"gptq_[a-z]|GPTQ_[A-Z]|\.cpp:\d|template_override|ctx_tokens|[a-z]_p\b", command)


class Saves(Case):
  WAYS = [["--ignore-eos"], ["--temp", "1", "--seed", "7", "--ignore-eos"], ["--temp", "1.5", "--mirostat-ent", "3", "--ignore-eos"], ["--temp", "1", "--regex", "[abc ]{30,}"],
          ["--temp", "1", "--ban-phrase", "zzz", "--ignore-eos"], ["--temp", "1", "--ignore-eos", "--print-ids"]]

  def test_goes_on_as_if_it_had_not_stopped(self):
    save = self.path("save")
    for way in self.WAYS:
      start = [RUN, MODEL, "--ids", "1,2,3,4,5,6,7,8,9", "-t", "1", *way]
      more = [option for option in way if option == "--print-ids"]
      whole = self.ok(*start, "-n", "24")[0]
      text = self.ok(*start, "-n", "5", "--save", save)[0].removesuffix("\n")
      for n in ("12", "7"):
        part = self.ok(RUN, MODEL, "--restore", save, "-n", n, "-t", "1", "--save", save, *more)[0].removesuffix("\n")
        text += "," + part if more else part
      self.assertEqual(text + "\n", whole, way)

  def test_other_options_start_anew(self):
    save = self.path("save")
    self.ok(RUN, MODEL, "--ids", "1,2,3", "--temp", "1", "-n", "5", "--save", save)
    self.assertEqual(self.ok(RUN, MODEL, "--restore", save, "--regex", "bab", "-n", "9")[0], "bab\n")
    self.ok(RUN, MODEL, "--restore", save, "-p", "ab", "-n", "3")
    self.ok(RUN, MODEL, "--restore", save, "--score", "ab")
    self.ok(RUN, MODEL, "--restore", save, "--ids", "4,5", "-n", "3", "--save", save)

  def test_a_replay_is_told(self):
    save = self.path("save")
    self.ok(RUN, MODEL, "--ids", "1,2,3", "-n", "2", "--save", save)
    self.assertNotIn("digits", self.ok(RUN, MODEL, "--restore", save, "-n", "2")[1])
    self.assertIn("last digits may differ", self.ok(RUN, MODEL, "--restore", save, "-n", "2", "--exact")[1])

  def test_interrupted(self):
    save = self.path("save")
    start = [RUN, MODEL, "--ids", "1,2,3", "--ignore-eos", "--temp", "1", "-c", "4096"]
    with subprocess.Popen([*start, "--save", save], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as going:
      out = going.stdout.read(1)
      going.send_signal(signal.SIGINT)
      rest, said = going.communicate(timeout=60)
    self.assertEqual(going.returncode, 1, said)
    self.assertIn(b"generated ", said)
    self.assertIn(b"interrupted", said)
    out = (out + rest).decode().removesuffix("\n")
    whole = self.ok(*start)[0]
    self.assertLess(len(out), len(whole) - 1)
    self.assertEqual(out + self.ok(RUN, MODEL, "--restore", save, "-c", "4096")[0], whole)


if __name__ == "__main__":
  unittest.main(argv=sys.argv[:1] + sys.argv[6:])
