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
    engine = model.CreateEngine(new EngineOptions {
      Exact = Is(options, "exact"), MaxSessions = Int(options, "max_sessions"), ContextTokens = Int(options, "ctx_tokens"),
      LogitsRows = Int(options, "logits_rows")
    });
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
    return List(call, "messages").Cast<Found>().Select(one => new Message(Text(one, "role"), Text(one, "content"))).ToArray();
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
      Logits = Is(p, "logits"), Marked = Is(p, "marked"),
      Constraint = Text(p, "regex") != null ? model.Regex(Text(p, "regex"))
                   : Get(p, "choice") != null ? model.Choice(List(p, "choice").Cast<string>().ToArray()) : null
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
      case "render_chat": return new Found { { "text", model.RenderChat(Messages(call)) } };
      case "finish": {
        uint budget = call.ContainsKey("budget_us") ? (uint)Int(call, "budget_us") : uint.MaxValue;
        int steps = 1;
        while (engine.Step(budget).More) steps++;
        return new Found { { "many_steps", steps > 1 } };
      }
      case "restore": {
        bool exact;
        sessions[Int(call, "as")] = engine.Restore(saved, out exact);
        return new Found { { "exact", exact } };
      }
      case "close":
        SessionOf(call).Dispose();
        sessions.Remove(Int(call, "session"));
        return null;
      case "quantize": return Quantize(call);
    }
    return Run(SessionOf(call), name, call);
  }

  Found Run(Session session, string name, Found call) {
    switch (name) {
      case "append": session.Append(Text(call, "input"), Flags(call)); return null;
      case "append_tokens": session.Append(Ids(call, "input")); return null;
      case "chat": return new Found { { "n_tokens", (double)session.SetChat(Messages(call)) } };
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
        saved = session.Save();
        return new Found { { "small", saved.Length > 0 && saved.Length < 4096 } };
      case "info": {
        var info = session.Info;
        return new Found { { "running", info.Running }, { "stop_reason", Name(info.StopReason) }, { "n_tokens", (double)info.Tokens },
                           { "n_generated", (double)info.Generated } };
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

  Found Quantize(Found call) {
    var p = (Found)Get(call, "params");
    int reports = 0;
    var done = new List<double>();
    runtime.Quantize(PathOf(Text(call, "from")), PathOf(Text(call, "to")), new QuantizeOptions {
      Bits = Int(p, "bits"), GroupSize = Int(p, "group_size"), Rows = Int(p, "rows"), RowTokens = Int(p, "row_tokens"), Replace = true,
      Report = report => reports++,
      Progress = (phase, part) => {
        done.Add(part + (phase == Gptq.Native.Constants.GPTQ_PHASE_QUANTIZE ? 1 : 0));
        return true;
      }
    });
    bool rises = done.Count > 0 && done.SequenceEqual(done.OrderBy(part => part));
    return new Found { { "reports", (double)reports }, { "progress", rises } };
  }

  static bool Same(object a, object b) {
    var list = a as List<object>;
    return list != null && b is List<object> ? list.SequenceEqual((List<object>)b) : Equals(a, b);
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
