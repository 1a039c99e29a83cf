# SPDX-License-Identifier: Apache-2.0
"""Models: weights, tokenizer, chat template."""
from __future__ import annotations

from ctypes import byref, c_char, c_size_t, c_uint32, c_void_p, string_at
from dataclasses import dataclass
from typing import Any, BinaryIO, Dict, Iterator, List, Mapping, Optional, Sequence, Union

from . import _native as native
from ._chat import Chat, Messages
from ._constraint import Adapter, Constraint
from ._engine import Engine
from ._library import Callbacks, Handle, call, check, fitted, lib, make, sized, token_ids
from ._runtime import Progress, Runtime, engine_params, model_params, shared_runtime
from ._session import Session
from ._source import Path, Source


@dataclass(frozen=True)
class Token:
  """What a token stands for."""
  bytes: bytes
  special: bool
  byte: bool   # of one byte alone
  added: bool  # not of the tokenizer's own vocabulary
  end: bool    # ends a generation


@dataclass(frozen=True)
class Placement:
  """Layers that are side by side on one device."""
  device: str  # "cpu" or "cuda"
  ordinal: int
  first_layer: int
  n_layers: int
  bytes: int


class Model(Handle):
  """A .gptq file. Threads may share it.

  Of path, data (bytes, a buffer) and file (seek and read) exactly one; offset and size name a part of it. device: "cpu" or "cuda"."""

  def __init__(self, path: Optional[Path] = None, *, data: Any = None, file: Optional[BinaryIO] = None, offset: int = 0, size: int = 0,
               runtime: Optional[Runtime] = None, progress: Optional[Progress] = None, device: str = "cpu", device_ordinal: int = 0,
               device_layers: Optional[int] = None, device_bytes_max: int = 0):
    self.runtime = runtime or shared_runtime()
    callbacks, out = Callbacks(), c_void_p()
    source, params = Source(callbacks, path, data, file, offset, size), model_params(callbacks, progress, device, device_ordinal, device_layers, device_bytes_max)
    name, name_size = source.struct.path, source.struct.path_size
    if path is not None and not offset and not size:
      callbacks.call(lambda error: lib.gptq_model_load(self.runtime._handle, name, name_size, byref(params), byref(out), error))
    else:
      callbacks.call(lambda error: lib.gptq_model_load_from(self.runtime._handle, byref(source.struct), byref(params), byref(out), error))
    self._pointer = out

  def _release(self, pointer: Any) -> None:
    lib.gptq_model_release(pointer)

  @property
  def info(self) -> Dict[str, int]:
    """n_vocab, n_layers, bits, group_size, ... as gptq_model_info has them."""
    info = make(native.gptq_model_info)
    check(lib.gptq_model_info_get(self._handle, byref(info)))
    return {name: getattr(info, name) for name, _ in info._fields_[2:]}  # pylint: disable=protected-access

  def meta(self, key: str) -> str:
    """Text of the file: "name", "license", "chat_template", ..."""
    name = key.encode()
    return str(sized(lambda buffer, cap, needed: lib.gptq_model_meta(self._handle, name, len(name), buffer, cap, needed), c_char,
                     f"the model has no text for {key!r}").value.decode())

  def tokenize(self, text: str, *, add_bos: bool = False, parse_special: bool = False) -> List[int]:
    data = text.encode()
    flags = (native.GPTQ_TEXT_ADD_BOS if add_bos else 0) | (native.GPTQ_TEXT_PARSE_SPECIAL if parse_special else 0)
    return list(sized(lambda buffer, cap, needed: lib.gptq_tokenize(self._handle, data, len(data), flags, buffer, cap, needed),
                      native.gptq_token))

  def detokenize(self, tokens: Sequence[int], *, render_special: bool = False) -> str:
    ids = token_ids(tokens)
    flags = native.GPTQ_TEXT_RENDER_SPECIAL if render_special else 0
    return str(sized(lambda buffer, cap, needed: lib.gptq_detokenize(self._handle, ids, len(ids), flags, buffer, cap, needed),
                     c_char).raw.decode("utf-8", "replace"))

  def token(self, token: int) -> Token:
    """The bytes that a token stands for, and what it is."""
    at, size, attributes = c_void_p(), c_size_t(), c_uint32()
    check(lib.gptq_token_bytes(self._handle, fitted(native.gptq_token, token, "token"), byref(at), byref(size), byref(attributes)))
    return Token(string_at(at, size.value) if size.value else b"", *(bool(attributes.value & flag) for flag in (
      native.GPTQ_TOKEN_SPECIAL, native.GPTQ_TOKEN_BYTE, native.GPTQ_TOKEN_ADDED, native.GPTQ_TOKEN_END)))

  @property
  def placements(self) -> List[Placement]:
    """Which layers are where, in their order."""
    found: List[Placement] = []
    while True:
      one = make(native.gptq_placement)
      status = lib.gptq_model_placement(self._handle, len(found), byref(one))
      if status == native.GPTQ_E_NOT_FOUND:
        return found
      check(status)
      found.append(Placement("cpu" if one.kind == native.GPTQ_DEVICE_CPU else "cuda", one.ordinal, one.first_layer, one.n_layers, one.bytes))

  def render_chat(self, messages: Messages, *, add_generation_prompt: bool = True, tools: Any = None, variables: Optional[Mapping[str, Any]] = None,
                  template: Optional[str] = None, drop_oldest: bool = False, reserve_tokens: int = 0, keep_tokens: int = 0) -> str:
    """The model's chat template, or another, over the messages. The arguments are those of Session.set_chat; nothing is left out here."""
    chat = Chat(messages, add_generation_prompt, tools, variables, template, drop_oldest, reserve_tokens, keep_tokens)

    def render(buffer: Any, cap: int, needed: Any) -> int:
      error = make(native.gptq_error)
      status = lib.gptq_chat_render(self._handle, byref(chat.struct), buffer, cap, needed, byref(error))
      return status if status == native.GPTQ_E_BUFFER_TOO_SMALL else check(status, error)
    return str(sized(render, c_char).raw.decode())

  def constraint(self, kind: str, source: Any) -> Constraint:
    """kind: "choice", "regex", "json_schema", "json_compact", "grammar", "tags" or "banned"; gptq.h says what their sources are."""
    return Constraint(self, kind, source)

  def choice(self, *texts: str) -> Constraint:
    """Makes a generated text one of some: generate(..., constraint=model.choice("yes", "no"))."""
    return Constraint(self, "choice", texts)

  def regex(self, expression: str) -> Constraint:
    """Makes it match the expression as a whole. An error's offset is the byte where the expression was refused."""
    return Constraint(self, "regex", expression)

  def json_schema(self, schema: Any, *, compact: bool = False) -> Constraint:
    """Makes it JSON that the schema (a dict, or its text) allows; compact: each value in the shortest way to write it."""
    return Constraint(self, "json_compact" if compact else "json_schema", schema)

  def grammar(self, gbnf: str) -> Constraint:
    """Makes it a text of the grammar, as llama.cpp writes them."""
    return Constraint(self, "grammar", gbnf)

  def tags(self, tags: Union[str, Sequence[Dict[str, Any]]], *, triggers: Optional[Sequence[str]] = None, at_least_one: bool = False,
           stop_after_first: bool = False) -> Constraint:
    """Free text until a tag begins, for tool calls: tags=[{"begin": "<tool_call>", "json_schema": {...}, "end": "</tool_call>"}]."""
    if isinstance(tags, str):
      return Constraint(self, "tags", tags)
    source: Dict[str, Any] = {"tags": list(tags), "at_least_one": at_least_one, "stop_after_first": stop_after_first}
    return Constraint(self, "tags", source if triggers is None else {**source, "triggers": list(triggers)})

  def banned(self, *phrases: str) -> Constraint:
    """Phrases that the text never has, in large and small letters: generate(..., banned=model.banned("as an AI"))."""
    return Constraint(self, "banned", phrases)

  def adapter(self, path: Optional[Path] = None, *, data: Any = None, file: Optional[BinaryIO] = None, offset: int = 0, size: int = 0) -> Adapter:
    """A .gptq-lora file, for Session.set_adapter. data, file, offset, size: as for Model."""
    return Adapter(self, path, data=data, file=file, offset=offset, size=size)

  def engine(self, *, max_sessions: int = 1, ctx_tokens: int = 0, kv_bytes: int = 0, page_tokens: int = 0, batch_tokens: int = 0, logits_rows: int = 0,
             best_logprobs: int = 0, adapter_rank: int = 0, exact: bool = False, bf16: bool = False, kv: str = "f16") -> Engine:
    """best_logprobs: of each token so many are kept for logprobs=True. adapter_rank: room for adapters of this rank. exact, bf16: activations as
    float32 or bfloat16. kv: how keys and values are kept, "f16", "f32", "i8" or "i4", or "i8:i4", of keys and values apart."""
    params, out = engine_params(
      max_sessions=max_sessions, ctx_tokens=ctx_tokens, kv_bytes=kv_bytes, page_tokens=page_tokens, batch_tokens=batch_tokens, logits_rows=logits_rows,
      best_logprobs=best_logprobs, adapter_rank=adapter_rank, exact=exact, bf16=bf16, kv=kv), c_void_p()
    call(lambda error: lib.gptq_engine_create(self._handle, byref(params), byref(out), error))
    return Engine(self, out, params.best_logprobs)

  def session(self, **options: Any) -> Session:
    """A session with an engine of its own."""
    return self.engine(**options).session()

  def generate(self, prompt: str, **params: Any) -> Iterator[str]:
    """Pieces of text that continue the prompt. For params see Session.stream."""
    with self.session() as session:
      yield from session.stream(prompt, **params)

  def embed(self, texts: Sequence[str], **options: Any) -> memoryview[float]:
    """As Engine.embed, with an engine of its own."""
    with self.engine() as engine:
      return engine.embed(texts, **options)

  def chat(self, messages: Messages, **params: Any) -> Iterator[str]:
    """Pieces of the answer to a conversation."""
    with self.session() as session:
      session.set_chat(messages)
      yield from session.stream(**params)
