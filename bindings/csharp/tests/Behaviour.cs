// SPDX-License-Identifier: Apache-2.0
// Cancel from other threads, disposing at odd times, callbacks that throw, and no leaks.
using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;
using Gptq;
using static Gptq.Native.Constants;

sealed class Behaviour {
  readonly string models;
  Behaviour(string models) { this.models = models; }
  string PathOf(string name) { return Path.Combine(models, name + ".gptq"); }

  static void Expect(bool holds, object what = null) {
    if (!holds) throw new Exception("expected otherwise: " + what);
  }
  static int StatusOf(Action action) {
    try {
      action();
    } catch (GptqException e) {
      return e.Status;
    }
    return GPTQ_OK;
  }
  static bool Throws<T>(Action action) where T : Exception {
    try {
      action();
    } catch (T) {
      return true;
    }
    return false;
  }

  Model TextModel() { return new Runtime(new RuntimeOptions { Threads = 1 }).Load(PathOf("text")); }
  Engine NewEngine(int sessions, int context = 256) {
    return TextModel().CreateEngine(new EngineOptions { MaxSessions = sessions, ContextTokens = context, Exact = true });
  }
  static GenerateOptions Tokens(int n) { return new GenerateOptions { MaxTokens = n, IgnoreEos = true }; }

  static long Resident() { return long.Parse(File.ReadAllText("/proc/self/statm").Split(' ')[1]) * 4096; }
  static void Collect() {
    for (int i = 0; i < 3; i++) {
      GC.Collect();
      GC.WaitForPendingFinalizers();
    }
  }
  // How much memory 1,000 cycles add: the least of four rounds, since a leak shows in each, but the heap's own size swings.
  static long Growth(Action cycle) {
    long least = long.MaxValue;
    for (int round = 0; round < 5; round++) {
      Collect();
      long before = Resident();
      for (int i = 0; i < 1000; i++) cycle();
      Collect();
      if (round > 0) least = Math.Min(least, Resident() - before);  // the first warms up
    }
    return least;
  }

  void Objects() {
    long growth = Growth(() => {
      using (var runtime = new Runtime(new RuntimeOptions { Threads = 1, Log = (level, text) => { } }))
      using (var model = runtime.Load(PathOf("text")))
      using (var engine = model.CreateEngine(new EngineOptions { MaxSessions = 2, ContextTokens = 64 }))
      using (var session = engine.CreateSession())
      using (var fork = session.Fork())
      using (var constraint = model.Choice("yes", "no"))
      using (var adapter = model.LoadAdapter(PathOf("text") + "-lora")) {
        session.SetAdapter(adapter);
        session.Save(new MemoryStream());
        session.Generate("a", Tokens(1));
        session.Dispose();
      }
    });
    Expect(growth < 1 << 20, growth);
  }

  void Collected() {
    int n = 0;
    long growth = Growth(() => {
      TextModel().CreateEngine(new EngineOptions { ContextTokens = 64 }).CreateSession();
      if (++n % 10 == 0) Collect();
    });
    Expect(growth < 8 << 20, growth);
  }

  void ExceptionsInCallbacks() {
    using (var engine = NewEngine(1)) {
      long growth = Growth(() => {
        using (var session = engine.CreateSession())
          Expect(Throws<KeyNotFoundException>(() => session.Generate("a", Tokens(4), text => { throw new KeyNotFoundException(); })));
      });
      Expect(growth < 1 << 20, growth);
    }
    var progress = new QuantizeOptions { Rows = 4, RowTokens = 64, Replace = true, Report = report => { throw new KeyNotFoundException(); } };
    using (var runtime = new Runtime()) Expect(Throws<KeyNotFoundException>(() => runtime.Quantize(PathOf("text"), PathOf("never"), progress)));
    Expect(Throws<KeyNotFoundException>(() => new Runtime().Load(PathOf("text"), (phase, done) => { throw new KeyNotFoundException(); })));
  }

  void CancelFromAnotherThread() {
    using (var session = NewEngine(1).CreateSession()) {
      for (int i = 0; i < 20; i++) {
        using (var cancel = new CancellationTokenSource()) {
          int n = 0;
          bool cancelled = Throws<OperationCanceledException>(() => session.Generate("the cat", Tokens(200), text => {
            if (n++ == 0) {
              new Thread(() => cancel.Cancel()).Start();
              cancel.Token.WaitHandle.WaitOne();
            }
            return true;
          }, cancel.Token));
          Expect(cancelled && session.Info.StopReason == StopReason.Cancelled, i);
          session.Truncate(0);
        }
      }
      Expect(session.Generate("the cat", Tokens(3)).Generated == 3);
      var over = new CancellationToken(true);
      Expect(Throws<OperationCanceledException>(() => session.Generate("a", Tokens(3), null, over)));
      Expect(Throws<OperationCanceledException>(() => session.Engine.Model.Runtime.Load(PathOf("text"), null, over)));
    }
  }

  void CancelWhileDisposing() {
    using (var engine = NewEngine(1))
      for (int i = 0; i < 100; i++) {
        var session = engine.CreateSession();
        var others = new Action[] { session.Cancel, session.Dispose, session.Cancel }.Select(action => {
          var thread = new Thread(() => action());
          thread.Start();
          return thread;
        }).ToList();
        try {
          session.Generate("a", Tokens(2));
        } catch (ObjectDisposedException) {
        }
        others.ForEach(thread => thread.Join());
        session.Dispose();
      }
  }

  void CallbacksMayNotCall() {
    using (var engine = NewEngine(2)) {
      Session session = engine.CreateSession(), other = engine.CreateSession();
      var info = session.Generate("the cat", Tokens(4), text => {
        Expect(StatusOf(() => engine.Step(0)) == GPTQ_E_INVALID_STATE);
        Expect(StatusOf(() => session.Generate("x", Tokens(1))) == GPTQ_E_INVALID_STATE);
        other.Dispose();
        return true;
      });
      Expect(info.Generated == 4, info.Generated);
      engine.CreateSession();  // its place is free again
      session.Generate("the cat", Tokens(4), text => {
        session.Dispose();
        return true;
      });
      Expect(Throws<ObjectDisposedException>(() => session.Read()));
      engine.CreateSession();
    }
  }

  void Threads() {
    using (var engine = NewEngine(4)) {
      Func<string> generate = () => {
        using (var session = engine.CreateSession()) return string.Concat(session.Stream("the cat", Tokens(20)));
      };
      string expected = generate();
      var all = Enumerable.Range(0, 4).Select(i => Task.Run(generate)).ToArray();
      Task.WaitAll(all);
      foreach (var one in all) Expect(one.Result == expected && expected != "", one.Result);
    }
  }

  void Outlives() {
    var model = TextModel();
    var engine = model.CreateEngine(new EngineOptions { ContextTokens = 64 });
    model.Runtime.Dispose();
    model.Dispose();
    var session = engine.CreateSession();
    session.Generate("a", Tokens(2));
    engine.Dispose();
    session.Dispose();
    Expect(Throws<ObjectDisposedException>(() => engine.Step()));
  }

  void StreamLeftEarly() {
    using (var session = NewEngine(1, 4096).CreateSession()) {
      foreach (string piece in session.Stream("the cat", Tokens(0))) break;
      Expect(session.Info.StopReason == StopReason.Cancelled, session.Info.StopReason);
      session.Truncate(0);
      using (var cancel = new CancellationTokenSource()) {
        var stream = session.Stream("and", Tokens(0), cancel.Token);
        Expect(stream.MoveNext());
        cancel.Cancel();
        Expect(Throws<OperationCanceledException>(() => stream.MoveNext()));
        Expect(session.Info.StopReason == StopReason.Cancelled, session.Info.StopReason);
      }
      session.Truncate(0);
      Expect(string.Concat(session.Stream("again", Tokens(4))) != "");
    }
  }

  void Asynchronous() {
    using (var engine = NewEngine(2)) {
      Func<Session, Task<string>> read = async session => {
        IAsyncEnumerator<string> pieces = session.Stream("the cat", Tokens(40)).GetAsyncEnumerator();  // C# 8: await foreach
        string text = "";
        while (await pieces.MoveNextAsync()) text += pieces.Current;
        await pieces.DisposeAsync();
        return text;
      };
      var both = new[] { read(engine.CreateSession()), read(engine.CreateSession()) };
      Task.WaitAll(both);
      Expect(both[0].Result == both[1].Result && both[0].Result.StartsWith("sqioazla"), both[0].Result);
    }
  }

  void ForksAndSaves() {
    using (var engine = NewEngine(3)) {
      var session = engine.CreateSession();
      session.Append("the cat", TextFlags.AddBos);
      session.Start(new GenerateOptions { MaxTokens = 24, Temperature = 0.9f, Seed = 5, IgnoreEos = true, FrequencyPenalty = 0.2f });
      engine.Step(1);
      foreach (bool full in new[] { false, true }) {
        bool exact;
        byte[] saved = session.Save(full);
        using (var fork = session.Fork())
        using (var restored = engine.Restore(saved, out exact)) {
          engine.Step();
          string text = fork.Read();
          Expect(exact && text != "" && restored.Read() == text, text);
        }
        saved[saved.Length / 2] ^= 1;
        Expect(StatusOf(() => engine.Restore(saved, out exact)) == GPTQ_E_CHECKSUM);
      }
    }
  }

  void Speculation() {
    using (var engine = NewEngine(1)) {
      Func<bool, string> generate = speculate => {
        using (var session = engine.CreateSession())
          return string.Concat(session.Stream("the cat", new GenerateOptions { MaxTokens = 60, IgnoreEos = true, Speculate = speculate }));
      };
      string plain = generate(false);
      Expect(generate(true) == plain);
      engine.SetDraft(engine.Model);
      Expect(generate(true) == plain);
      engine.SetDraft(null);
      using (var session = engine.CreateSession()) {
        session.SetPrediction(plain);
        Expect(string.Concat(session.Stream("the cat", new GenerateOptions { MaxTokens = 60, IgnoreEos = true, Speculate = true })) == plain);
        session.SetPrediction(null);
      }
    }
  }

  void Constraints() {
    using (var session = NewEngine(1).CreateSession()) {
      var model = session.Engine.Model;
      Func<Constraint, string> generate = constraint => {
        string text = "";
        var info = session.Generate("well ", new GenerateOptions { Constraint = constraint, MaxTokens = 30 }, piece => {
          text += piece;
          return true;
        });
        Expect(info.StopReason == StopReason.Constraint || info.StopReason == StopReason.Eos, info.StopReason);
        return text;
      };
      var choice = model.Choice("yes", "no", "may \"be\"");
      string answer = generate(choice);
      Expect(answer == "yes" || answer == "no" || answer == "may \"be\"", answer);
      answer = generate(model.Regex("[a-c]{3}z"));
      Expect(answer.Length == 4 && answer[3] == 'z', answer);
      try {
        model.Regex("ab(c");
        Expect(false);
      } catch (GptqException e) {
        Expect(e.Status == GPTQ_E_INVALID_ARGUMENT && e.Site != "" && e.Message != "", e);
      }
      choice.Dispose();
      Expect(Throws<ArgumentOutOfRangeException>(() => session.Start(new GenerateOptions { MaxTokens = -1 })));
      Expect(Throws<ArgumentOutOfRangeException>(() => session.Truncate(-1)));
      Expect(Throws<ObjectDisposedException>(() => session.Start(new GenerateOptions { Constraint = choice })));
    }
  }

  sealed class Broken : MemoryStream {
    public Broken() : base(new byte[4096]) { }
    public override int Read(Span<byte> to) { throw new KeyNotFoundException("from the stream"); }
    public override int Read(byte[] to, int offset, int count) { throw new KeyNotFoundException("from the stream"); }
    public override void Write(ReadOnlySpan<byte> bytes) { throw new KeyNotFoundException("from the stream"); }
    public override void Write(byte[] bytes, int offset, int count) { throw new KeyNotFoundException("from the stream"); }
  }

  void StreamsThatThrow() {
    using (var engine = NewEngine(2))
    using (var session = engine.CreateSession()) {
      session.Append("a");
      bool exact;
      Expect(Throws<KeyNotFoundException>(() => engine.Model.Runtime.Load(Source.FromStream(new Broken()))));
      Expect(Throws<KeyNotFoundException>(() => engine.Restore(new Broken(), out exact)));
      Expect(Throws<KeyNotFoundException>(() => session.Save(new Broken())));
      Expect(session.Generate(" b", Tokens(2)).Generated == 2);
    }
  }

  void Messages() {
    using (var model = TextModel())
      try {
        model.Detokenize(new[] { 384 });
        Expect(false);
      } catch (GptqException e) {
        Expect(e.Message == "token 384 is outside the vocabulary of 384" && e.Site.Contains(".cpp:"), e);
      }
  }

  void QuantizeCancelled() {
    using (var runtime = new Runtime()) {
      var options = new QuantizeOptions { Rows = 4, RowTokens = 64, Progress = (phase, done) => false };
      Expect(StatusOf(() => runtime.Quantize(PathOf("text"), PathOf("never"), options)) == GPTQ_E_CANCELLED);
      var over = new CancellationToken(true);
      Expect(Throws<OperationCanceledException>(() => runtime.Quantize(PathOf("text"), PathOf("never"), new QuantizeOptions { Rows = 4 }, over)));
      Expect(!File.Exists(PathOf("never")));
    }
  }

  void Log() {
    string log = "";
    using (var runtime = new Runtime(new RuntimeOptions { Threads = 1, Log = (level, text) => {
      log += level + text;
      throw new Exception("from the log");
    } }))
    using (var model = runtime.Load(PathOf("text"))) {
      Expect(StatusOf(() => model.Detokenize(new[] { 9999 })) < 0);
      Expect(log.Contains("9999"), log);
      log = "";
      runtime.Dispose();  // the model goes on, and logs
      Expect(StatusOf(() => model.Detokenize(new[] { 9999 })) < 0 && log.Contains("9999"), log);
    }
  }

  public static bool All(string models) {
    var of = new Behaviour(models);
    bool good = true;
    foreach (Action test in new Action[] { of.Objects, of.Collected, of.ExceptionsInCallbacks, of.CancelFromAnotherThread, of.CancelWhileDisposing,
                                           of.CallbacksMayNotCall, of.Threads, of.Outlives, of.StreamLeftEarly, of.Asynchronous, of.ForksAndSaves,
                                           of.Speculation,
                                           of.Constraints, of.StreamsThatThrow, of.Messages, of.QuantizeCancelled, of.Log })
      try {
        test();
        Console.WriteLine("ok - " + test.Method.Name);
      } catch (Exception e) {
        Console.WriteLine("not ok - " + test.Method.Name + ": " + e.ToString().Replace("\n", " | "));
        good = false;
      }
    return good;
  }
}
