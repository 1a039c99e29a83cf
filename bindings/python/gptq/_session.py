# SPDX-License-Identifier: Apache-2.0
"""Sessions: one sequence of tokens each."""
from __future__ import annotations

import threading
from ctypes import byref, c_char, c_double, c_float, c_size_t, c_uint32, c_void_p, string_at
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Callable, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from . import _native as native
from ._chat import Chat, Messages
from ._generate import generate_params
from ._library import Callbacks, Handle, call, check, fitted, lib, make, sized, string_list, text_of, token_ids
from ._source import Path

if TYPE_CHECKING:
  from ._constraint import Adapter
  from ._engine import Engine
STOPS = {native.GPTQ_STOP_NONE: "none", native.GPTQ_STOP_EOS: "eos", native.GPTQ_STOP_STRING: "string", native.GPTQ_STOP_LENGTH: "length",
         native.GPTQ_STOP_CONTEXT: "context", native.GPTQ_STOP_CANCELLED: "cancelled", native.GPTQ_STOP_CONSTRAINT: "constraint",
         native.GPTQ_STOP_ERROR: "error",
         native.GPTQ_STOP_PREFILLED: "prefilled"}
STREAM_BUDGET_US = 5000


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
  n_pending: int        # tokens not yet computed
  first_token_us: int   # from the start
  n_guessed: int        # tokens computed ahead; of them n_guessed_right were sampled
  n_guessed_right: int
  n_dropped: int        # messages that the last set_chat left out (drop_oldest)


@dataclass(frozen=True)
class TokenLogprob:
  """A token of the sequence and the natural logarithm of its probability; NaN where that is not known."""
  token: int
  logprob: float
  best: List[Tuple[int, float]]  # the most likely tokens there, with theirs


@dataclass(frozen=True)
class Score:
  """The sum of a text's log-probabilities, and of how many tokens."""
  logprob: float
  n_tokens: int


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
    self.engine, self._pointer, self.cancel = engine, pointer, Cancel(pointer)
    engine._sessions[pointer.value] = self

  def __enter__(self) -> "Session":
    return self

  def _release(self, pointer: Any) -> None:
    self.cancel.detach()
    self.engine._dead.append((lib.gptq_session_destroy, pointer))
    self.engine._bury()

  def append(self, text: str, *, add_bos: bool = False, parse_special: bool = False) -> None:
    data, flags = text.encode(), (native.GPTQ_TEXT_ADD_BOS if add_bos else 0) | (native.GPTQ_TEXT_PARSE_SPECIAL if parse_special else 0)
    with self.engine._domain():
      call(lambda error: lib.gptq_session_append_text(self._handle, data, len(data), flags, None, error))

  def append_tokens(self, tokens: Sequence[int]) -> None:
    ids = token_ids(tokens)
    with self.engine._domain():
      call(lambda error: lib.gptq_session_append_tokens(self._handle, ids, len(ids), error))

  def set_prediction(self, text: Optional[str]) -> None:
    """What the output is likely to have parts of, for generations with speculate=True; None: no prediction."""
    data = None if text is None else text.encode()
    with self.engine._domain():
      call(lambda error: lib.gptq_session_set_prediction(self._handle, data, len(data or b""), 0, error))

  def set_chat(self, messages: Messages, *, add_generation_prompt: bool = True, tools: Any = None, variables: Optional[Mapping[str, Any]] = None,
               template: Optional[str] = None, drop_oldest: bool = False, reserve_tokens: int = 0, keep_tokens: int = 0) -> int:
    """Makes the sequence that of the conversation, keeping what it already begins with; returns its tokens.

    tools: what json.dumps takes; variables: of the template; template: instead of the model's. drop_oldest leaves the oldest turns out
    (info.n_dropped) where room for reserve_tokens is missing, and then keeps at most keep_tokens."""
    chat, count = Chat(messages, add_generation_prompt, tools, variables, template, drop_oldest, reserve_tokens, keep_tokens), c_size_t()
    with self.engine._domain():
      call(lambda error: lib.gptq_session_set_chat(self._handle, byref(chat.struct), byref(count), error))
    return count.value

  def start(self, **params: Any) -> None:
    """Begins generating; Engine.step does the work. params: as for stream."""
    struct = generate_params(**params)
    with self.engine._domain():
      call(lambda error: lib.gptq_session_start(self._handle, byref(struct), error))

  def read(self) -> str:
    """Text that came since the last read."""
    size = c_size_t()
    parts: List[bytes] = []
    buffer = (c_char * 512)()
    with self.engine._domain():
      while True:
        check(lib.gptq_session_read(self._handle, buffer, 512, byref(size)))
        if not size.value:
          return b"".join(parts).decode()
        parts.append(buffer.raw[:size.value])

  def read_marked(self) -> List[Marked]:
    """With marked=True: what came since the last read, text of one kind in one piece. A tool call comes when it is complete."""
    kinds = {native.GPTQ_MARK_ANSWER: "answer", native.GPTQ_MARK_THINKING: "thinking", native.GPTQ_MARK_TOOL_CALL: "tool_call"}
    found: List[Tuple[str, int, str, str, List[bytes]]] = []
    marked, buffer, more = make(native.gptq_marked), (c_char * 512)(), False
    with self.engine._domain():
      while True:
        check(lib.gptq_session_read_marked(self._handle, buffer, 512, byref(marked)))
        if marked.kind == native.GPTQ_MARK_NONE:
          return [Marked(kind, b"".join(parts).decode(), number, name, id) for kind, number, name, id, parts in found]
        kind = kinds[marked.kind]
        if not found or found[-1][0] != kind or (kind == "tool_call" and not more):
          found.append((kind, marked.call, marked.name.decode(), marked.id.decode(), []))
        found[-1][4].append(buffer.raw[:marked.size])
        more = bool(marked.more)

  def read_tokens(self) -> List[int]:
    count = c_size_t()
    out: List[int] = []
    buffer = (native.gptq_token * 256)()
    with self.engine._domain():
      while True:
        check(lib.gptq_session_read_tokens(self._handle, buffer, 256, byref(count)))
        if not count.value:
          return out
        out += buffer[:count.value]

  def read_logits(self) -> Tuple[int, memoryview[float]]:
    """With logits=True: the first position, and float32 rows [positions][n_vocab] as a buffer that numpy takes without a copy."""
    n_vocab, info = self.engine.model.info["n_vocab"], self._info()
    if info.logits_unread == 0:
      return 0, memoryview(b"").cast("f")
    buffer, first, rows = (c_float * (n_vocab * info.logits_unread))(), c_uint32(), c_uint32()
    with self.engine._domain():
      check(lib.gptq_session_read_logits(self._handle, buffer, len(buffer), byref(first), byref(rows)))
    return first.value, memoryview(buffer).cast("B").cast("f", [rows.value, n_vocab])

  def tokens(self) -> List[int]:
    """The whole sequence."""
    buffer, count = (native.gptq_token * self._info().n_tokens)(), c_size_t()
    with self.engine._domain():
      check(lib.gptq_session_tokens(self._handle, buffer, len(buffer), byref(count)))
    return list(buffer[:count.value])

  def truncate(self, n_tokens: int) -> None:
    with self.engine._domain():
      check(lib.gptq_session_truncate(self._handle, fitted(c_uint32, n_tokens, "n_tokens")))

  def fork(self) -> "Session":
    """A second session of the engine that stands where this one stands. It shares the KV cache."""
    out = c_void_p()
    with self.engine._domain():
      call(lambda error: lib.gptq_session_fork(self._handle, byref(out), error))
    return Session(self.engine, out)

  def save(self, *, full: bool = False) -> bytes:
    """What Engine.restore makes a session of that goes on where this one stands, also while it generates; with full with the KV cache."""
    kind = native.GPTQ_SAVE_FULL if full else native.GPTQ_SAVE_REPLAY

    def write(buffer: Any, cap: int, needed: Any) -> int:
      error = make(native.gptq_error)
      status = lib.gptq_session_save(self._handle, kind, buffer, cap, needed, byref(error))
      return status if status == native.GPTQ_E_BUFFER_TOO_SMALL else check(status, error)
    with self.engine._domain():
      return bytes(sized(write, c_char).raw)

  def save_to(self, file: Union[Path, BinaryIO], *, full: bool = False) -> None:
    """The same, in pieces, to a file or to what has write(bytes)."""
    if not hasattr(file, "write"):
      with open(file, "wb") as opened:
        self.save_to(opened, full=full)
      return
    kind, callbacks = native.GPTQ_SAVE_FULL if full else native.GPTQ_SAVE_REPLAY, Callbacks()

    def take(user: Any, bytes_at: int, size: int) -> int:
      rest = memoryview(string_at(bytes_at, size))
      while rest:  # a raw file may take less than all
        taken = file.write(rest)
        rest = rest[len(rest) if taken is None else taken:]
      return 0
    write = callbacks.wrap(native.gptq_write_fn, take)
    with self.engine._domain():
      callbacks.call(lambda error: lib.gptq_session_save_to(self._handle, kind, write, None, error))

  def set_adapter(self, adapter: "Optional[Adapter]", scale: float = 1.0) -> None:
    """Computes with the adapter from now on, also in the middle of a generation; None: without any."""
    with self.engine._domain():
      call(lambda error: lib.gptq_session_set_adapter(self._handle, adapter._handle if adapter else None, scale, error))

  def logprobs(self, first: int = 0, n: Optional[int] = None) -> List[TokenLogprob]:
    """Of the tokens at the positions from first on, with logprobs=True. `best` has as many as the engine's best_logprobs."""
    tokens, n_best = self.tokens(), self.engine.best_logprobs
    n = max(len(tokens) - first, 0) if n is None else n
    chosen = (c_float * fitted(c_uint32, n, "n"))()
    best = (native.gptq_token_logprob * (n * n_best))()
    with self.engine._domain():
      check(lib.gptq_session_logprobs(self._handle, fitted(c_uint32, first, "first"), n, chosen, best if n_best else None))
    return [TokenLogprob(tokens[first + at], chosen[at], [(one.token, one.logprob) for one in best[at * n_best:(at + 1) * n_best] if one.token >= 0])
            for at in range(n)]

  def score(self, texts: Sequence[str]) -> List[Score]:
    """How likely each text is behind what stands; needs a free place for a session. The session stays as it is."""
    strings = string_list(texts, "texts")
    sums, counts = (c_double * len(strings))(), (c_uint32 * len(strings))()
    with self.engine._domain():
      call(lambda error: lib.gptq_score(self._handle, strings, len(strings), sums, counts, error))
    return [Score(*both) for both in zip(sums, counts)]

  def embedding(self, *, normalize: bool = False) -> memoryview[float]:
    """The vector that a start with pooling="last" or "mean" made of the sequence, as a float32 buffer."""
    flags = native.GPTQ_EMBED_NORMALIZE if normalize else 0
    with self.engine._domain():
      vector = sized(lambda buffer, cap, needed: lib.gptq_session_embedding(self._handle, flags, buffer, cap, needed), c_float)
    return memoryview(vector).cast("B").cast("f")

  def _info(self) -> Any:
    info = make(native.gptq_session_info)
    with self.engine._lock:  # which a callback has already
      check(lib.gptq_session_info_get(self._handle, byref(info)))
    return info

  @property
  def info(self) -> SessionInfo:
    return session_info(self._info())

  def generate(self, prompt: str, on_text: Optional[Callable[[str], Optional[bool]]] = None, **params: Any) -> SessionInfo:
    """Continues the prompt to the end; on_text gets the text as it comes and ends it by returning False."""
    struct, info, callbacks, data = generate_params(**params), make(native.gptq_session_info), Callbacks(), prompt.encode()
    receive = callbacks.wrap(native.gptq_text_fn, on_text and (lambda user, text, size: on_text(text_of(text, size)) is False))
    with self.engine._domain():
      callbacks.call(lambda error: lib.gptq_generate(self._handle, data, len(data), byref(struct), receive, None, byref(info), error))
    return session_info(info)

  def stream(self, prompt: Optional[str] = None, **params: Any) -> Iterator[str]:
    """Pieces of text until the session ends. Leaving the loop early cancels.

    params: max_tokens, seed (None = random), stop (a text or several), constraint and banned (Model.json_schema, Model.banned, ...), bias
    ({token: added to its logit}), model_defaults, ignore_eos, keep_stop, continue_text, prefill_only, pooling ("last", "mean"), logits,
    logprobs, speculate, marked, background, dry_breakers, and the numbers of gptq_sampling: temperature, top_k, top_p, min_p, ..."""
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
      status = self._info().status
      check(status, message="the generation ended by an error")
    finally:
      if self._pointer is not None and self._info().state == native.GPTQ_SESSION_RUNNING:
        self.cancel()
        self.engine.step(1)  # which ends it; a poll would not


def session_info(info: Any) -> SessionInfo:
  return SessionInfo(info.state == native.GPTQ_SESSION_RUNNING, STOPS.get(info.stop_reason, str(info.stop_reason)), info.status, info.n_tokens,
                     info.n_generated, info.n_ctx, info.prefill_us, info.decode_us, info.n_pending, info.first_token_us, info.n_guessed,
                     info.n_guessed_right, info.n_dropped)
