# SPDX-License-Identifier: Apache-2.0
"""What a generated text must be, what it must not have, and adapters."""
from __future__ import annotations

import json
from ctypes import byref, c_void_p
from typing import TYPE_CHECKING, Any, BinaryIO, Dict, Optional

from . import _native as native
from ._library import Callbacks, Handle, call, check, lib, make
from ._source import Path, Source

if TYPE_CHECKING:
  from ._model import Model
KINDS = {"choice": native.GPTQ_CONSTRAINT_CHOICE, "regex": native.GPTQ_CONSTRAINT_REGEX, "json_schema": native.GPTQ_CONSTRAINT_JSON_SCHEMA,
         "json_compact": native.GPTQ_CONSTRAINT_JSON_COMPACT, "grammar": native.GPTQ_CONSTRAINT_GRAMMAR, "tags": native.GPTQ_CONSTRAINT_TAGS,
         "banned": native.GPTQ_CONSTRAINT_BANNED}


class Constraint(Handle):
  """What a generated text must be, for any number of generations at once; of kind "banned": phrases that it never has.

  source: a text, or for the kinds that are JSON what json.dumps takes."""

  def __init__(self, model: "Model", kind: str, source: Any):
    if kind not in KINDS:
      raise ValueError(f"kind is {kind!r}, not one of {', '.join(KINDS)}")
    text = source if isinstance(source, str) else json.dumps(source, ensure_ascii=False)
    self.kind, data, out = kind, text.encode(), c_void_p()
    call(lambda error: lib.gptq_constraint_compile(model._handle, KINDS[kind], data, len(data), byref(out), error))
    self._pointer = out

  def _release(self, pointer: Any) -> None:
    lib.gptq_constraint_destroy(pointer)


class Adapter(Handle):
  """A .gptq-lora file, for sessions of the model: Session.set_adapter."""

  def __init__(self, model: "Model", path: Optional[Path] = None, *, data: Any = None, file: Optional[BinaryIO] = None, offset: int = 0, size: int = 0):
    callbacks, out = Callbacks(), c_void_p()
    source = Source(callbacks, path, data, file, offset, size)
    callbacks.call(lambda error: lib.gptq_adapter_load(model._handle, byref(source.struct), byref(out), error))
    self._pointer = out

  def _release(self, pointer: Any) -> None:
    lib.gptq_adapter_release(pointer)

  @property
  def info(self) -> Dict[str, int]:
    """rank, n_matrices, host_bytes, fingerprint."""
    info = make(native.gptq_adapter_info)
    check(lib.gptq_adapter_info_get(self._handle, byref(info)))
    return {name: getattr(info, name) for name, _ in info._fields_ if name not in ("struct_size", "reserved")}  # pylint: disable=protected-access
