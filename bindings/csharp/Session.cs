// SPDX-License-Identifier: Apache-2.0
using System;
using System.Collections.Generic;
using System.IO;
using System.Text;
using System.Threading;
using Gptq.Native;

namespace Gptq {

public enum Mark {
  Answer = Constants.GPTQ_MARK_ANSWER,
  Thinking = Constants.GPTQ_MARK_THINKING,
  ToolCall = Constants.GPTQ_MARK_TOOL_CALL
}

/// <summary>A piece of what was generated with GenerateOptions.Marked. Text: of a tool call its arguments, a JSON object; Call: its number in this
/// generation; Id: what the model called it, or "".</summary>
public sealed class Marked {
  public Mark Kind { get; internal set; }
  public string Text { get; internal set; }
  public int Call { get; internal set; }
  public string Name { get; internal set; }
  public string Id { get; internal set; }
}

public enum StopReason {
  None = Constants.GPTQ_STOP_NONE,
  Eos = Constants.GPTQ_STOP_EOS,
  String = Constants.GPTQ_STOP_STRING,
  Length = Constants.GPTQ_STOP_LENGTH,
  Context = Constants.GPTQ_STOP_CONTEXT,
  Cancelled = Constants.GPTQ_STOP_CANCELLED,
  Constraint = Constants.GPTQ_STOP_CONSTRAINT,
  Error = Constants.GPTQ_STOP_ERROR,
  Prefilled = Constants.GPTQ_STOP_PREFILLED
}

public struct SessionInfo {
  public bool Running;
  public StopReason StopReason;
  public int Status, Tokens, Generated, Context, UnreadTokens, UnreadLogits;
  public TimeSpan Prefill, Decode;
  /// <summary>From the start.</summary>
  public TimeSpan FirstToken;
  /// <summary>Tokens not yet computed; computed ahead, and of them sampled; messages that the last SetChat left out.</summary>
  public int Pending, Guessed, GuessedRight, Dropped;

  internal SessionInfo(gptq_session_info info) {
    Running = info.state == Constants.GPTQ_SESSION_RUNNING;
    StopReason = (StopReason)info.stop_reason;
    Status = info.status;
    Tokens = (int)info.n_tokens;
    Generated = (int)info.n_generated;
    Context = (int)info.n_ctx;
    UnreadTokens = (int)info.tokens_unread;
    UnreadLogits = (int)info.logits_unread;
    Prefill = TimeSpan.FromTicks((long)info.prefill_us * 10);
    Decode = TimeSpan.FromTicks((long)info.decode_us * 10);
    FirstToken = TimeSpan.FromTicks((long)info.first_token_us * 10);
    Pending = (int)info.n_pending;
    Guessed = (int)info.n_guessed;
    GuessedRight = (int)info.n_guessed_right;
    Dropped = (int)info.n_dropped;
  }
}

/// <summary>How likely a text is: the sum of its tokens' log-probabilities, and how many they are.</summary>
public struct Score {
  public double LogProb;
  public int Tokens;
}

/// <summary>A token and the natural logarithm of its probability.</summary>
public struct Candidate {
  public int Token;
  public float LogProb;
}

/// <summary>A token of the sequence, its log-probability (NaN where that is not known), and the most likely ones there.</summary>
public sealed class TokenLogProb {
  public int Token { get; internal set; }
  public float LogProb { get; internal set; }
  public IReadOnlyList<Candidate> Best { get; internal set; }
}

/// <summary>One sequence of tokens.</summary>
public sealed unsafe class Session : GptqHandle {
  public Engine Engine { get; }

  internal Session(Engine engine, IntPtr pointer) : base(pointer) {
    Engine = engine;
    engine.Sessions[pointer] = new WeakReference<Session>(this);
  }

  protected override bool ReleaseHandle() {
    IntPtr session = handle;
    WeakReference<Session> known;
    Engine.Sessions.TryRemove(session, out known);
    Engine.Domain.Destroy(() => Api.gptq_session_destroy(session));
    return true;
  }

  /// <summary>Ends the work in progress, from any thread at any time, also when it is disposed.</summary>
  public void Cancel() {
    try {
      using (var session = Hold()) Api.gptq_session_cancel(session.Pointer);
    } catch (ObjectDisposedException) {
    }
  }

  public SessionInfo Info {
    get {
      using (var session = Hold())
      using (Engine.Domain.Enter()) return InfoOf(session.Pointer);
    }
  }
  static SessionInfo InfoOf(IntPtr session) {
    var info = gptq_session_info.New();
    GptqException.Check(Api.gptq_session_info_get(session, &info));
    return new SessionInfo(info);
  }

  public void Append(string text, TextFlags flags = TextFlags.None) {
    using (var session = Hold())
    using (var arena = new Arena())
    using (Engine.Domain.Enter()) {
      gptq_error* error = arena.Error();
      UIntPtr size;
      byte* at = arena.Text(text, out size);
      GptqException.Check(Api.gptq_session_append_text(session.Pointer, at, size, (uint)flags, null, error), error);
    }
  }

  /// <summary>What the output is likely to have parts of, for generations with Speculate; null: no prediction.</summary>
  public void SetPrediction(string text) {
    using (var session = Hold())
    using (var arena = new Arena())
    using (Engine.Domain.Enter()) {
      gptq_error* error = arena.Error();
      UIntPtr size = UIntPtr.Zero;
      byte* at = text == null ? null : arena.Text(text, out size);
      GptqException.Check(Api.gptq_session_set_prediction(session.Pointer, at, size, 0, error), error);
    }
  }

  public void Append(ReadOnlySpan<int> tokens) {
    using (var session = Hold())
    using (Engine.Domain.Enter())
    fixed (int* ids = tokens) {
      var error = gptq_error.New();
      GptqException.Check(Api.gptq_session_append_tokens(session.Pointer, ids, (UIntPtr)tokens.Length, &error), &error);
    }
  }

  /// <summary>Makes the sequence that of the conversation, keeping what it already begins with; returns its tokens.</summary>
  public int SetChat(IReadOnlyList<Message> messages, ChatOptions options = null) {
    using (var session = Hold())
    using (var arena = new Arena())
    using (Engine.Domain.Enter()) {
      gptq_error* error = arena.Error();
      UIntPtr count;
      GptqException.Check(Api.gptq_session_set_chat(session.Pointer, ChatOptions.Chat(arena, messages, options), &count, error), error);
      return (int)count;
    }
  }

  /// <summary>Begins generating; Engine.Step does the work.</summary>
  public void Start(GenerateOptions options = null) {
    options = options ?? new GenerateOptions();
    GptqHandle constraint = (GptqHandle)options.Constraint ?? this, banned = (GptqHandle)options.Banned ?? this;
    using (var session = Hold())
    using (var held = constraint.Hold())
    using (var heldBanned = banned.Hold())
    using (var arena = new Arena())
    using (Engine.Domain.Enter()) {
      gptq_error* error = arena.Error();
      gptq_generate_params* parameters = options.Parameters(arena, held.Pointer, heldBanned.Pointer);
      GptqException.Check(Api.gptq_session_start(session.Pointer, parameters, error), error);
    }
  }

  /// <summary>Moves unread text to the buffer, in whole UTF-8 code points; returns its bytes.</summary>
  public int Read(Span<byte> utf8) {
    using (var session = Hold())
    using (Engine.Domain.Enter())
    fixed (byte* to = utf8) {
      UIntPtr size;
      GptqException.Check(Api.gptq_session_read(session.Pointer, to, (UIntPtr)utf8.Length, &size));
      return (int)size;
    }
  }
  /// <summary>Text that came since the last read.</summary>
  public string Read() {
    var text = new StringBuilder();
    var buffer = new byte[512];
    for (int size; (size = Read(buffer)) > 0;) text.Append(Encoding.UTF8.GetString(buffer, 0, size));
    return text.ToString();
  }

  /// <summary>With GenerateOptions.Marked: what came since the last read, text of one kind in one piece. A tool call comes when it is complete.</summary>
  public IReadOnlyList<Marked> ReadMarked() {
    var pieces = new List<Marked>();
    var texts = new List<List<byte>>();
    var buffer = new byte[512];
    bool more = false;
    using (var session = Hold())
    using (Engine.Domain.Enter())
    fixed (byte* to = buffer) {
      for (;;) {
        var marked = gptq_marked.New();
        GptqException.Check(Api.gptq_session_read_marked(session.Pointer, to, (UIntPtr)buffer.Length, &marked));
        if (marked.kind == Constants.GPTQ_MARK_NONE) break;
        var kind = (Mark)marked.kind;
        if (pieces.Count == 0 || pieces[pieces.Count - 1].Kind != kind || (kind == Mark.ToolCall && !more)) {
          pieces.Add(new Marked { Kind = kind, Call = (int)marked.call, Name = Text(marked.name, 128), Id = Text(marked.id, 64) });
          texts.Add(new List<byte>());
        }
        for (int i = 0; i < (int)marked.size; i++) texts[texts.Count - 1].Add(buffer[i]);
        more = marked.more != 0;
      }
    }
    for (int i = 0; i < pieces.Count; i++) pieces[i].Text = Encoding.UTF8.GetString(texts[i].ToArray());
    return pieces;
  }
  static string Text(byte* text, int most) {
    int size = 0;
    while (size < most && text[size] != 0) size++;
    return Encoding.UTF8.GetString(text, size);
  }

  /// <summary>Moves unread tokens to the buffer; returns how many.</summary>
  public int ReadTokens(Span<int> tokens) {
    using (var session = Hold())
    using (Engine.Domain.Enter())
    fixed (int* to = tokens) {
      UIntPtr count;
      GptqException.Check(Api.gptq_session_read_tokens(session.Pointer, to, (UIntPtr)tokens.Length, &count));
      return (int)count;
    }
  }
  public int[] ReadTokens() {
    var tokens = new int[Info.UnreadTokens];
    Array.Resize(ref tokens, ReadTokens(tokens));
    return tokens;
  }

  /// <summary>Moves unread rows [position][vocabulary] to the buffer, with GenerateOptions.Logits; returns how many.</summary>
  public int ReadLogits(Span<float> logits, out int firstPosition) {
    using (var session = Hold())
    using (Engine.Domain.Enter())
    fixed (float* to = logits) {
      uint first, rows;
      GptqException.Check(Api.gptq_session_read_logits(session.Pointer, to, (UIntPtr)logits.Length, &first, &rows));
      firstPosition = (int)first;
      return (int)rows;
    }
  }

  /// <summary>The whole sequence.</summary>
  public int[] Tokens {
    get {
      using (var session = Hold())
      using (Engine.Domain.Enter()) {
        UIntPtr needed;
        Api.gptq_session_tokens(session.Pointer, null, UIntPtr.Zero, &needed);
        var tokens = new int[(int)needed];
        fixed (int* to = tokens) GptqException.Check(Api.gptq_session_tokens(session.Pointer, to, needed, &needed));
        return tokens;
      }
    }
  }

  /// <summary>Keeps the first so many tokens.</summary>
  public void Truncate(int tokens) {
    using (var session = Hold())
    using (Engine.Domain.Enter()) GptqException.Check(Api.gptq_session_truncate(session.Pointer, GptqException.Count(tokens, "tokens")));
  }

  /// <summary>A second session of the engine that stands where this one stands. It shares the KV cache.</summary>
  public Session Fork() {
    using (var session = Hold())
    using (Engine.Domain.Enter()) {
      var error = gptq_error.New();
      IntPtr fork;
      GptqException.Check(Api.gptq_session_fork(session.Pointer, &fork, &error), &error);
      return new Session(Engine, fork);
    }
  }

  /// <summary>What Engine.Restore makes a session of that goes on where this one stands, also while it generates; full: with the KV cache.</summary>
  public byte[] Save(bool full = false) {
    int kind = full ? Constants.GPTQ_SAVE_FULL : Constants.GPTQ_SAVE_REPLAY;
    using (var session = Hold())
    using (Engine.Domain.Enter()) {
      var error = gptq_error.New();
      UIntPtr needed;
      int status = Api.gptq_session_save(session.Pointer, kind, null, UIntPtr.Zero, &needed, &error);
      if (status != Constants.GPTQ_E_BUFFER_TOO_SMALL) GptqException.Check(status, &error);
      var bytes = new byte[(int)needed];
      fixed (byte* to = bytes)
        GptqException.Check(Api.gptq_session_save(session.Pointer, kind, to, needed, &needed, &error), &error);
      return bytes;
    }
  }

  /// <summary>Writes the same to a stream, in pieces, so that nothing holds the whole save.</summary>
  public void Save(Stream to, bool full = false) {
    int kind = full ? Constants.GPTQ_SAVE_FULL : Constants.GPTQ_SAVE_REPLAY;
    using (var session = Hold())
    using (var callbacks = new Callbacks { Stream = to })
    using (Engine.Domain.Enter()) {
      var error = gptq_error.New();
      int status = Api.gptq_session_save_to(session.Pointer, kind, Callbacks.WritePointer, callbacks.User, &error);
      callbacks.Rethrow();
      GptqException.Check(status, &error);
    }
  }

  /// <summary>Computes with the adapter from now on, its changes multiplied by scale, also in the middle of a generation; null: without any.</summary>
  public void SetAdapter(Adapter adapter, float scale = 1) {
    GptqHandle held = (GptqHandle)adapter ?? this;
    using (var session = Hold())
    using (var use = held.Hold())
    using (Engine.Domain.Enter()) {
      var error = gptq_error.New();
      IntPtr pointer = adapter == null ? IntPtr.Zero : use.Pointer;
      GptqException.Check(Api.gptq_session_set_adapter(session.Pointer, pointer, scale, &error), &error);
    }
  }

  /// <summary>With GenerateOptions.LogProbs: of the tokens at positions first to first + count - 1; as many of the best as
  /// EngineOptions.BestLogProbs.</summary>
  public TokenLogProb[] LogProbs(int first, int count) {
    uint at = GptqException.Count(first, "first"), n = GptqException.Count(count, "count");
    int most = Engine.BestLogProbs;
    int[] tokens = Tokens;
    if (n > tokens.Length) n = uint.MaxValue;  // C refuses it
    int room = Math.Min(count, tokens.Length);
    var chosen = new float[room + 1];
    var best = new gptq_token_logprob[room * most + 1];
    using (var session = Hold())
    using (Engine.Domain.Enter())
    fixed (float* to = chosen)
    fixed (gptq_token_logprob* candidates = best)
      GptqException.Check(Api.gptq_session_logprobs(session.Pointer, at, n, to, candidates));
    var all = new TokenLogProb[count];
    for (int i = 0; i < count; i++) {
      var list = new List<Candidate>();
      for (int j = i * most; j < (i + 1) * most; j++)
        if (best[j].token >= 0) list.Add(new Candidate { Token = best[j].token, LogProb = best[j].logprob });
      all[i] = new TokenLogProb { Token = tokens[first + i], LogProb = chosen[i], Best = list };
    }
    return all;
  }

  /// <summary>How likely each text is behind what stands. The session stays as it is; it needs a free place for another.</summary>
  public Score[] Score(IReadOnlyList<string> texts) {
    var sums = new double[texts.Count + 1];
    var counts = new uint[texts.Count + 1];
    using (var session = Hold())
    using (var arena = new Arena())
    using (Engine.Domain.Enter())
    fixed (double* to = sums)
    fixed (uint* n = counts) {
      gptq_error* error = arena.Error();
      GptqException.Check(Api.gptq_score(session.Pointer, arena.Strings(texts), (UIntPtr)texts.Count, to, n, error), error);
    }
    var scores = new Score[texts.Count];
    for (int i = 0; i < scores.Length; i++) scores[i] = new Score { LogProb = sums[i], Tokens = (int)counts[i] };
    return scores;
  }

  /// <summary>The vector that a start with GenerateOptions.Pooling made of the sequence; normalize: scaled to length 1.</summary>
  public float[] Embedding(bool normalize = false) {
    uint flags = normalize ? (uint)Constants.GPTQ_EMBED_NORMALIZE : 0;
    using (var session = Hold())
    using (Engine.Domain.Enter()) {
      UIntPtr needed;
      int status = Api.gptq_session_embedding(session.Pointer, flags, null, UIntPtr.Zero, &needed);
      if (status != Constants.GPTQ_E_BUFFER_TOO_SMALL) GptqException.Check(status);
      var vector = new float[(int)needed];
      fixed (float* to = vector) GptqException.Check(Api.gptq_session_embedding(session.Pointer, flags, to, needed, &needed));
      return vector;
    }
  }

  /// <summary>
  /// Continues the prompt to the end. onText gets the text as it comes, on this thread, and ends it by returning false; it may not call the
  /// engine. Its exception goes on above this call. Cancelling ends it with OperationCanceledException.
  /// </summary>
  public SessionInfo Generate(string prompt, GenerateOptions options = null, Func<string, bool> onText = null,
                              CancellationToken token = default(CancellationToken)) {
    token.ThrowIfCancellationRequested();
    options = options ?? new GenerateOptions();
    GptqHandle constraint = (GptqHandle)options.Constraint ?? this, banned = (GptqHandle)options.Banned ?? this;
    using (var session = Hold())
    using (var held = constraint.Hold())
    using (var heldBanned = banned.Hold())
    using (var arena = new Arena())
    using (var callbacks = new Callbacks { Text = text => !token.IsCancellationRequested && (onText == null || onText(text)) }) {
      gptq_error* error = arena.Error();
      gptq_generate_params* parameters = options.Parameters(arena, held.Pointer, heldBanned.Pointer);
      UIntPtr size;
      byte* at = arena.Text(prompt, out size);
      var info = gptq_session_info.New();
      int status;
      using (Engine.Domain.Enter())
      using (new Canceller(this, token))
        status = Api.gptq_generate(session.Pointer, at, size, parameters, Callbacks.TextPointer, callbacks.User, &info, error);
      callbacks.Rethrow();
      GptqException.Check(status, error);
      if (info.stop_reason == Constants.GPTQ_STOP_CANCELLED) token.ThrowIfCancellationRequested();
      return new SessionInfo(info);
    }
  }

  /// <summary>Continues the prompt (null: what was appended); enumerating the stream does the work. For foreach and await foreach.</summary>
  public TextStream Stream(string prompt, GenerateOptions options = null, CancellationToken token = default(CancellationToken)) {
    if (!string.IsNullOrEmpty(prompt)) Append(prompt, TextFlags.ParseSpecial | (Info.Tokens == 0 ? TextFlags.AddBos : TextFlags.None));
    Start(options);
    return new TextStream(this, token);
  }
}

/// <summary>Cancels a session's work when the token is cancelled, again and again: the work may not have begun yet.</summary>
sealed class Canceller : IDisposable {
  readonly object guard = new object();
  readonly Session session;
  readonly CancellationTokenRegistration registration;
  Timer timer;
  bool over;

  public Canceller(Session session, CancellationToken token) {
    this.session = session;
    if (token.CanBeCanceled) registration = token.Register(Begin);
  }
  void Begin() {
    lock (guard)
      if (!over) timer = new Timer(_ => Cancel(), null, 0, 1);
  }
  void Cancel() {
    lock (guard)
      if (!over) session.Cancel();
  }
  public void Dispose() {
    lock (guard) over = true;
    registration.Dispose();
    if (timer != null) timer.Dispose();
  }
}

}
