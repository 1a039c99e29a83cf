# SPDX-License-Identifier: Apache-2.0
"""conformance.py CASES.json MODELS: makes the calls of the cases and compares what they give."""
import io
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
    if isinstance(params.get("constraint"), dict):
      params["constraint"] = self.model.constraint(**params["constraint"])
    if "banned" in params:
      params["banned"] = self.model.banned(*params["banned"])
    chat = {key: call[key] for key in ("template", "drop_oldest", "reserve_tokens", "keep_tokens", "variables", "tools") if key in call}
    messages = [{**json.loads(message.get("extra", "{}")), "role": message["role"], "content": message["content"]} for message in call.get("messages", ())]
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
      return {"text": self.model.render_chat(messages, **chat)}
    elif name == "append":
      self.session(call).append(call["input"], **flags)
    elif name == "append_tokens":
      self.session(call).append_tokens(call["input"])
    elif name == "chat":
      return {"n_tokens": self.session(call).set_chat(messages, **chat)}
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
      full = call.get("full", False)
      if "to" in call:
        stream = io.BytesIO()
        self.session(call).save_to(stream, full=full)
        self.saved = stream.getvalue()
      else:
        self.saved = self.session(call).save(full=full)
      return {"small": 0 < len(self.saved) < 4096}
    elif name == "restore":
      self.sessions[call["as"]] = self.engine.restore(io.BytesIO(self.saved) if "from" in call else self.saved)
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
      return self.more(name, call)
    return {}

  def adapter(self, call):
    path = self.path(call["adapter"]) + "-lora"
    if "from" not in call:
      return self.model.adapter(path)
    with open(path, "rb") as file:
      return self.model.adapter(file=file)

  def more(self, name, call):
    if name == "load_from":
      path = self.path(call["model"])
      with open(path, "rb") as file:
        if call["from"] == "data":
          return gptq.Model(data=file.read()).info
        return (gptq.Model(file=file) if call["from"] == "stream" else gptq.Model(path, offset=8)).info
    if name == "token":
      token = self.model.token(call["input"][0])
      return {"text": token.bytes.decode(), "special": token.special, "end": token.end}
    if name == "placements":
      return {"devices": len(self.model.placements), "n_layers": sum(one.n_layers for one in self.model.placements)}
    if name == "devices":
      return {"devices": self.model.runtime.devices()}
    if name == "estimate":
      return vars(gptq.estimate(self.path(call["model"]), engine=call.get("engine")))
    if name == "quantize_estimate":
      return vars(self.model.runtime.quantize_estimate(self.path(call["model"]), **call["params"]))
    if name == "memory":
      return vars(self.engine.memory)
    if name == "readable":
      readable = list(self.engine.readable())
      return {"sessions": sorted(number for number, session in self.sessions.items() if session in readable)}
    if name == "adapter_info":
      return self.adapter(call).info
    if name == "set_adapter":
      self.session(call).set_adapter(self.adapter(call) if "adapter" in call else None, call.get("scale", 1.0))
    elif name == "score":
      scores = self.session(call).score(call["input"])
      return {"logprobs": [one.logprob for one in scores], "n_tokens": [one.n_tokens for one in scores]}
    elif name == "logprobs":
      found = self.session(call).logprobs(call["first"], call["n"])
      best = [one for token in found for one in token.best]
      return {"tokens": [one.token for one in found], "logprobs": [one.logprob for one in found], "best": [token for token, _ in best],
              "best_logprobs": [logprob for _, logprob in best]}
    elif name == "embed":
      vectors = self.engine.embed(call["input"], pooling=call.get("pooling"), normalize=call.get("normalize", False)).tolist()
      return {"rows": len(vectors), "n_embd": len(vectors[0]) if vectors else 0, "vectors": [value for vector in vectors for value in vector[:4]]}
    elif name == "embedding":
      vector = self.session(call).embedding(normalize=call.get("normalize", False)).tolist()
      return {"n_embd": len(vector), "vectors": vector[:4]}
    else:
      raise ValueError(f"no call is named {name}")
    return {}

  def quantize(self, call):
    reports, done = [], []
    self.model.runtime.quantize(self.path(call["from"]), self.path(call["to"]), replace=True, progress=lambda phase, part: done.append((phase == "quantize", part)),
                                report=lambda matrix, error: reports.append(matrix), **call.get("params", {}))
    return {"reports": len(reports), "progress": bool(done) and done == sorted(done)}


def same(found, value):
  """Numbers that processors compute differ in their last digits."""
  if isinstance(value, list):
    return len(found) == len(value) and all(map(same, found, value))
  if isinstance(value, (int, float)) and not isinstance(value, bool):
    return abs(found - value) <= 1e-4 * max(1, abs(value))
  return found == value


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
    if not same(found[name], value):
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
