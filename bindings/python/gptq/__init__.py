# SPDX-License-Identifier: Apache-2.0
"""libgptq: runs GPTQ-quantized language models on the CPU.

    import gptq
    model = gptq.Model("model.gptq")
    for piece in model.generate("Once upon a time", max_tokens=64):
        print(piece, end="", flush=True)
"""
from ._chat import Messages
from ._constraint import Adapter, Constraint
from ._engine import Engine, MemoryInfo, StepInfo
from ._library import Error, NotFoundError, build_info, version
from ._model import Model, Placement, Token
from ._runtime import Device, MemoryEstimate, QuantizeEstimate, Runtime, estimate, quantize
from ._session import Cancel, Marked, Score, Session, SessionInfo, TokenLogprob

__all__ = ["Adapter", "Cancel", "Constraint", "Device", "Engine", "Error", "Marked", "MemoryEstimate", "MemoryInfo", "Messages", "Model", "NotFoundError",
           "Placement", "QuantizeEstimate", "Runtime", "Score", "Session", "SessionInfo", "StepInfo", "Token", "TokenLogprob", "build_info", "estimate",
           "quantize", "version"]
