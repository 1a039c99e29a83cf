# SPDX-License-Identifier: Apache-2.0
"""Models: weights, tokenizer, chat template."""
from __future__ import annotations

import json
from ctypes import byref, c_char, c_char_p, c_void_p, cast
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from . import _native as native
from ._engine import Engine, Session
from ._library import Callbacks, Handle, call, check, lib, make, sized, token_ids
from ._runtime import Path, Progress, Runtime, encoded, progress_callback, shared_runtime

Messages = Sequence[Mapping[str, str]]  # [{"role": "user", "content": "..."}]


class Chat:
  """gptq_chat over messages, and the memory it points to."""

  def __init__(self, messages: Messages, add_generation_prompt: bool, tools: Any, variables: Optional[Mapping[str, Any]]):
    self.keep: List[bytes] = []
    structs = [self._message(message) for message in messages]
    self.keep_structs = structs
    array = (type(native.gptq_chat().messages._type_()) * len(structs))(*map(_pointer, structs))
    self.struct = make(native.gptq_chat, flags=native.GPTQ_CHAT_ADD_GENERATION_PROMPT if add_generation_prompt else 0, messages=array,
                       n_messages=len(structs))
    if tools is not None:
      self._set(self.struct, "tools_json", json.dumps(tools))
    if variables:
      self._set(self.struct, "kwargs_json", json.dumps(variables))

  def _set(self, struct: Any, field: str, text: str) -> None:
    self.keep.append(text.encode())
    setattr(struct, field, cast(c_char_p(self.keep[-1]), c_void_p))
    setattr(struct, field + "_size", len(self.keep[-1]))

  def _message(self, message: Mapping[str, Any]) -> Any:
    struct = make(native.gptq_message)
    self._set(struct, "role", message["role"])
    self._set(struct, "text", message.get("content") or "")
    extra = {key: value for key, value in message.items() if key not in ("role", "content")}
    if extra:
      self._set(struct, "extra_json", json.dumps(extra))
    return struct


def _pointer(struct: Any) -> Any:
  return native.POINTER(native.gptq_message)(struct)


class Constraint(Handle):
  """What a generated text must be, for any number of generations at once."""

  def __init__(self, model: "Model", kind: int, source: str):
    data, out = source.encode(), c_void_p()
    call(lambda error: lib.gptq_constraint_compile(model.handle, kind, data, len(data), byref(out), error))
    self.pointer = out

  def _release(self, pointer: Any) -> None:
    lib.gptq_constraint_destroy(pointer)


def _kv_type(text: str) -> int:
  keys, colon, values = text.partition(":")
  kinds = {"f16": native.GPTQ_KV_F16, "f32": native.GPTQ_KV_F32, "i8": native.GPTQ_KV_I8, "i4": native.GPTQ_KV_I4}
  if keys not in kinds or (colon and values not in kinds):
    raise ValueError(f"kv is {text!r}, not f16, f32, i8, i4 or two of these like i8:i4")
  return kinds[keys] + ((kinds[values] + 1) * native.GPTQ_KV_VALUES_F16 if colon else 0)


class Model(Handle):
  """A .gptq file. Threads may share it."""

  def __init__(self, path: Path, *, runtime: Optional[Runtime] = None, progress: Optional[Progress] = None):
    self.runtime = runtime or shared_runtime()
    callbacks, name, out = Callbacks(), encoded(path), c_void_p()
    params = make(native.gptq_model_params, progress=progress_callback(callbacks, progress))
    callbacks.call(lambda error: lib.gptq_model_load(self.runtime.handle, name, len(name), byref(params), byref(out), error))
    self.pointer = out

  def _release(self, pointer: Any) -> None:
    lib.gptq_model_release(pointer)

  @property
  def info(self) -> Dict[str, int]:
    """n_vocab, n_layers, bits, group_size, ... as gptq_model_info has them."""
    info = make(native.gptq_model_info)
    check(lib.gptq_model_info_get(self.handle, byref(info)))
    return {name: getattr(info, name) for name, _ in info._fields_[2:]}  # pylint: disable=protected-access

  def meta(self, key: str) -> str:
    """Text of the file: "name", "license", "chat_template", ..."""
    name = key.encode()
    return sized(lambda buffer, cap, needed: lib.gptq_model_meta(self.handle, name, len(name), buffer, cap, needed), c_char).value.decode()

  def tokenize(self, text: str, *, add_bos: bool = False, parse_special: bool = False) -> List[int]:
    data = text.encode()
    flags = (native.GPTQ_TEXT_ADD_BOS if add_bos else 0) | (native.GPTQ_TEXT_PARSE_SPECIAL if parse_special else 0)
    return list(sized(lambda buffer, cap, needed: lib.gptq_tokenize(self.handle, data, len(data), flags, buffer, cap, needed),
                      native.gptq_token))

  def detokenize(self, tokens: Sequence[int], *, render_special: bool = False) -> str:
    ids = token_ids(tokens)
    flags = native.GPTQ_TEXT_RENDER_SPECIAL if render_special else 0
    return sized(lambda buffer, cap, needed: lib.gptq_detokenize(self.handle, ids, len(ids), flags, buffer, cap, needed),
                 c_char).raw.decode("utf-8", "replace")

  def render_chat(self, messages: Messages, *, add_generation_prompt: bool = True, tools: Any = None,
                  variables: Optional[Mapping[str, Any]] = None) -> str:
    """The model's chat template over the messages."""
    chat = Chat(messages, add_generation_prompt, tools, variables)

    def render(buffer: Any, cap: int, needed: Any) -> int:
      error = make(native.gptq_error)
      status = lib.gptq_chat_render(self.handle, byref(chat.struct), buffer, cap, needed, byref(error))
      return status if status == native.GPTQ_E_BUFFER_TOO_SMALL else check(status, error)
    return str(sized(render, c_char).raw.decode())

  def choice(self, *texts: str) -> "Constraint":
    """Makes a generated text one of some: generate(..., constraint=model.choice("yes", "no"))."""
    return Constraint(self, native.GPTQ_CONSTRAINT_CHOICE, json.dumps(texts, ensure_ascii=False))

  def regex(self, expression: str) -> "Constraint":
    """Makes it match the expression as a whole. An error's offset is the byte where the expression was refused."""
    return Constraint(self, native.GPTQ_CONSTRAINT_REGEX, expression)

  def engine(self, *, max_sessions: int = 1, ctx_tokens: int = 0, kv_bytes: int = 0, batch_tokens: int = 0, logits_rows: int = 0,
             exact: bool = False, kv: str = "f16") -> Engine:
    """kv: how keys and values are kept, "f16", "f32", "i8" or "i4", or "i8:i4", of keys and values apart."""
    params = make(native.gptq_engine_params, flags=native.GPTQ_ENGINE_EXACT if exact else 0, max_sessions=max_sessions, ctx_tokens=ctx_tokens,
                  kv_bytes=kv_bytes, batch_tokens=batch_tokens, logits_rows=logits_rows, kv_type=_kv_type(kv))
    out = c_void_p()
    call(lambda error: lib.gptq_engine_create(self.handle, byref(params), byref(out), error))
    return Engine(self, out, Chat)

  def session(self, **options: Any) -> Session:
    """A session with an engine of its own."""
    return self.engine(**options).session()

  def generate(self, prompt: str, **params: Any) -> Iterator[str]:
    """Pieces of text that continue the prompt. For params see Session.stream."""
    with self.session() as session:
      yield from session.stream(prompt, **params)

  def chat(self, messages: Messages, **params: Any) -> Iterator[str]:
    """Pieces of the answer to a conversation."""
    with self.session() as session:
      session.set_chat(messages)
      yield from session.stream(**params)
