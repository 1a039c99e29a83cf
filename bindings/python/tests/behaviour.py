# SPDX-License-Identifier: Apache-2.0
"""behaviour.py MODELS: cancel from other threads, closing at odd times, callbacks that raise, and no leaks."""
import gc
import io
import os
import subprocess
import sys
import threading
import time

import gptq

models = sys.argv[1]
CYCLES = 1000


def path(name):
  return os.path.join(models, name + ".gptq")


def resident():
  with open("/proc/self/statm", encoding="ascii") as file:
    return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def grows(cycle):
  for _ in range(CYCLES // 4):
    cycle()
  gc.collect()
  before = resident()
  for _ in range(CYCLES):
    cycle()
  gc.collect()
  return resident() - before


def objects():
  """1,000 times everything, made and dropped."""
  def cycle():
    with gptq.Runtime(threads=1) as runtime, gptq.Model(path("text"), runtime=runtime) as model, model.engine(ctx_tokens=64) as engine:
      with engine.session() as session, model.banned("as an AI") as banned, model.adapter(path("text") + "-lora") as adapter:
        session.set_adapter(adapter)
        session.generate("a", max_tokens=1, banned=banned)
        session.save_to(io.BytesIO())
  growth = grows(cycle)
  assert growth < 1 << 20, f"{growth} bytes more"


def callbacks_that_raise():
  """1,000 exceptions in a callback arrive in the caller, and leave nothing behind."""
  model = gptq.Model(path("text"))
  engine = model.engine(ctx_tokens=64)

  def raising(_):
    raise KeyError("from the callback")

  def cycle():
    session = engine.session()  # which the garbage collector closes
    try:
      session.generate("a", raising, max_tokens=4)
    except KeyError:
      return
    raise AssertionError("the exception is lost")
  growth = grows(cycle)
  assert growth < 1 << 20, f"{growth} bytes more"


def cancel_from_another_thread():
  session, over = gptq.Model(path("text")).session(), threading.Event()

  def cancel():
    while not over.wait(0.001):
      session.cancel()
  canceller = threading.Thread(target=cancel)
  canceller.start()
  try:
    for _ in range(20):
      deadline = time.monotonic() + 30
      while session.generate("the cat", max_tokens=200, ignore_eos=True).stop_reason != "cancelled":
        assert time.monotonic() < deadline, "no cancel arrives"
        session.truncate(0)
      session.truncate(0)
    session.close()  # while the other thread still cancels
  finally:
    over.set()
    canceller.join()


def a_callback_may_not_generate():
  session = gptq.Model(path("text")).session()
  try:
    session.generate("a", lambda piece: session.generate("b"), max_tokens=4)
  except gptq.Error as error:
    assert error.name == "GPTQ_E_INVALID_STATE", error
  else:
    raise AssertionError("it was let in")


def closing_inside_a_callback_and_on_other_threads():
  engine = gptq.Model(path("text")).engine(max_sessions=8)
  session = engine.session()
  others = [engine.session() for _ in range(7)]

  def close(_):
    others and others.pop().close()
    return None
  closer = threading.Thread(target=lambda: [other.close() for other in others[:3]])
  closer.start()
  session.generate("the cat", close, max_tokens=40)
  closer.join()
  session.generate("the cat", lambda piece: session.close(), max_tokens=4)
  assert all(engine.session() is not None for _ in range(8))  # sessions dropped at once: their places are free again


def progress_cancels():
  try:
    gptq.quantize(path("text"), path("never"), rows=4, row_tokens=64, progress=lambda phase, done: False)
  except gptq.Error as error:
    assert error.name == "GPTQ_E_CANCELLED", error
  else:
    raise AssertionError("it went on")
  assert not os.path.exists(path("never"))


def an_iterator_left_early_ends_the_session():
  session = gptq.Model(path("text")).session()
  for _ in session.stream("the cat", max_tokens=200):
    break
  assert not session.info.running
  assert "".join(session.stream("again", max_tokens=4))


def a_fork_and_a_restored_save_go_on():
  engine = gptq.Model(path("text")).engine(max_sessions=3, ctx_tokens=256)
  session = engine.session()
  session.append("the cat", add_bos=True)
  session.start(max_tokens=24, temperature=0.9, seed=5, frequency_penalty=0.2, ignore_eos=True)
  engine.step(1)
  for full in (False, True):
    with session.fork() as fork, engine.restore(session.save(full=full)) as restored:
      engine.step()
      text = fork.read()
      assert restored.exact and text and restored.read() == text, text
  try:
    engine.restore(b"no save")
  except gptq.Error as error:
    assert error.name == "GPTQ_E_FORMAT", error
  else:
    raise AssertionError("it was taken")


def speculation_gives_the_same():
  model = gptq.Model(path("text"))
  plain, ahead = ("".join(model.generate("the cat", max_tokens=60, ignore_eos=True, speculate=speculate)) for speculate in (False, True))
  assert plain == ahead and plain, ahead
  with model.engine() as engine, engine.session() as session:
    engine.set_draft(gptq.Model(path("text"), runtime=model.runtime))
    session.set_prediction(plain)
    assert "".join(session.stream("the cat", max_tokens=60, ignore_eos=True, speculate=True)) == plain
    session.set_prediction(None)
    engine.set_draft(None)
  try:
    model.engine().set_draft(gptq.Model(path("text"), runtime=gptq.Runtime()))
  except gptq.Error as error:
    assert error.name == "GPTQ_E_INVALID_ARGUMENT", error
  else:
    raise AssertionError("a model of another runtime was taken")


def constraints():
  model = gptq.Model(path("text"))
  answer = "".join(model.generate("well ", constraint=model.choice("yes", 'may "be"')))
  assert answer in ("yes", 'may "be"'), answer
  answer = "".join(model.generate("well ", constraint=model.regex("[a-c]{3}z")))
  assert len(answer) == 4 and answer[3] == "z", answer
  try:
    model.regex("ab(c")
  except gptq.Error as error:
    assert error.name == "GPTQ_E_INVALID_ARGUMENT" and error.site, error
  else:
    raise AssertionError("it was taken")


def refused(call, kind, words):
  try:
    call()
  except kind as error:
    assert words in str(error), error
  else:
    raise AssertionError(f"no {kind.__name__}")


def texts_are_not_taken_for_lists():
  model = gptq.Model(path("text"))
  assert "".join(model.generate("the cat", stop="coco", max_tokens=40)) == "".join(model.generate("the cat", stop=["coco"], max_tokens=40)) == "sqioazla"
  with model.session(max_sessions=2) as session:
    session.append("a")
    refused(lambda: session.score("abc"), TypeError, "not a list")
  refused(lambda: model.embed("abc"), TypeError, "not a list")


def contents_may_be_parts():
  model = gptq.Model(path("text"))
  parts = [{"role": "user", "content": [{"type": "text", "text": "a "}, {"type": "text", "text": "z"}]}]
  assert model.render_chat(parts) == model.render_chat([{"role": "user", "content": "a z"}])
  refused(lambda: model.render_chat([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]), TypeError, "image_url")
  refused(lambda: model.render_chat([{"role": "user", "content": 5}]), TypeError, 'messages[0]["content"] is int')
  refused(lambda: model.render_chat([{"content": "a"}]), TypeError, "messages[0]")
  refused(lambda: model.render_chat("hello"), TypeError, "messages")


def streams_that_raise():
  """What a file object raises arrives in the caller, and the engine goes on."""
  class Broken(io.BytesIO):
    def read(self, *_):
      raise KeyError("from the file")

    def write(self, *_):
      raise KeyError("from the file")
  model = gptq.Model(path("text"))
  session = model.session()
  session.append("a")
  refused(lambda: gptq.Model(file=Broken(b"x" * 4096)), KeyError, "from the file")
  refused(lambda: session.engine.restore(Broken(b"x" * 4096)), KeyError, "from the file")
  refused(lambda: session.save_to(Broken()), KeyError, "from the file")
  assert session.generate(" b", max_tokens=2).n_generated == 2


def saves_go_to_files(folder=os.path.join(models, "made.save")):
  engine = gptq.Model(path("text")).engine(max_sessions=2)
  with engine.session() as session:
    session.append("the cat", add_bos=True)
    session.save_to(folder)
    with engine.restore(folder) as restored:
      assert restored.tokens() == session.tokens()


def a_log_gets_errors_and_so_do_exceptions():
  told = []
  model = gptq.Model(path("text"), runtime=gptq.Runtime(log=lambda level, text: told.append(text)))
  refused(lambda: model.detokenize([384]), gptq.Error, "token 384 is outside")
  assert len(told) >= 1 and "token 384" in told[-1], told


def logprobs_and_vectors_are_what_python_has():
  model = gptq.Model(path("text"))
  with model.session(best_logprobs=2) as session:
    session.generate("the cat", max_tokens=3, logprobs=True)
    one = session.logprobs()[-3]
    assert one.best[0] == (one.token, one.logprob), one
  vectors = model.embed(["a", "b"], pooling="mean", normalize=True)
  assert vectors.shape == (2, 64) and vectors.format == "f"
  assert abs(sum(x * x for x in vectors.tolist()[0]) - 1) < 1e-5


def unknown_parameters_are_refused():
  try:
    next(gptq.Model(path("text")).generate("a", temprature=1.0))
  except TypeError:
    return
  raise AssertionError("it was taken")


def numbers_have_to_fit():
  model = gptq.Model(path("text").encode())  # a path as bytes
  session = model.engine(ctx_tokens=64).session()
  session.append("a b")
  tokens = session.tokens()
  for wrong in (lambda: session.truncate(2**32), lambda: session.truncate(-1), lambda: session.start(max_tokens=2**32 + 3), lambda: session.start(max_tokens=-1),
                lambda: session.append_tokens([2**32 + 3]), lambda: model.engine(max_sessions=2**40), lambda: model.detokenize([2**32])):
    try:
      wrong()
    except OverflowError as error:
      assert "does not fit" in str(error), error
      continue
    raise AssertionError("it is taken for another number")
  assert session.tokens() == tokens


def logits_are_a_buffer():
  session = gptq.Model(path("text")).session(logits_rows=4)
  session.append_tokens([1, 270, 280])
  session.start(prefill_only=True, logits=True)
  while session.engine.step(1000).more:
    time.sleep(0)
  first, rows = session.read_logits()
  assert (first, rows.shape, rows.format) == (0, (3, 384), "f")


def the_examples_of_the_readme():
  readme = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../README.md")
  with open(readme, encoding="utf-8") as file:
    codes = [part.split("```")[0] for part in file.read().split("```python\n")[1:]]
  done = subprocess.run([sys.executable, "-c", codes[0], path("text")], check=True, capture_output=True, text=True)
  assert "tokens" in done.stdout, done.stdout
  before = 'import gptq, sys\nmodel = gptq.Model(sys.argv[1])\nsession = model.session()\nmessages = [{"role": "user", "content": "hi"}]\n'
  code = codes[1].replace("reserve_tokens=200", "reserve_tokens=100")  # the model's context has 256
  for name in ("model.gptq", "style.gptq-lora"):
    code = code.replace(f'"{name}"', repr(path("text") + ("-lora" if "lora" in name else "")))
  done = subprocess.run([sys.executable, "-c", before + code, path("text")], check=True, capture_output=True, text=True)
  assert "MemoryEstimate(fits=True" in done.stdout, done.stdout


failed = 0
for test in (objects, callbacks_that_raise, cancel_from_another_thread, a_callback_may_not_generate,
             closing_inside_a_callback_and_on_other_threads, progress_cancels, an_iterator_left_early_ends_the_session, a_fork_and_a_restored_save_go_on,
             speculation_gives_the_same, constraints, texts_are_not_taken_for_lists, contents_may_be_parts, streams_that_raise, saves_go_to_files,
             a_log_gets_errors_and_so_do_exceptions, logprobs_and_vectors_are_what_python_has, unknown_parameters_are_refused, numbers_have_to_fit, logits_are_a_buffer,
             the_examples_of_the_readme):
  try:
    test()
    print(f"ok - {test.__name__}", flush=True)
  except Exception as problem:  # pylint: disable=broad-except
    failed += 1
    print(f"not ok - {test.__name__}: {problem!r}", flush=True)
sys.exit(failed != 0)
