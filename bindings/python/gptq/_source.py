# SPDX-License-Identifier: Apache-2.0
"""What models, adapters and saves are read from: a path, bytes, or a file object."""
from __future__ import annotations

import ctypes
import errno
import os
import threading
from ctypes import c_char_p, c_void_p, cast
from typing import Any, BinaryIO, Optional, Union

from . import _native as native
from ._library import Callbacks, make

Path = Union[str, bytes, "os.PathLike[str]"]


def encoded(path: Path) -> bytes:
  name = os.fspath(path)
  return name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")


class Source:
  """gptq_source over exactly one of path, data and file, and the memory and functions that it points to.

  offset and size name a part of it, as of a pak file; size 0: to the end. file needs seek and readinto or read; it is read during the call
  only, by one thread at a time. Its exceptions end the call and are raised from `callbacks`."""

  def __init__(self, callbacks: Callbacks, path: Optional[Path] = None, data: Any = None, file: Optional[BinaryIO] = None, offset: int = 0, size: int = 0):
    if (path is not None) + (data is not None) + (file is not None) != 1:
      raise TypeError("give exactly one of path, data and file")
    self.struct = make(native.gptq_source, offset=offset, size=size)
    if path is not None:
      self.name = encoded(path)
      self.struct.path, self.struct.path_size = cast(c_char_p(self.name), c_void_p), len(self.name)
    elif data is not None:
      view = memoryview(data).cast("B")
      self.bytes = data if isinstance(data, bytes) else view.obj if view.readonly and isinstance(view.obj, bytes) and len(view) == len(view.obj) else None
      if self.bytes is not None:
        at: Any = cast(c_char_p(self.bytes), c_void_p)
      elif view.readonly:
        self.bytes = view.tobytes()
        at = cast(c_char_p(self.bytes), c_void_p)
      else:
        self.array = (ctypes.c_char * len(view)).from_buffer(view)
        at = cast(self.array, c_void_p)
      self.struct.data, self.struct.data_size = at, len(view)
    else:
      self._read(callbacks, file)

  def _read(self, callbacks: Callbacks, file: Any) -> None:
    guard, kinds = threading.Lock(), {field[0]: field[1] for field in native.gptq_io._fields_}  # pylint: disable=protected-access

    def length(user: Any) -> int:
      with guard:
        return int(file.seek(0, os.SEEK_END))

    def read_at(user: Any, offset: int, to: int, size: int) -> int:
      view, done = memoryview((ctypes.c_char * size).from_address(to)).cast("B"), 0
      with guard:
        file.seek(offset)
        while done < size:
          part = file.read(size - done)
          if not part:
            break
          view[done:done + len(part)] = part
          done += len(part)
      return done
    self.io = make(native.gptq_io, size=callbacks.wrap(kinds["size"], length, -errno.EIO), read_at=callbacks.wrap(kinds["read_at"], read_at, -errno.EIO))
    self.struct.io = ctypes.POINTER(native.gptq_io)(self.io)
