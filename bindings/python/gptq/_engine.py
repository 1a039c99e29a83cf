# SPDX-License-Identifier: Apache-2.0
"""Engines and their sessions.

An engine with its sessions is used by one thread at a time; a lock sees to that. Sessions that the garbage collector finds, or that a
callback closes, are destroyed when the engine is next free.
"""
from __future__ import annotations

import threading
import weakref
from collections import deque
from ctypes import byref, c_float, c_uint32, c_void_p
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Deque, Iterator, MutableMapping, Optional, Sequence, Union

from . import _native as native
from ._generate import pooling_of
from ._library import Callbacks, Error, Handle, call, check, fitted, lib, make, string_list
from ._session import Session
from ._source import Path, Source

if TYPE_CHECKING:
  from ._model import Model


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
class MemoryInfo:
  page_tokens: int
  kv_pages_total: int
  kv_pages_used: int
  host_bytes: int  # held by the runtime and all that was made with it
  host_peak: int
  device_bytes: int
  device_peak: int


class Engine(Handle):
  """KV memory and scheduler of some sessions."""

  def __init__(self, model: "Model", pointer: Any, best_logprobs: int):
    self.model, self._pointer, self.best_logprobs = model, pointer, best_logprobs
    self._lock, self._inside, self._dead = threading.RLock(), False, deque()  # type: threading.RLock, bool, Deque[Any]
    self._sessions: MutableMapping[int, Session] = weakref.WeakValueDictionary()

  def __enter__(self) -> "Engine":
    return self

  def _release(self, pointer: Any) -> None:
    self._dead.append((lib.gptq_engine_destroy, pointer))
    self._bury()

  def _domain(self) -> "Domain":
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
    with self._domain():
      call(lambda error: lib.gptq_session_create(self._handle, byref(out), error))
    return Session(self, out)

  def set_draft(self, model: "Optional[Model]") -> None:
    """A smaller model of the same runtime with the same tokens guesses for generations with speculate=True from now on; None: none does."""
    with self._domain():
      call(lambda error: lib.gptq_engine_set_draft(self._handle, model._handle if model else None, None, error))

  def restore(self, saved: Union[bytes, bytearray, memoryview, Path, BinaryIO]) -> Session:
    """A session that goes on where the saved one stood; its `exact` is False where its numbers may differ in their last digits.

    saved: what Session.save gave, a path as str or os.PathLike, or a file object with seek and read."""
    out, callbacks = c_void_p(), Callbacks()
    if isinstance(saved, (bytes, bytearray, memoryview)):
      data = bytes(saved)
      with self._domain():
        status = call(lambda error: lib.gptq_session_restore(self._handle, data, len(data), byref(out), error))
    else:
      source = Source(callbacks, file=saved) if hasattr(saved, "read") else Source(callbacks, saved)  # type: ignore[arg-type]
      with self._domain():
        status = callbacks.call(lambda error: lib.gptq_session_restore_from(self._handle, byref(source.struct), byref(out), error))
    session = Session(self, out)
    session.exact = status == native.GPTQ_OK
    return session

  def step(self, budget_us: int = native.GPTQ_BUDGET_UNLIMITED) -> StepInfo:
    """Computes for about so many microseconds on all started sessions together."""
    info = make(native.gptq_step_info)
    with self._domain():
      more = check(lib.gptq_engine_step(self._handle, fitted(c_uint32, budget_us, "budget_us"), byref(info))) == native.GPTQ_MORE
    return StepInfo(more, info.sessions_active, info.sessions_readable, info.used_us, info.next_quantum_us, info.tokens_prefilled,
                    info.tokens_generated)


  def readable(self) -> Iterator[Session]:
    """The sessions that have something unread, or have ended since they were looked at; each at most once a step."""
    while True:
      with self._domain():
        pointer = lib.gptq_engine_next_readable(self._handle)
      if not pointer:
        return
      session = self._sessions.get(pointer)
      if session is not None:
        yield session

  def embed(self, texts: Sequence[str], *, pooling: Optional[str] = None, normalize: bool = False) -> memoryview[float]:
    """Vectors of texts, a float32 buffer [texts][n_embd] that numpy takes without a copy. It steps the engine, in free places of sessions.

    pooling: "last" or "mean"; None: pooling and normalizing are as the model's files say, else the last token's, normalized."""
    strings, n_embd = string_list(texts, "texts"), self.model.info["n_embd"]
    flags, kind = native.GPTQ_EMBED_NORMALIZE if normalize else 0, pooling_of(pooling)
    if not len(strings):
      return memoryview(b"").cast("f")
    out = (c_float * (len(strings) * n_embd))()
    with self._domain():
      call(lambda error: lib.gptq_embed(self._handle, strings, len(strings), kind, flags, out, error))
    return memoryview(out).cast("B").cast("f", [len(strings), n_embd])

  @property
  def memory(self) -> MemoryInfo:
    info = make(native.gptq_memory_info)
    with self._domain():
      check(lib.gptq_engine_memory(self._handle, byref(info)))
    return MemoryInfo(info.page_tokens, info.kv_pages_total, info.kv_pages_used, info.host_bytes, info.host_peak, info.device_bytes, info.device_peak)


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
