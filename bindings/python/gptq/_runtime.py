# SPDX-License-Identifier: Apache-2.0
"""The runtime: threads, memory, and quantizing."""
from __future__ import annotations

import itertools
import os
import threading
from ctypes import byref, c_char_p, c_void_p, cast
from dataclasses import dataclass
from typing import Any, BinaryIO, Callable, List, Mapping, Optional, Sequence, Union

from . import _native as native
from ._library import LOG, LOGS, Callbacks, Handle, NotFoundError, call, lib, make, text_of, token_ids
from ._source import Path, Source, encoded

# Gets "load", "sample" or "quantize" and how much of it is done, 0 to 1. Returning False cancels.
Progress = Callable[[str, float], Optional[bool]]
PHASES = {native.GPTQ_PHASE_LOAD: "load", native.GPTQ_PHASE_VERIFY: "verify", native.GPTQ_PHASE_SAMPLE: "sample",
          native.GPTQ_PHASE_QUANTIZE: "quantize", native.GPTQ_PHASE_MEASURE: "measure"}


def progress_callback(callbacks: Callbacks, progress: Optional[Progress]) -> Any:
  if progress is None:
    return native.gptq_progress_fn()
  return callbacks.wrap(native.gptq_progress_fn,
                        lambda user, phase, permille: progress(PHASES.get(phase, str(phase)), permille / 1000) is False)


def _kv_type(text: str) -> int:
  keys, colon, values = text.partition(":")
  kinds = {"f16": native.GPTQ_KV_F16, "f32": native.GPTQ_KV_F32, "i8": native.GPTQ_KV_I8, "i4": native.GPTQ_KV_I4}
  if keys not in kinds or (colon and values not in kinds):
    raise ValueError(f"kv is {text!r}, not f16, f32, i8, i4 or two of these like i8:i4")
  return int(kinds[keys] + ((kinds[values] + 1) * native.GPTQ_KV_VALUES_F16 if colon else 0))


def engine_params(*, max_sessions: int = 0, ctx_tokens: int = 0, kv_bytes: int = 0, page_tokens: int = 0, batch_tokens: int = 0, logits_rows: int = 0,
                  best_logprobs: int = 0, adapter_rank: int = 0, exact: bool = False, bf16: bool = False, kv: str = "f16") -> Any:
  flags = (native.GPTQ_ENGINE_EXACT if exact else 0) | (native.GPTQ_ENGINE_BF16 if bf16 else 0)
  return make(native.gptq_engine_params, flags=flags, max_sessions=max_sessions, ctx_tokens=ctx_tokens, kv_bytes=kv_bytes, page_tokens=page_tokens,
              batch_tokens=batch_tokens, logits_rows=logits_rows, best_logprobs=best_logprobs, adapter_rank=adapter_rank, kv_type=_kv_type(kv))


DEVICES = {"cpu": native.GPTQ_DEVICE_CPU, "cuda": native.GPTQ_DEVICE_CUDA}


def model_params(callbacks: Callbacks, progress: Optional[Progress] = None, device: str = "cpu", device_ordinal: int = 0,
                 device_layers: Optional[int] = None, device_bytes_max: int = 0) -> Any:
  """device_layers: None = all that fit."""
  if device not in DEVICES:
    raise ValueError(f"device is {device!r}, not 'cpu' or 'cuda'")
  layers = 0 if device_layers is None else device_layers or 0xFFFFFFFF
  return make(native.gptq_model_params, progress=progress_callback(callbacks, progress), device_kind=DEVICES[device] if device != "cpu" else 0,
              device_ordinal=device_ordinal, device_layers=layers, device_bytes_max=device_bytes_max)


ORDERS = {"group_aware": native.GPTQ_ORDER_GROUP_AWARE, "natural": native.GPTQ_ORDER_NATURAL, "act": native.GPTQ_ORDER_ACT}


def quantize_params(*, bits: int = 0, group_size: int = 0, order: str = "group_aware", asymmetric: bool = False, static_groups: bool = False,
                    damp: float = 0.0, head_bits: int = 0, head_group_size: int = 0, text: Optional[str] = None,
                    tokens: Optional[Sequence[int]] = None, rows: int = 0, row_tokens: int = 0, first_token_weight: float = 0.0,
                    file_bytes_max: int = 0, bits_per_weight: float = 0.0, aim: bool = False, reference: bool = False,
                    replace: bool = False) -> Any:
  if order not in ORDERS:
    raise ValueError(f"order is {order!r}, not one of {', '.join(ORDERS)}")
  ids, words = token_ids(tokens or ()), text.encode() if text is not None else None
  flags = (native.GPTQ_QUANTIZE_REPLACE if replace else 0) | (native.GPTQ_QUANTIZE_AIM if aim else 0)
  params = make(
    native.gptq_quantize_params, flags=flags | (native.GPTQ_QUANTIZE_REFERENCE if reference else 0), head_bits=head_bits,
    head_group_size=head_group_size, rows=rows, row_tokens=row_tokens, text=cast(c_char_p(words), c_void_p), text_size=len(words or b""),
    tokens=ids if tokens else None, n_tokens=len(ids), first_token_weight=first_token_weight, file_bytes_max=file_bytes_max,
    bits_per_weight=bits_per_weight,
    defaults=make(native.gptq_quantize_module, bits=bits, group_size=group_size, order=ORDERS[order], damp=damp,
                  flags=(native.GPTQ_QUANT_ASYMMETRIC if asymmetric else 0) | (native.GPTQ_QUANT_STATIC_GROUPS if static_groups else 0)))
  params.keep = words
  return params


@dataclass(frozen=True)
class MemoryEstimate:
  fits: bool  # within host_bytes_max, beside what is held already, and within every GPU's budget
  host_weights: int
  host_kv: int
  host_scratch: int
  host_load_peak: int
  device_weights: int
  device_kv: int
  device_scratch: int
  device_layers: int


@dataclass(frozen=True)
class QuantizeEstimate:
  n_modules: int
  file_bytes: int
  work_bytes: int
  host_bytes: int
  seconds: float


@dataclass(frozen=True)
class Device:
  ordinal: int
  name: str
  capability: int  # 90 for compute capability 9.0
  bytes_total: int
  bytes_free: int
  uuid: bytes


class Runtime(Handle):
  """threads: 0 = one for each physical core. host_bytes_max: refuse to hold more. log gets (level, text)."""

  def __init__(self, threads: int = 0, host_bytes_max: int = 0, log: Optional[Callable[[int, str], Any]] = None, log_level: int = 0):
    self._log = 0  # the key of its function in LOGS
    if log is not None:
      self._log = next(_keys)
      LOGS[self._log] = log
    desc = make(native.gptq_runtime_desc, threads=threads, host_bytes_max=host_bytes_max, log=LOG, log_user=self._log, log_level=log_level)
    self._function, out = LOG, c_void_p()
    call(lambda error: lib.gptq_runtime_create(byref(desc), byref(out), error))
    self._pointer = out

  def __del__(self) -> None:
    super().__del__()
    LOGS.pop(getattr(self, "_log", 0), None)  # models have this object: nothing of the library uses the log any more

  def _release(self, pointer: Any) -> None:
    lib.gptq_runtime_release(pointer)

  def load_backend(self, path: Optional[Path] = None) -> None:
    """Loads the CUDA backend: libgptq_cuda.so where the system's loader has it, or that file."""
    name = None if path is None else encoded(path)
    call(lambda error: lib.gptq_runtime_load_backend(self._handle, name, len(name or b""), error))

  def devices(self) -> List[Device]:
    """The GPUs; raises Error where no backend is loaded."""
    found: List[Device] = []
    while True:
      info = make(native.gptq_device_info)
      try:
        call(lambda error: lib.gptq_runtime_device(self._handle, len(found), byref(info), error))  # pylint: disable=cell-var-from-loop
      except NotFoundError:
        return found
      found.append(Device(info.ordinal, info.name.decode("utf-8", "replace"), info.capability, info.bytes_total, info.bytes_free, bytes(info.uuid)))

  def estimate(self, path: Optional[Path] = None, *, data: Any = None, file: Optional[BinaryIO] = None, offset: int = 0, size: int = 0,
               engine: Optional[Mapping[str, Any]] = None, **device: Any) -> MemoryEstimate:
    """What a model, and one engine with these options ({}: the defaults, None: no engine), would hold. device: as for Model."""
    callbacks, out = Callbacks(), make(native.gptq_memory_estimate)
    source, model = Source(callbacks, path, data, file, offset, size), model_params(callbacks, **device)
    params = None if engine is None else byref(engine_params(**engine))
    callbacks.call(lambda error: lib.gptq_model_estimate(self._handle, byref(source.struct), byref(model), params, byref(out), error))
    return MemoryEstimate(bool(out.fits), out.host_weights, out.host_kv, out.host_scratch, out.host_load_peak, out.device_weights, out.device_kv,
                          out.device_scratch, out.device_layers)

  @property
  def kernels(self) -> str:
    return str(lib.gptq_runtime_kernels(self._handle).decode())

  def quantize(self, source: Path, target: Path, *, progress: Union[Progress, bool, None] = None,
               report: Optional[Callable[[str, float], Any]] = None, **options: Any) -> None:
    """Makes a model with few bits of one with 16 or 32. Calibrated with text, tokens, or what the model writes itself.

    options: bits, group_size, order ("group_aware", "natural", "act"), asymmetric, static_groups, damp, head_bits, head_group_size; instead of
    bits a budget, file_bytes_max or bits_per_weight; text or tokens, rows, row_tokens, first_token_weight; aim, reference, replace.
    progress=True shows a tqdm bar; report gets (matrix, relative error) as each is done. Interrupted, the same call goes on."""
    callbacks, bar = Callbacks(), None
    if progress is True:
      from tqdm import tqdm  # type: ignore[import-untyped]  # pylint: disable=import-outside-toplevel
      bar = tqdm(total=1000, unit="permille", desc=os.path.basename(encoded(target).decode()))

      def show(phase: str, done: float) -> None:
        bar.set_postfix_str(phase)
        bar.update(round(done * 1000) - bar.n)
      progress = show

    def tell(_: Any, one: Any) -> None:
      assert report is not None
      report(text_of(one[0].name, one[0].name_size), one[0].error)
    where, from_file = encoded(target), Source(callbacks, source)
    params = quantize_params(**options)
    params.progress = progress_callback(callbacks, progress or None)
    params.report = callbacks.wrap(native.gptq_quantize_report_fn, report and tell, None)
    try:
      callbacks.call(lambda error: lib.gptq_quantize(self._handle, byref(from_file.struct), where, len(where), byref(params), error))
    finally:
      if bar is not None:
        bar.close()


  def quantize_estimate(self, source: Path, **options: Any) -> QuantizeEstimate:
    """What quantize with these options would take."""
    callbacks, out = Callbacks(), make(native.gptq_quantize_estimate)
    from_file = Source(callbacks, source)
    params = quantize_params(**options)
    call(lambda error: lib.gptq_quantize_estimate_get(self._handle, byref(from_file.struct), byref(params), byref(out), error))
    return QuantizeEstimate(out.n_modules, out.file_bytes, out.work_bytes, out.host_bytes, out.seconds)


_keys = itertools.count(1)
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


def estimate(path: Optional[Path] = None, *, runtime: Optional[Runtime] = None, **options: Any) -> MemoryEstimate:
  """As Runtime.estimate, on the shared runtime or another."""
  return (runtime or shared_runtime()).estimate(path, **options)
