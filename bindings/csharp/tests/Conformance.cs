// SPDX-License-Identifier: Apache-2.0
// The calls of bindings/conformance.json, on the models of a folder.
using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Text;
using Gptq;
using Found = System.Collections.Generic.Dictionary<string, object>;

sealed class Case : IDisposable {
  readonly Runtime runtime;
  readonly string models;
  readonly Dictionary<int, Session> sessions = new Dictionary<int, Session>();
  Model model;
  Engine engine;
  byte[] saved;

  public Case(Runtime runtime, string models, string model, Found options) {
    this.runtime = runtime;
    this.models = models;
    Open(model, options);
  }
  void Open(string name, Found options) {
    Dispose();
    model = runtime.Load(PathOf(name));
    engine = model.CreateEngine(EngineOptions(options));
  }
  static EngineOptions EngineOptions(Found options) {
    return new EngineOptions {
      Exact = Is(options, "exact"), Bf16 = Is(options, "bf16"), MaxSessions = Int(options, "max_sessions"),
      ContextTokens = Int(options, "ctx_tokens"), LogitsRows = Int(options, "logits_rows"), BestLogProbs = Int(options, "best_logprobs"),
      AdapterRank = Int(options, "adapter_rank")
    };
  }
  public void Dispose() {
    foreach (Session session in sessions.Values) session.Dispose();
    sessions.Clear();
    if (engine != null) engine.Dispose();
    if (model != null) model.Dispose();
  }
  string PathOf(string name) { return Path.Combine(models, name + ".gptq"); }

  static object Get(Found from, string name) {
    object value;
    return from != null && from.TryGetValue(name, out value) ? value : null;
  }
  static double Number(Found from, string name) { return (double)(Get(from, name) ?? 0.0); }
  static int Int(Found from, string name) { return (int)Number(from, name); }
  static float Float(Found from, string name) { return (float)Number(from, name); }
  static bool Is(Found from, string name) { return true.Equals(Get(from, name)); }
  static string Text(Found from, string name) { return (string)Get(from, name); }
  static List<object> List(Found from, string name) { return (List<object>)Get(from, name) ?? new List<object>(); }
  static int[] Ids(Found from, string name) { return List(from, name).Select(id => (int)(double)id).ToArray(); }
  static object Ids(IEnumerable<int> ids) { return ids.Select(id => (object)(double)id).ToList(); }
  static string Name(StopReason reason) { return reason.ToString().ToLowerInvariant(); }
  static Message[] Messages(Found call) {
    return List(call, "messages").Cast<Found>().Select(one => new Message(Text(one, "role"), Text(one, "content"), Text(one, "extra"))).ToArray();
  }
  static ChatOptions ChatOptions(Found call) {
    return new ChatOptions {
      DropOldest = Is(call, "drop_oldest"), ReserveTokens = Int(call, "reserve_tokens"), KeepTokens = Int(call, "keep_tokens"),
      ToolsJson = Text(call, "tools"), VariablesJson = Text(call, "variables"), Template = Text(call, "template")
    };
  }
  static string[] Texts(Found from, string name) { return List(from, name).Cast<string>().ToArray(); }
  static object Numbers(IEnumerable<double> numbers) { return numbers.Cast<object>().ToList(); }
  static object Head(IEnumerable<float[]> vectors) { return Numbers(vectors.SelectMany(one => one.Take(4)).Select(value => (double)value)); }
  static Pooling PoolingOf(Found from) {
    return Text(from, "pooling") == "last" ? Pooling.Last : Text(from, "pooling") == "mean" ? Pooling.Mean : Pooling.None;
  }
  Constraint ConstraintOf(Found p) {
    var of = (Found)Get(p, "constraint");
    if (Text(p, "regex") != null) return model.Regex(Text(p, "regex"));
    if (Get(p, "choice") != null) return model.Choice(Texts(p, "choice"));
    switch (Text(of, "kind")) {
      case null: return null;
      case "grammar": return model.Grammar(Text(of, "source"));
      case "tags": return model.Tags(Text(of, "source"));
    }
    return model.JsonSchema(Text(of, "source"), Text(of, "kind") == "json_compact");
  }
  static TextFlags Flags(Found call) {
    return (Is(call, "add_bos") ? TextFlags.AddBos : 0) | (Is(call, "parse_special") ? TextFlags.ParseSpecial : 0) |
           (Is(call, "render_special") ? TextFlags.RenderSpecial : 0);
  }
  GenerateOptions Options(Found call) {
    var p = (Found)Get(call, "params");
    return new GenerateOptions {
      MaxTokens = Int(p, "max_tokens"), Temperature = Float(p, "temperature"), TopK = Int(p, "top_k"), TopP = Float(p, "top_p"),
      MinP = Float(p, "min_p"), RepeatPenalty = Float(p, "repeat_penalty"), Seed = (ulong)Number(p, "seed"),
      Stop = List(p, "stop").Cast<string>().ToArray(), IgnoreEos = Is(p, "ignore_eos"), PrefillOnly = Is(p, "prefill_only"),
      Logits = Is(p, "logits"), Marked = Is(p, "marked"), LogProbs = Is(p, "logprobs"), Pooling = PoolingOf(p),
      Constraint = ConstraintOf(p), Banned = Get(p, "banned") == null ? null : model.Banned(Texts(p, "banned"))
    };
  }
  Session SessionOf(Found call) {
    Session session;
    if (!sessions.TryGetValue(Int(call, "session"), out session)) session = sessions[Int(call, "session")] = engine.CreateSession();
    return session;
  }

  public Found Run(Found call) {
    string name = Text(call, "call");
    switch (name) {
      case "load": runtime.Load(PathOf(Text(call, "model"))); return null;
      case "use": Open(Text(call, "model"), null); return null;
      case "model_info": {
        var i = model.Info;
        return new Found { { "n_vocab", (double)i.n_vocab }, { "n_layers", (double)i.n_layers }, { "n_embd", (double)i.n_embd },
                           { "bits", (double)i.bits }, { "group_size", (double)i.group_size }, { "bos", (double)i.bos }, { "eos", (double)i.eos } };
      }
      case "meta": return new Found { { "text", model.Meta(Text(call, "key")) } };
      case "tokenize": return new Found { { "tokens", Ids(model.Tokenize(Text(call, "input"), Flags(call))) } };
      case "detokenize": return new Found { { "text", model.Detokenize(Ids(call, "input"), Flags(call)) } };
      case "render_chat": return new Found { { "text", model.RenderChat(Messages(call), ChatOptions(call)) } };
      case "finish": {
        uint budget = call.ContainsKey("budget_us") ? (uint)Int(call, "budget_us") : uint.MaxValue;
        int steps = 1;
        while (engine.Step(budget).More) steps++;
        return new Found { { "many_steps", steps > 1 } };
      }
      case "restore": {
        bool exact;
        sessions[Int(call, "as")] = call.ContainsKey("from") ? engine.Restore(new MemoryStream(saved), out exact) : engine.Restore(saved, out exact);
        return new Found { { "exact", exact } };
      }
      case "close":
        SessionOf(call).Dispose();
        sessions.Remove(Int(call, "session"));
        return null;
      case "quantize": return Quantize(call);
      case "load_from": return LoadFrom(call);
      case "token": {
        Token token = model.Token(Ids(call, "input")[0]);
        return new Found { { "text", Encoding.UTF8.GetString(token.Bytes) }, { "special", token.IsSpecial }, { "end", token.IsEnd } };
      }
      case "placements":
        return new Found { { "devices", (double)model.Placements.Count }, { "n_layers", (double)model.Placements.Sum(one => one.Layers) } };
      case "devices": return new Found { { "devices", (double)runtime.Devices.Count } };
      case "estimate": {
        var asked = (Found)Get(call, "engine");
        var e = runtime.Estimate(Source.FromFile(PathOf(Text(call, "model"))), asked == null ? null : EngineOptions(asked));
        return new Found { { "fits", e.Fits }, { "host_kv", (double)e.HostKv }, { "device_weights", (double)e.DeviceWeights } };
      }
      case "quantize_estimate":
        return new Found { { "n_modules", (double)runtime.EstimateQuantize(Source.FromFile(PathOf(Text(call, "model"))), QuantizeOptions(call)).Modules } };
      case "memory": {
        var info = engine.Memory;
        return new Found { { "page_tokens", (double)info.PageTokens }, { "kv_pages_total", (double)info.KvPagesTotal },
                           { "kv_pages_used", (double)info.KvPagesUsed } };
      }
      case "readable": {
        var readable = engine.Readable();
        return new Found { { "sessions", Ids(sessions.Where(one => readable.Contains(one.Value)).Select(one => one.Key).OrderBy(number => number)) } };
      }
      case "adapter_info":
        using (var adapter = AdapterOf(call))
          return new Found { { "rank", (double)adapter.Rank }, { "n_matrices", (double)adapter.Matrices } };
      case "embed": {
        var vectors = engine.Embed(Texts(call, "input"), PoolingOf(call), Is(call, "normalize"));
        return new Found { { "rows", (double)vectors.Length }, { "n_embd", vectors.Length == 0 ? 0.0 : vectors[0].Length }, { "vectors", Head(vectors) } };
      }
    }
    return Run(SessionOf(call), name, call);
  }

  Adapter AdapterOf(Found call) {
    string path = PathOf(Text(call, "adapter")) + "-lora";
    if (!call.ContainsKey("from")) return model.LoadAdapter(path);
    using (var file = File.OpenRead(path)) return model.LoadAdapter(Source.FromStream(file));
  }
  Found LoadFrom(Found call) {
    string path = PathOf(Text(call, "model")), from = Text(call, "from");
    using (var file = File.OpenRead(path))
    using (var loaded = runtime.Load(from == "part" ? Source.FromFile(path).Part(8)
                                     : from == "stream" ? Source.FromStream(file) : Source.FromBytes(File.ReadAllBytes(path))))
      return new Found { { "n_vocab", (double)loaded.Info.n_vocab } };
  }

  Found Run(Session session, string name, Found call) {
    switch (name) {
      case "append": session.Append(Text(call, "input"), Flags(call)); return null;
      case "append_tokens": session.Append(Ids(call, "input")); return null;
      case "chat": return new Found { { "n_tokens", (double)session.SetChat(Messages(call), ChatOptions(call)) } };
      case "start": session.Start(Options(call)); return null;
      case "read": return new Found { { "text", session.Read() } };
      case "read_marked":
        return new Found { { "text", string.Join("|", session.ReadMarked().Select(
            piece => (piece.Kind == Mark.ToolCall ? piece.Name : piece.Kind == Mark.Answer ? "answer" : "thinking") + " " + piece.Text)) } };
      case "read_tokens": return new Found { { "tokens", Ids(session.ReadTokens()) } };
      case "read_logits": return Logits(session);
      case "tokens": return new Found { { "tokens", Ids(session.Tokens) } };
      case "truncate": session.Truncate(Int(call, "n_tokens")); return null;
      case "cancel": session.Cancel(); return null;
      case "fork": sessions[Int(call, "as")] = session.Fork(); return null;
      case "save":
        if (call.ContainsKey("to")) {
          var stream = new MemoryStream();
          session.Save(stream, Is(call, "full"));
          saved = stream.ToArray();
        } else {
          saved = session.Save(Is(call, "full"));
        }
        return new Found { { "small", saved.Length > 0 && saved.Length < 4096 } };
      case "info": {
        var info = session.Info;
        return new Found { { "running", info.Running }, { "stop_reason", Name(info.StopReason) }, { "n_tokens", (double)info.Tokens },
                           { "n_generated", (double)info.Generated }, { "n_dropped", (double)info.Dropped }, { "n_ctx", (double)info.Context } };
      }
      case "set_adapter":
        if (Text(call, "adapter") == null) session.SetAdapter(null);
        else using (var adapter = AdapterOf(call)) session.SetAdapter(adapter, call.ContainsKey("scale") ? Float(call, "scale") : 1);
        return null;
      case "score": {
        var scores = session.Score(Texts(call, "input"));
        return new Found { { "logprobs", Numbers(scores.Select(one => one.LogProb)) }, { "n_tokens", Ids(scores.Select(one => one.Tokens)) } };
      }
      case "logprobs": {
        var all = session.LogProbs(Int(call, "first"), Int(call, "n"));
        return new Found { { "tokens", Ids(all.Select(one => one.Token)) }, { "logprobs", Numbers(all.Select(one => (double)one.LogProb)) },
                           { "best", Ids(all.SelectMany(one => one.Best).Select(one => one.Token)) },
                           { "best_logprobs", Numbers(all.SelectMany(one => one.Best).Select(one => (double)one.LogProb)) } };
      }
      case "embedding": {
        var vector = session.Embedding(Is(call, "normalize"));
        return new Found { { "n_embd", (double)vector.Length }, { "vectors", Head(new[] { vector }) } };
      }
      case "stream": return new Found { { "text", string.Concat(session.Stream(Text(call, "input"), Options(call))) } };
      case "generate": {
        var text = new StringBuilder();
        int pieces = 0;
        var info = session.Generate(Text(call, "input"), Options(call), piece => {
          text.Append(piece);
          return ++pieces != Int(call, "pieces");
        });
        return new Found { { "text", text.ToString() }, { "stop_reason", Name(info.StopReason) }, { "n_generated", (double)info.Generated } };
      }
    }
    throw new ArgumentException("no call is named " + name);
  }

  Found Logits(Session session) {
    int first, n_vocab = (int)model.Info.n_vocab;
    var logits = new float[session.Info.UnreadLogits * n_vocab];
    int rows = session.ReadLogits(logits, out first);
    var best = Enumerable.Range(0, rows).Select(row => {
      int at = 0;
      for (int i = 1; i < n_vocab; i++)
        if (logits[row * n_vocab + i] > logits[row * n_vocab + at]) at = i;
      return at;
    });
    return new Found { { "first", (double)first }, { "rows", (double)rows }, { "best", Ids(best) } };
  }

  static QuantizeOptions QuantizeOptions(Found call) {
    var p = (Found)Get(call, "params");
    return new QuantizeOptions {
      Bits = Int(p, "bits"), GroupSize = Int(p, "group_size"), Rows = Int(p, "rows"), RowTokens = Int(p, "row_tokens"), Replace = true,
      HeadBits = Int(p, "head_bits"), Damp = Number(p, "damp"), FirstTokenWeight = Number(p, "first_token_weight"),
      BitsPerWeight = Number(p, "bits_per_weight"), FileBytesMax = (ulong)Number(p, "file_bytes_max"), Asymmetric = Is(p, "asymmetric"),
      Aim = Is(p, "aim"), Reference = Is(p, "reference"), Tokens = Ids(p, "tokens")
    };
  }
  Found Quantize(Found call) {
    int reports = 0;
    var done = new List<double>();
    QuantizeOptions options = QuantizeOptions(call);
    options.Report = report => reports++;
    options.Progress = (phase, part) => {
      done.Add(part + (phase == Gptq.Native.Constants.GPTQ_PHASE_QUANTIZE ? 1 : 0));
      return true;
    };
    runtime.Quantize(PathOf(Text(call, "from")), PathOf(Text(call, "to")), options);
    bool rises = done.Count > 0 && done.SequenceEqual(done.OrderBy(part => part));
    return new Found { { "reports", (double)reports }, { "progress", rises } };
  }

  /// <summary>Numbers that processors compute differ in their last digits.</summary>
  static bool Same(object a, object b) {
    var list = a as List<object>;
    var other = b as List<object>;
    if (list != null && other != null) return list.Count == other.Count && list.Zip(other, Same).All(same => same);
    if (a is double && b is double) return Math.Abs((double)a - (double)b) <= 1e-4 * Math.Max(1, Math.Abs((double)b));
    return Equals(a, b);
  }
  static string Show(object value) { return value is List<object> ? string.Join(" ", (List<object>)value) : "" + value; }

  /// <summary>What is not as the call expects, or null.</summary>
  public string Difference(Found call) {
    string expected = Text(call, "error");
    Found found;
    try {
      found = Run(call);
    } catch (GptqException e) {
      return e.Name == expected && e.Message.Contains(Text(call, "message") ?? "") && e.Site.Contains(Text(call, "site") ?? "") ? null : "" + e;
    }
    if (expected != null) return "no " + expected;
    foreach (var one in (Found)Get(call, "expect") ?? new Found())
      if (!Same(Get(found, one.Key), one.Value)) return one.Key + " is " + Show(Get(found, one.Key)) + ", not " + Show(one.Value);
    return null;
  }

  public static bool All(string cases, string models) {
    bool good = true;
    using (var runtime = new Runtime())
      foreach (Found description in List((Found)Json.Parse(File.ReadAllText(cases)), "cases"))
        using (var test = new Case(runtime, models, Text(description, "model"), (Found)Get(description, "engine"))) {
          string name = Text(description, "name"), wrong = null;
          foreach (Found call in List(description, "calls"))
            if ((wrong = test.Difference(call)) != null) {
              wrong = Text(call, "call") + ": " + wrong;
              break;
            }
          Console.WriteLine(wrong == null ? "ok - " + name : "not ok - " + name + ": " + wrong);
          good &= wrong == null;
        }
    return good;
  }
}
