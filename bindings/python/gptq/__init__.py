# SPDX-License-Identifier: Apache-2.0
"""libgptq: runs GPTQ-quantized language models on the CPU.

    import gptq
    model = gptq.Model("model.gptq")
    for piece in model.generate("Once upon a time", max_tokens=64):
        print(piece, end="", flush=True)
"""
from ._engine import Cancel, Engine, Marked, Session, SessionInfo, StepInfo
from ._library import Error, NotFoundError, version
from ._model import Constraint, Model
from ._runtime import Runtime, quantize

__all__ = ["Cancel", "Constraint", "Engine", "Error", "Marked", "Model", "NotFoundError", "Runtime", "Session", "SessionInfo", "StepInfo", "quantize", "version"]
