# SPDX-License-Identifier: Apache-2.0
"""The shared library, errors, and what all handles have in common."""
from __future__ import annotations

import ctypes
import os
import re
import sys
import threading
from ctypes import byref, c_size_t, sizeof
from typing import Any, Callable, Dict, Optional

from . import _native as native


def _load() -> ctypes.CDLL:
  names = {"win32": ["gptq-0.dll", "gptq.dll"], "darwin": ["libgptq.0.dylib"]}.get(sys.platform, ["libgptq.so.0", "libgptq.so"])
  wheel = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), ".libgptq.mesonpy.libs")
  places = [os.environ["GPTQ_LIBRARY"]] if "GPTQ_LIBRARY" in os.environ else []
  places += [os.path.join(wheel, name) for name in sorted(os.listdir(wheel))] if os.path.isdir(wheel) else []
  places += names
  for place in places:
    try:
      library = ctypes.CDLL(place)
    except OSError:
      continue
    for name, (result, parameters) in native.FUNCTIONS.items():
      function = getattr(library, name)
      function.restype, function.argtypes = result, parameters
    return library
  raise ImportError(f"libgptq is not found; tried {', '.join(places)}; GPTQ_LIBRARY may name it")


lib = _load()


class Error(Exception):
  """What libgptq reports: a status with its name, a message, and the place in the library that failed."""

  def __init__(self, status: int, message: str = "", site: str = "", offset: int = 0, os_code: int = 0):
    self.status, self.site, self.offset, self.os_code = status, site, offset, os_code
    self.name: str = lib.gptq_status_name(status).decode()
    self.message = message or self.name
    super().__init__(f"{self.message} ({self.name})" if message else self.name)


class NotFoundError(Error, FileNotFoundError):
  """A file, or what was asked for in one, does not exist."""


INTEGERS = (ctypes.c_int8, ctypes.c_int16, ctypes.c_int32, ctypes.c_int64, ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint32, ctypes.c_uint64,
            ctypes.c_size_t)


def fitted(kind: Any, value: Any, name: str) -> Any:
  """The value; ctypes would take a number that does not fit modulo the size of its place."""
  if isinstance(value, int) and kind(value).value != value:
    raise OverflowError(f"{name} = {value} does not fit")
  return value


def make(struct: Any, **fields: Any) -> Any:
  for name, kind in struct._fields_:
    if name in fields and kind in INTEGERS:
      fitted(kind, fields[name], name)
  return struct(struct_size=sizeof(struct), **fields)


# The last GPTQ_LOG_ERROR of each thread: functions without a gptq_error send their message there before they return.
_told = threading.local()
# The functions that get a runtime's log, by its log_user.
LOGS: Dict[int, Callable[[int, str], Any]] = {}


def _log(user: Optional[int], level: int, text: int, size: int) -> None:
  try:
    message = ctypes.string_at(text, size).decode("utf-8", "replace")
    if level == native.GPTQ_LOG_ERROR:
      _told.text = message
    log = LOGS.get(user or 0)
    if log is not None:
      log(level, message)
  except Exception:  # pylint: disable=broad-except  # there is nobody above
    pass


LOG = native.gptq_log_fn(_log)


def check(status: int, error: Any = None, message: str = "") -> int:
  """Raises what a call reports: by its gptq_error, by the log, or else with that message."""
  if status >= 0:
    return status
  kind = NotFoundError if status == native.GPTQ_E_NOT_FOUND else Error
  if error is not None and error.status != 0:
    raise kind(status, error.message.decode("utf-8", "replace"), error.site.decode(), error.offset, error.os_code)
  told, _told.text = getattr(_told, "text", ""), ""
  if told and not message:
    text, site = re.fullmatch(r"(.*?)(?: \[([^\[\]]*)\])?", told, re.DOTALL).groups()  # type: ignore[union-attr]
    raise kind(status, text, site or "")
  raise kind(status, message)


def call(function: Callable[[Any], int]) -> int:
  """Calls function(err) and raises what it reports."""
  error = make(native.gptq_error)
  return check(function(byref(error)), error)


def sized(function: Callable[[Any, int, Any], int], element: Any, message: str = "") -> Any:
  """The output of function(buffer, capacity, needed), as an array. message: of a function that tells none."""
  needed = c_size_t()
  status = function(None, 0, byref(needed))
  if status != native.GPTQ_E_BUFFER_TOO_SMALL:
    check(status, message=message)
  buffer = (element * needed.value)()
  check(function(buffer, needed.value, byref(needed)))
  return buffer


def token_ids(tokens: Any) -> Any:
  return (native.gptq_token * len(tokens))(*[fitted(native.gptq_token, token, "a token") for token in tokens])


def string_list(texts: Any, name: str) -> Any:
  """An array of gptq_string, which keeps the memory that it points to."""
  if isinstance(texts, (str, bytes)):
    raise TypeError(f"{name} is one text, not a list of texts")
  words = [text.encode() for text in texts]
  strings: Any = (native.gptq_string * len(words))(*[native.gptq_string(ctypes.cast(ctypes.c_char_p(word), ctypes.c_void_p), len(word)) for word in words])
  strings.keep = words
  return strings


def text_of(pointer: int, size: int) -> str:
  return ctypes.string_at(pointer, size).decode()


class Callbacks:
  """Python functions that C calls. An exception in one stops the call and is raised when it has returned."""

  def __init__(self) -> None:
    self.raised: Optional[BaseException] = None

  def wrap(self, kind: Any, function: Optional[Callable[..., Any]], failed: Any = 1) -> Any:
    if function is None:
      return kind()

    def run(*arguments: Any) -> Any:
      if self.raised is None:
        try:
          return function(*arguments)
        except BaseException as error:  # pylint: disable=broad-except
          self.raised = error
      return failed

    return kind(run)

  def call(self, function: Callable[[Any], int]) -> int:
    error = make(native.gptq_error)
    status = function(byref(error))
    if self.raised is not None:
      raised, self.raised = self.raised, None
      try:
        raise raised
      finally:
        del raised  # else the exception and this frame hold each other
    return check(status, error)


class Handle:
  """A reference to an object of the library, dropped by close(), by `with`, or by the garbage collector."""
  _pointer: Any = None

  def _release(self, pointer: Any) -> None:
    raise NotImplementedError

  @property
  def _handle(self) -> Any:
    if self._pointer is None:
      raise ValueError(f"the {type(self).__name__} is closed")
    return self._pointer

  def close(self) -> None:
    pointer, self._pointer = self._pointer, None
    if pointer is not None:
      self._release(pointer)

  def __enter__(self) -> Any:
    return self

  def __exit__(self, *_: Any) -> None:
    self.close()

  def __del__(self) -> None:
    self.close()


def version() -> str:
  number = lib.gptq_version()
  return f"{number >> 16}.{number >> 8 & 255}.{number & 255}"


def build_info() -> str:
  """One line: version, compiler, kernel levels compiled in."""
  return str(lib.gptq_build_info().decode())
