# SPDX-License-Identifier: Apache-2.0
"""Conversations as gptq_chat."""
from __future__ import annotations

import json
from ctypes import POINTER, c_char_p, c_void_p, cast
from typing import Any, List, Mapping, Optional, Sequence

from . import _native as native
from ._library import make

# [{"role": "user", "content": "..."}]; content may be a list of parts {"type": "text", "text": "..."}; other keys go to the template.
Messages = Sequence[Mapping[str, Any]]


def content_text(content: Any, where: str) -> str:
  """The text of a message; parts are joined."""
  if content is None or isinstance(content, str):
    return content or ""
  if isinstance(content, (list, tuple)):
    return "".join(_part(part, f"{where}[{at}]") for at, part in enumerate(content))
  raise TypeError(f"{where} is {type(content).__name__}, not a text or a list of text parts")


def _part(part: Any, where: str) -> str:
  if isinstance(part, str):
    return part
  if isinstance(part, Mapping) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
    return str(part["text"])
  kind = repr(part.get("type")) if isinstance(part, Mapping) else type(part).__name__
  raise TypeError(f"{where} is a part of kind {kind}; only text is taken")


def _json(value: Any) -> str:
  return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class Chat:
  """gptq_chat over messages, and the memory it points to."""

  def __init__(self, messages: Messages, add_generation_prompt: bool = True, tools: Any = None, variables: Optional[Mapping[str, Any]] = None,
               template: Optional[str] = None, drop_oldest: bool = False, reserve_tokens: int = 0, keep_tokens: int = 0):
    if isinstance(messages, (str, bytes, Mapping)):
      raise TypeError('messages is not a list of {"role": ..., "content": ...}')
    self.keep: List[Any] = []
    structs = [self._message(message, at) for at, message in enumerate(messages)]
    self.keep.append(structs)
    array = (POINTER(native.gptq_message) * len(structs))(*map(POINTER(native.gptq_message), structs))
    flags = (native.GPTQ_CHAT_ADD_GENERATION_PROMPT if add_generation_prompt else 0) | (native.GPTQ_CHAT_DROP_OLDEST if drop_oldest else 0)
    self.struct = make(native.gptq_chat, flags=flags, messages=array, n_messages=len(structs), reserve_tokens=reserve_tokens, keep_tokens=keep_tokens)
    if tools is not None:
      self._set(self.struct, "tools_json", _json(tools))
    if variables:
      self._set(self.struct, "kwargs_json", _json(variables))
    if template is not None:
      self._set(self.struct, "template_override", template)

  def _set(self, struct: Any, field: str, text: str) -> None:
    data = text.encode()
    self.keep.append(data)
    setattr(struct, field, cast(c_char_p(data), c_void_p))
    setattr(struct, field + "_size", len(data))

  def _message(self, message: Any, at: int) -> Any:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
      raise TypeError(f'messages[{at}] is not {{"role": ..., "content": ...}}')
    struct = make(native.gptq_message)
    self._set(struct, "role", message["role"])
    self._set(struct, "text", content_text(message.get("content"), f"messages[{at}][\"content\"]"))
    extra = {key: value for key, value in message.items() if key not in ("role", "content")}
    if extra:
      self._set(struct, "extra_json", _json(extra))
    return struct
