# SPDX-License-Identifier: Apache-2.0
"""How to generate: gptq_generate_params."""
from __future__ import annotations

from ctypes import POINTER, c_char_p, c_void_p, cast
from typing import TYPE_CHECKING, Any, Mapping, Optional, Sequence, Union

from . import _native as native
from ._library import make, string_list

if TYPE_CHECKING:
  from ._constraint import Constraint
SAMPLING = {field[0] for field in native.gptq_sampling._fields_  # pylint: disable=protected-access
            if field[0] not in ("struct_size", "flags", "seed", "bias", "n_bias", "dry_breakers")}
POOLINGS = {None: native.GPTQ_POOL_NONE, "last": native.GPTQ_POOL_LAST, "mean": native.GPTQ_POOL_MEAN}


def pooling_of(name: Optional[str]) -> int:
  if name not in POOLINGS:
    raise ValueError(f"pooling is {name!r}, not None, 'last' or 'mean'")
  return int(POOLINGS[name])


def generate_params(*, max_tokens: int = 0, seed: Optional[int] = 0, stop: Union[str, Sequence[str]] = (), bias: Optional[Mapping[int, float]] = None,
                    constraint: Optional["Constraint"] = None, banned: Optional["Constraint"] = None, model_defaults: bool = False,
                    ignore_eos: bool = False, keep_stop: bool = False, continue_text: bool = False, prefill_only: bool = False,
                    pooling: Optional[str] = None, logits: bool = False, logprobs: bool = False, speculate: bool = False, marked: bool = False,
                    background: bool = False, dry_breakers: Optional[str] = None, **sampler: float) -> Any:
  if unknown := sampler.keys() - SAMPLING:
    raise TypeError(f"unknown parameters: {', '.join(sorted(unknown))}")
  flags = (native.GPTQ_SAMPLE_RANDOM_SEED if seed is None else 0) | (native.GPTQ_SAMPLE_MODEL_DEFAULTS if model_defaults else 0)
  biases = (native.gptq_logit_bias * len(bias or {}))(*[native.gptq_logit_bias(*one) for one in (bias or {}).items()])
  sampling = make(native.gptq_sampling, flags=flags, seed=seed or 0, bias=biases, n_bias=len(biases), **sampler)
  breakers = None if dry_breakers is None else dry_breakers.encode()
  if breakers is not None:
    sampling.dry_breakers = native.gptq_string(cast(c_char_p(breakers), c_void_p), len(breakers))
  strings = string_list([stop] if isinstance(stop, str) else stop, "stop")
  params = make(native.gptq_generate_params, sampling=POINTER(native.gptq_sampling)(sampling), stop=strings, n_stop=len(strings),
                max_tokens=max_tokens, pooling=pooling_of(pooling), constraint=constraint and constraint._handle, banned=banned and banned._handle)
  params.keep = strings, constraint, banned, breakers
  for flag, wanted in ((native.GPTQ_GEN_IGNORE_EOS, ignore_eos), (native.GPTQ_GEN_KEEP_STOP, keep_stop),
                       (native.GPTQ_GEN_CONTINUE_TEXT, continue_text), (native.GPTQ_GEN_PREFILL_ONLY, prefill_only or pooling is not None),
                       (native.GPTQ_GEN_LOGITS, logits), (native.GPTQ_GEN_LOGPROBS, logprobs), (native.GPTQ_GEN_SPECULATE, speculate),
                       (native.GPTQ_GEN_MARKED, marked), (native.GPTQ_GEN_BACKGROUND, background)):
    params.flags |= flag if wanted else 0
  return params
