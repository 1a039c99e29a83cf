# SPDX-License-Identifier: Apache-2.0
"""Engines and their sessions.

An engine with its sessions is used by one thread at a time; a lock sees to that. Sessions that the garbage collector finds, or that a
callback closes, are destroyed when the engine is next free.
"""
from __future__ import annotations

import threading
from collections import deque
from ctypes import byref, c_char, c_char_p, c_float, c_size_t, c_uint32, c_void_p, cast
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Deque, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Type

from . import _native as native
from ._library import Callbacks, Error, Handle, call, check, fitted, lib, make, sized, text_of, token_ids

if TYPE_CHECKING:
  from ._model import Constraint, Model
STOPS = {native.GPTQ_STOP_NONE: "none", native.GPTQ_STOP_EOS: "eos", native.GPTQ_STOP_STRING: "string", native.GPTQ_STOP_LENGTH: "length",
         native.GPTQ_STOP_CONTEXT: "context", native.GPTQ_STOP_CANCELLED: "cancelled", native.GPTQ_STOP_CONSTRAINT: "constraint",
         native.GPTQ_STOP_ERROR: "error",
         native.GPTQ_STOP_PREFILLED: "prefilled"}
STREAM_BUDGET_US = 5000


@dataclass(frozen=True)
class StepInfo:
  more: bool  # work is left
  sessions_active: int
  sessions_readable: int
  used_us: int
  next_quantum_us: int
  tokens_prefilled: int
  tokens_generated: int


@dataclass(frozen=True)
class Marked:
  """A piece of what was generated with marked=True."""
  kind: str  # "answer", "thinking" or "tool_call"
  text: str  # of a tool call its arguments, a JSON object
  call: int  # its number in this generation
  name: str  # of the tool
  id: str    # what the model called the call, or ""


@dataclass(frozen=True)
class SessionInfo:
  running: bool
  stop_reason: str  # "eos", "string", "length", "context", "cancelled", "constraint", "error", "prefilled", or "none"
  status: int
  n_tokens: int
  n_generated: int
  n_ctx: int
  prefill_us: int
  decode_us: int


class Engine(Handle):
  def __init__(self, model: "Model", pointer: Any, chat: Type[Any]):
    self.model, self.pointer, self.chat = model, pointer, chat
    self._lock, self._inside, self._dead = threading.RLock(), False, deque()  # type: threading.RLock, bool, Deque[Any]
    self._sessions: Dict[int, "Session"] = {}

  def __enter__(self) -> "Engine":
    return self

  def _release(self, pointer: Any) -> None:
    self._dead.append((lib.gptq_engine_destroy, pointer))
    self._bury()

  def domain(self) -> "Domain":
    return Domain(self)

  def _bury(self) -> None:
    """Destroys what is waiting for it, unless the engine is busy: who is inside will do it."""
    while self._dead and self._lock.acquire(blocking=False):
      try:
        if self._inside:
          return
        while self._dead:
          destroy, pointer = self._dead.popleft()
          destroy(pointer)
      finally:
        self._lock.release()

  def session(self) -> "Session":
    out = c_void_p()
    with self.domain():
      call(lambda error: lib.gptq_session_create(self.handle, byref(out), error))
    return Session(self, out)

  def set_draft(self, model: "Optional[Model]") -> None:
    """A smaller model of the same runtime with the same tokens guesses for generations with speculate=True from now on; None: none does."""
    with self.domain():
      call(lambda error: lib.gptq_engine_set_draft(self.handle, model.handle if model else None, None, error))

  def restore(self, saved: bytes) -> "Session":
    """A session that goes on where the saved one stood; its `exact` is False where its numbers may differ in their last digits."""
    out = c_void_p()
    with self.domain():
      status = call(lambda error: lib.gptq_session_restore(self.handle, saved, len(saved), byref(out), error))
    session = Session(self, out)
    session.exact = status == native.GPTQ_OK
    return session

  def step(self, budget_us: int = native.GPTQ_BUDGET_UNLIMITED) -> StepInfo:
    """Computes for about so many microseconds on all started sessions together."""
    info = make(native.gptq_step_info)
    with self.domain():
      more = check(lib.gptq_engine_step(self.handle, fitted(c_uint32, budget_us, "budget_us"), byref(info))) == native.GPTQ_MORE
    return StepInfo(more, info.sessions_active, info.sessions_readable, info.used_us, info.next_quantum_us, info.tokens_prefilled,
                    info.tokens_generated)


class Domain:
  """The right to be inside an engine: for one thread at a time, and not from within a callback."""

  def __init__(self, engine: Engine):
    self.engine = engine

  def __enter__(self) -> None:
    engine = self.engine
    engine._lock.acquire()
    if engine._inside:
      engine._lock.release()
      raise Error(native.GPTQ_E_INVALID_STATE, "the engine is busy: a callback may not call it")
    engine._inside = True

  def __exit__(self, *_: Any) -> None:
    self.engine._inside = False
    self.engine._lock.release()
    self.engine._bury()


class Cancel:
  """Ends a session's work from any thread; harmless when it is closed."""

  def __init__(self, pointer: Any):
    self._guard, self._pointer = threading.Lock(), pointer

  def __call__(self) -> None:
    with self._guard:
      if self._pointer is not None:
        lib.gptq_session_cancel(self._pointer)

  def detach(self) -> None:
    with self._guard:
      self._pointer = None


class Session(Handle):
  """One sequence of tokens."""
  exact = True

  def __init__(self, engine: Engine, pointer: Any):
    self.engine, self.pointer, self.cancel = engine, pointer, Cancel(pointer)

  def __enter__(self) -> "Session":
    return self

  def _release(self, pointer: Any) -> None:
    self.cancel.detach()
    self.engine._dead.append((lib.gptq_session_destroy, pointer))
    self.engine._bury()

  def append(self, text: str, *, add_bos: bool = False, parse_special: bool = False) -> None:
    data, flags = text.encode(), (native.GPTQ_TEXT_ADD_BOS if add_bos else 0) | (native.GPTQ_TEXT_PARSE_SPECIAL if parse_special else 0)
    with self.engine.domain():
      call(lambda error: lib.gptq_session_append_text(self.handle, data, len(data), flags, None, error))

  def append_tokens(self, tokens: Sequence[int]) -> None:
    ids = token_ids(tokens)
    with self.engine.domain():
      call(lambda error: lib.gptq_session_append_tokens(self.handle, ids, len(ids), error))

  def set_prediction(self, text: Optional[str]) -> None:
    """What the output is likely to have parts of, for generations with speculate=True; None: no prediction."""
    data = None if text is None else text.encode()
    with self.engine.domain():
      call(lambda error: lib.gptq_session_set_prediction(self.handle, data, len(data or b""), 0, error))

  def set_chat(self, messages: Any, *, add_generation_prompt: bool = True, tools: Any = None, variables: Any = None) -> int:
    """Makes the sequence that of the conversation, keeping what it already begins with; returns its tokens."""
    chat, count = self.engine.chat(messages, add_generation_prompt, tools, variables), c_size_t()
    with self.engine.domain():
      call(lambda error: lib.gptq_session_set_chat(self.handle, byref(chat.struct), byref(count), error))
    return count.value

  def start(self, **params: Any) -> None:
    """Begins generating; Engine.step does the work. params: as for stream."""
    struct = generate_params(**params)
    with self.engine.domain():
      call(lambda error: lib.gptq_session_start(self.handle, byref(struct), error))

  def read(self) -> str:
    """Text that came since the last read."""
    size, parts = c_size_t(), []
    buffer = (c_char * 512)()
    with self.engine.domain():
      while True:
        check(lib.gptq_session_read(self.handle, buffer, 512, byref(size)))
        if not size.value:
          return b"".join(parts).decode()
        parts.append(buffer.raw[:size.value])

  def read_marked(self) -> List[Marked]:
    """With marked=True: what came since the last read, text of one kind in one piece. A tool call comes when it is complete."""
    kinds = {native.GPTQ_MARK_ANSWER: "answer", native.GPTQ_MARK_THINKING: "thinking", native.GPTQ_MARK_TOOL_CALL: "tool_call"}
    found: List[Tuple[str, int, str, str, List[bytes]]] = []
    marked, buffer, more = make(native.gptq_marked), (c_char * 512)(), False
    with self.engine.domain():
      while True:
        check(lib.gptq_session_read_marked(self.handle, buffer, 512, byref(marked)))
        if marked.kind == native.GPTQ_MARK_NONE:
          return [Marked(kind, b"".join(parts).decode(), number, name, id) for kind, number, name, id, parts in found]
        kind = kinds[marked.kind]
        if not found or found[-1][0] != kind or (kind == "tool_call" and not more):
          found.append((kind, marked.call, marked.name.decode(), marked.id.decode(), []))
        found[-1][4].append(buffer.raw[:marked.size])
        more = bool(marked.more)

  def read_tokens(self) -> List[int]:
    count, out = c_size_t(), []
    buffer = (native.gptq_token * 256)()
    with self.engine.domain():
      while True:
        check(lib.gptq_session_read_tokens(self.handle, buffer, 256, byref(count)))
        if not count.value:
          return out
        out += buffer[:count.value]

  def read_logits(self) -> Tuple[int, memoryview]:
    """With logits=True: the first position, and float32 rows [positions][n_vocab] as a buffer that numpy takes without a copy."""
    n_vocab, info = self.engine.model.info["n_vocab"], self._info()
    if info.logits_unread == 0:
      return 0, memoryview(b"")
    buffer, first, rows = (c_float * (n_vocab * info.logits_unread))(), c_uint32(), c_uint32()
    with self.engine.domain():
      check(lib.gptq_session_read_logits(self.handle, buffer, len(buffer), byref(first), byref(rows)))
    return first.value, memoryview(buffer).cast("B").cast("f", [rows.value, n_vocab])

  def tokens(self) -> List[int]:
    """The whole sequence."""
    buffer, count = (native.gptq_token * self._info().n_tokens)(), c_size_t()
    with self.engine.domain():
      check(lib.gptq_session_tokens(self.handle, buffer, len(buffer), byref(count)))
    return list(buffer[:count.value])

  def truncate(self, n_tokens: int) -> None:
    with self.engine.domain():
      check(lib.gptq_session_truncate(self.handle, fitted(c_uint32, n_tokens, "n_tokens")))

  def fork(self) -> "Session":
    """A second session of the engine that stands where this one stands. It shares the KV cache."""
    out = c_void_p()
    with self.engine.domain():
      call(lambda error: lib.gptq_session_fork(self.handle, byref(out), error))
    return Session(self.engine, out)

  def save(self, *, full: bool = False) -> bytes:
    """What Engine.restore makes a session of that goes on where this one stands, also while it generates; with full with the KV cache."""
    kind = native.GPTQ_SAVE_FULL if full else native.GPTQ_SAVE_REPLAY

    def write(buffer: Any, cap: int, needed: Any) -> int:
      error = make(native.gptq_error)
      status = lib.gptq_session_save(self.handle, kind, buffer, cap, needed, byref(error))
      return status if status == native.GPTQ_E_BUFFER_TOO_SMALL else check(status, error)
    with self.engine.domain():
      return bytes(sized(write, c_char).raw)

  def _info(self) -> Any:
    info = make(native.gptq_session_info)
    with self.engine._lock:  # which a callback has already
      check(lib.gptq_session_info_get(self.handle, byref(info)))
    return info

  @property
  def info(self) -> SessionInfo:
    return session_info(self._info())

  def generate(self, prompt: str, on_text: Optional[Callable[[str], Optional[bool]]] = None, **params: Any) -> SessionInfo:
    """Continues the prompt to the end; on_text gets the text as it comes and ends it by returning False."""
    struct, info, callbacks, data = generate_params(**params), make(native.gptq_session_info), Callbacks(), prompt.encode()
    receive = callbacks.wrap(native.gptq_text_fn, on_text and (lambda user, text, size: on_text(text_of(text, size)) is False))
    with self.engine.domain():
      callbacks.call(lambda error: lib.gptq_generate(self.handle, data, len(data), byref(struct), receive, None, byref(info), error))
    return session_info(info)

  def stream(self, prompt: Optional[str] = None, **params: Any) -> Iterator[str]:
    """Pieces of text until the session ends. Leaving the loop early cancels.

    params: max_tokens, seed (None = random), stop (strings), constraint, bias ({token: added to its logit}), model_defaults, ignore_eos,
    keep_stop, prefill_only, logits, speculate, and the numbers of gptq_sampling: temperature, top_k, top_p, min_p, repeat_penalty, ..."""
    if prompt:
      self.append(prompt, add_bos=self._info().n_tokens == 0, parse_special=True)
    self.start(**params)
    try:
      while True:
        more = self._info().state == native.GPTQ_SESSION_RUNNING
        if piece := self.read():
          yield piece
        if not more:
          break
        self.engine.step(STREAM_BUDGET_US)
      check(self._info().status)
    finally:
      if self.pointer is not None and self._info().state == native.GPTQ_SESSION_RUNNING:
        self.cancel()
        self.engine.step(1)  # which ends it; a poll would not


def session_info(info: Any) -> SessionInfo:
  return SessionInfo(info.state == native.GPTQ_SESSION_RUNNING, STOPS.get(info.stop_reason, str(info.stop_reason)), info.status, info.n_tokens,
                     info.n_generated, info.n_ctx, info.prefill_us, info.decode_us)


SAMPLING = {name: kind for name, kind in native.gptq_sampling._fields_  # pylint: disable=protected-access
            if name not in ("struct_size", "flags", "seed", "bias", "n_bias", "dry_breakers")}


def generate_params(*, max_tokens: int = 0, seed: Optional[int] = 0, stop: Sequence[str] = (), bias: Optional[Mapping[int, float]] = None,
                    constraint: Optional["Constraint"] = None, model_defaults: bool = False, ignore_eos: bool = False, keep_stop: bool = False,
                    prefill_only: bool = False, logits: bool = False, speculate: bool = False, marked: bool = False,
                    **sampler: float) -> Any:
  if unknown := sampler.keys() - SAMPLING.keys():
    raise TypeError(f"unknown parameters: {', '.join(sorted(unknown))}")
  flags = (native.GPTQ_SAMPLE_RANDOM_SEED if seed is None else 0) | (native.GPTQ_SAMPLE_MODEL_DEFAULTS if model_defaults else 0)
  biases = (native.gptq_logit_bias * len(bias or {}))(*[native.gptq_logit_bias(*one) for one in (bias or {}).items()])
  sampling = make(native.gptq_sampling, flags=flags, seed=seed or 0, bias=biases, n_bias=len(biases), **sampler)
  words = [word.encode() for word in stop]
  strings = (native.gptq_string * len(words))(*[native.gptq_string(cast(c_char_p(word), c_void_p), len(word)) for word in words])
  params = make(native.gptq_generate_params, sampling=native.POINTER(native.gptq_sampling)(sampling), stop=strings, n_stop=len(words),
                max_tokens=max_tokens, constraint=constraint and constraint.handle)
  params.keep = words, constraint
  for flag, wanted in ((native.GPTQ_GEN_IGNORE_EOS, ignore_eos), (native.GPTQ_GEN_KEEP_STOP, keep_stop),
                       (native.GPTQ_GEN_PREFILL_ONLY, prefill_only), (native.GPTQ_GEN_LOGITS, logits),
                       (native.GPTQ_GEN_SPECULATE, speculate), (native.GPTQ_GEN_MARKED, marked)):
    params.flags |= flag if wanted else 0
  return params
