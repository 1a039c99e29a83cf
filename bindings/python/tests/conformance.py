# SPDX-License-Identifier: Apache-2.0
"""conformance.py CASES.json MODELS: makes the calls of the cases and compares what they give."""
import json
import os
import sys

import gptq


class Case:
  def __init__(self, case, models):
    self.models, self.saved = models, b""
    self.open(case["model"], case.get("engine", {}))

  def path(self, name):
    return os.path.join(self.models, name + ".gptq")

  def open(self, name, options):
    self.model = gptq.Model(self.path(name))
    self.engine = self.model.engine(**options)
    self.sessions = {}

  def session(self, call):
    number = call.get("session", 0)
    if number not in self.sessions:
      self.sessions[number] = self.engine.session()
    return self.sessions[number]

  def run(self, call):
    """What a call gives, by the names that the cases give it."""
    name, flags = call["call"], {key: call[key] for key in ("add_bos", "parse_special", "render_special") if key in call}
    params = dict(call.get("params", {}))
    if "choice" in params:
      params["constraint"] = self.model.choice(*params.pop("choice"))
    if "regex" in params:
      params["constraint"] = self.model.regex(params.pop("regex"))
    if name == "load":
      gptq.Model(self.path(call["model"]))
    elif name == "use":
      self.open(call["model"], {})
    elif name == "model_info":
      return self.model.info
    elif name == "meta":
      return {"text": self.model.meta(call["key"])}
    elif name == "tokenize":
      return {"tokens": self.model.tokenize(call["input"], **flags)}
    elif name == "detokenize":
      return {"text": self.model.detokenize(call["input"], **flags)}
    elif name == "render_chat":
      return {"text": self.model.render_chat(call["messages"])}
    elif name == "append":
      self.session(call).append(call["input"], **flags)
    elif name == "append_tokens":
      self.session(call).append_tokens(call["input"])
    elif name == "chat":
      return {"n_tokens": self.session(call).set_chat(call["messages"])}
    elif name == "start":
      self.session(call).start(**params)
    elif name == "finish":
      steps = 1
      while self.engine.step(call.get("budget_us", 0xFFFFFFFF)).more:
        steps += 1
      return {"many_steps": steps > 1}
    elif name == "read":
      return {"text": self.session(call).read()}
    elif name == "read_marked":
      return {"text": "|".join(f"{piece.name or piece.kind} {piece.text}" for piece in self.session(call).read_marked())}
    elif name == "read_tokens":
      return {"tokens": self.session(call).read_tokens()}
    elif name == "read_logits":
      first, rows = self.session(call).read_logits()
      return {"first": first, "rows": rows.shape[0], "best": [row.index(max(row)) for row in rows.tolist()]}
    elif name == "tokens":
      return {"tokens": self.session(call).tokens()}
    elif name == "truncate":
      self.session(call).truncate(call["n_tokens"])
    elif name == "cancel":
      self.session(call).cancel()
    elif name == "fork":
      self.sessions[call["as"]] = self.session(call).fork()
    elif name == "save":
      self.saved = self.session(call).save()
      return {"small": 0 < len(self.saved) < 4096}
    elif name == "restore":
      self.sessions[call["as"]] = self.engine.restore(self.saved)
      return {"exact": self.sessions[call["as"]].exact}
    elif name == "close":
      self.sessions.pop(call["session"]).close()
    elif name == "info":
      return vars(self.session(call).info)
    elif name == "stream":
      return {"text": "".join(self.session(call).stream(call["input"], **params))}
    elif name == "generate":
      pieces = []

      def receive(piece):
        pieces.append(piece)
        return len(pieces) != call.get("pieces")
      info = self.session(call).generate(call["input"], receive, **params)
      return {"text": "".join(pieces), "stop_reason": info.stop_reason, "n_generated": info.n_generated}
    elif name == "quantize":
      return self.quantize(call)
    else:
      raise ValueError(f"no call is named {name}")
    return {}

  def quantize(self, call):
    reports, done = [], []
    self.model.runtime.quantize(self.path(call["from"]), self.path(call["to"]), replace=True, progress=lambda phase, part: done.append((phase == "quantize", part)),
                                report=lambda matrix, error: reports.append(matrix), **call.get("params", {}))
    return {"reports": len(reports), "progress": bool(done) and done == sorted(done)}


def difference(case, call):
  """What is not as the case says, or nothing."""
  try:
    found = case.run(call)
  except gptq.Error as error:
    if error.name != call.get("error") or call.get("message", "") not in error.message or call.get("site", "") not in error.site:
      return f"{error!r} at {error.site}"
    return None
  if "error" in call:
    return f"no {call['error']}"
  for name, value in call.get("expect", {}).items():
    if found[name] != value:
      return f"{name} is {found[name]!r}, not {value!r}"
  return None


def main(path, models):
  failed = 0
  with open(path, encoding="utf-8") as file:
    cases = json.load(file)["cases"]
  for description in cases:
    case, wrong = Case(description, models), None
    for call in description["calls"]:
      if wrong := difference(case, call):
        break
    failed += wrong is not None
    print(f"not ok - {description['name']}: {call['call']}: {wrong}" if wrong else f"ok - {description['name']}")
  return failed


if __name__ == "__main__":
  sys.exit(main(*sys.argv[1:]) != 0)
