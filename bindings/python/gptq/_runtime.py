# SPDX-License-Identifier: Apache-2.0
"""The runtime: threads, memory, and quantizing."""
from __future__ import annotations

import os
import threading
from ctypes import byref, c_char_p, c_void_p, cast
from typing import Any, Callable, Optional, Sequence, Union

from . import _native as native
from ._library import Callbacks, Handle, call, lib, make, text_of, token_ids

Path = Union[str, bytes, "os.PathLike[str]"]
# Gets "load", "sample" or "quantize" and how much of it is done, 0 to 1. Returning False cancels.
Progress = Callable[[str, float], Optional[bool]]
PHASES = {native.GPTQ_PHASE_LOAD: "load", native.GPTQ_PHASE_VERIFY: "verify", native.GPTQ_PHASE_SAMPLE: "sample",
          native.GPTQ_PHASE_QUANTIZE: "quantize"}


def encoded(path: Path) -> bytes:
  name = os.fspath(path)
  return name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")


def progress_callback(callbacks: Callbacks, progress: Optional[Progress]) -> Any:
  if progress is None:
    return native.gptq_progress_fn()
  return callbacks.wrap(native.gptq_progress_fn,
                        lambda user, phase, permille: progress(PHASES.get(phase, str(phase)), permille / 1000) is False)


def source_of(path: Path) -> Any:
  name = encoded(path)
  source = make(native.gptq_source, path=cast(c_char_p(name), c_void_p), path_size=len(name))
  source.keep = name
  return source


class Runtime(Handle):
  """threads: 0 = one for each physical core. host_bytes_max: refuse to hold more. log gets (level, text)."""

  def __init__(self, threads: int = 0, host_bytes_max: int = 0, log: Optional[Callable[[int, str], Any]] = None, log_level: int = 0):
    self._log = Callbacks().wrap(native.gptq_log_fn, log and (lambda user, level, text, size: log(level, text_of(text, size)) and None), None)
    desc = make(native.gptq_runtime_desc, threads=threads, host_bytes_max=host_bytes_max, log=self._log, log_level=log_level)
    out = c_void_p()
    call(lambda error: lib.gptq_runtime_create(byref(desc), byref(out), error))
    self.pointer = out

  def _release(self, pointer: Any) -> None:
    lib.gptq_runtime_release(pointer)

  @property
  def kernels(self) -> str:
    return str(lib.gptq_runtime_kernels(self.handle).decode())

  def quantize(self, source: Path, target: Path, *, bits: int = 0, group_size: int = 0, head_bits: int = 0, text: Optional[str] = None,
               tokens: Optional[Sequence[int]] = None, rows: int = 0, row_tokens: int = 0, replace: bool = False,
               progress: Union[Progress, bool, None] = None, report: Optional[Callable[[str, float], Any]] = None) -> None:
    """Makes a model with few bits of one with 16 or 32. Calibrated with text, tokens, or what the model writes itself.

    progress=True shows a tqdm bar; report gets (matrix, relative error) as each is done. Interrupted, the same call goes on."""
    callbacks, bar = Callbacks(), None
    if progress is True:
      from tqdm import tqdm  # type: ignore[import-untyped]  # pylint: disable=import-outside-toplevel
      bar = tqdm(total=1000, unit="permille", desc=os.path.basename(encoded(target).decode()))

      def show(phase: str, done: float) -> None:
        bar.set_postfix_str(phase)
        bar.update(round(done * 1000) - bar.n)
      progress = show
    where, from_file = encoded(target), source_of(source)
    ids = token_ids(tokens or ())
    words = text.encode() if text is not None else None
    params = make(
      native.gptq_quantize_params, flags=native.GPTQ_QUANTIZE_REPLACE if replace else 0, head_bits=head_bits, rows=rows, row_tokens=row_tokens,
      text=cast(c_char_p(words), c_void_p), text_size=len(words or b""), tokens=ids if tokens else None, n_tokens=len(ids),
      progress=progress_callback(callbacks, progress or None),
      report=callbacks.wrap(native.gptq_quantize_report_fn, report and (
        lambda user, one: report(text_of(one[0].name, one[0].name_size), one[0].error) and None), None))
    params.defaults.bits, params.defaults.group_size = bits, group_size
    try:
      callbacks.call(lambda error: lib.gptq_quantize(self.handle, byref(from_file), where, len(where), byref(params), error))
    finally:
      if bar is not None:
        bar.close()


_shared: Optional[Runtime] = None
_shared_guard = threading.Lock()


def shared_runtime() -> Runtime:
  """What models without a runtime of their own share."""
  global _shared  # pylint: disable=global-statement
  with _shared_guard:
    if _shared is None:
      _shared = Runtime()
    return _shared


def quantize(source: Path, target: Path, **options: Any) -> None:
  """As Runtime.quantize, on the shared runtime."""
  shared_runtime().quantize(source, target, **options)
