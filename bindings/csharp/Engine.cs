// SPDX-License-Identifier: Apache-2.0
using System;
using System.Collections.Concurrent;
using System.Collections.Generic;
using System.IO;
using System.Threading;
using Gptq.Native;

namespace Gptq {

/// <summary>
/// Who may be inside an engine: one thread at a time, and not from within a callback. Sessions that are disposed meanwhile, by a callback, another
/// thread or the garbage collector, are destroyed when it is free.
/// </summary>
sealed class Domain {
  readonly object gate = new object();
  readonly ConcurrentQueue<Action> dead = new ConcurrentQueue<Action>();

  internal struct Inside : IDisposable {
    readonly Domain domain;
    internal Inside(Domain domain) { this.domain = domain; }
    public void Dispose() {
      Monitor.Exit(domain.gate);
      domain.Bury();
    }
  }

  internal Inside Enter() {
    if (Monitor.IsEntered(gate)) throw new GptqException(Constants.GPTQ_E_INVALID_STATE, "the engine is busy: a callback may not call it");
    Monitor.Enter(gate);
    return new Inside(this);
  }
  internal void Destroy(Action destroy) {
    dead.Enqueue(destroy);
    Bury();
  }
  /// <summary>Destroys what waits for it, unless somebody is inside, who will do it then.</summary>
  void Bury() {
    while (!dead.IsEmpty && !Monitor.IsEntered(gate) && Monitor.TryEnter(gate)) {
      try {
        Action destroy;
        while (dead.TryDequeue(out destroy)) destroy();
      } finally {
        Monitor.Exit(gate);
      }
    }
  }
}

/// <summary>What a step did. NextQuantum: the smallest budget, in microseconds, that lets the next step make progress.</summary>
public struct Step {
  public bool More;
  public int SessionsActive, SessionsReadable, TokensPrefilled, TokensGenerated;
  public uint UsedMicroseconds, NextQuantumMicroseconds;
}

/// <summary>What an engine and its runtime hold.</summary>
public struct MemoryInfo {
  public int PageTokens;
  public ulong KvPagesTotal, KvPagesUsed, HostBytes, HostPeak, DeviceBytes, DevicePeak;
}

/// <summary>The KV memory and the scheduler of some sessions.</summary>
public sealed unsafe class Engine : GptqHandle {
  internal readonly Domain Domain = new Domain();
  internal readonly ConcurrentDictionary<IntPtr, WeakReference<Session>> Sessions = new ConcurrentDictionary<IntPtr, WeakReference<Session>>();
  internal readonly int BestLogProbs;
  public Model Model { get; }

  internal Engine(Model model, IntPtr pointer, int bestLogProbs) : base(pointer) {
    Model = model;
    BestLogProbs = bestLogProbs;
  }

  protected override bool ReleaseHandle() {
    IntPtr engine = handle;
    Domain.Destroy(() => Api.gptq_engine_destroy(engine));  // sessions hold references
    return true;
  }

  /// <summary>Computes for about that long on all started sessions together; without a budget until nothing is left.</summary>
  public Step Step(uint budgetMicroseconds = Constants.GPTQ_BUDGET_UNLIMITED) {
    using (var engine = Hold())
    using (Domain.Enter()) {
      var info = gptq_step_info.New();
      int status = GptqException.Check(Api.gptq_engine_step(engine.Pointer, budgetMicroseconds, &info));
      return new Step {
        More = status == Constants.GPTQ_MORE,
        SessionsActive = (int)info.sessions_active,
        SessionsReadable = (int)info.sessions_readable,
        TokensPrefilled = (int)info.tokens_prefilled,
        TokensGenerated = (int)info.tokens_generated,
        UsedMicroseconds = info.used_us,
        NextQuantumMicroseconds = info.next_quantum_us
      };
    }
  }

  /// <summary>A smaller model of the same runtime with the same tokens guesses for generations with Speculate from now on; null: none does.</summary>
  public void SetDraft(Model model) {
    using (var engine = Hold())
    using (Domain.Enter()) {
      var error = gptq_error.New();
      if (model == null) {
        GptqException.Check(Api.gptq_engine_set_draft(engine.Pointer, IntPtr.Zero, null, &error), &error);
        return;
      }
      using (var draft = model.Hold()) GptqException.Check(Api.gptq_engine_set_draft(engine.Pointer, draft.Pointer, null, &error), &error);
    }
  }

  /// <summary>Fails when MaxSessions exist.</summary>
  public Session CreateSession() {
    using (var engine = Hold())
    using (Domain.Enter()) {
      var error = gptq_error.New();
      IntPtr session;
      GptqException.Check(Api.gptq_session_create(engine.Pointer, &session, &error), &error);
      return new Session(this, session);
    }
  }

  /// <summary>The sessions that have something unread, or have ended since they were looked at; each at most once a step.</summary>
  public IReadOnlyList<Session> Readable() {
    var all = new List<Session>();
    using (var engine = Hold())
    using (Domain.Enter())
      for (IntPtr pointer; (pointer = Api.gptq_engine_next_readable(engine.Pointer)) != IntPtr.Zero;) {
        WeakReference<Session> found;
        Session session;
        if (Sessions.TryGetValue(pointer, out found) && found.TryGetTarget(out session)) all.Add(session);
      }
    return all;
  }

  /// <summary>Vectors of texts, made in free places of sessions; it steps the engine. Pooling.None: pooling and normalizing are as the model's files
  /// say, else the last token's, normalized.</summary>
  public float[][] Embed(IReadOnlyList<string> texts, Pooling pooling = Pooling.None, bool normalize = false) {
    int width = (int)Model.Info.n_embd;
    var vectors = new float[texts.Count][];
    if (texts.Count == 0) return vectors;
    var all = new float[texts.Count * width];
    using (var engine = Hold())
    using (var arena = new Arena())
    using (Domain.Enter())
    fixed (float* to = all) {
      gptq_error* error = arena.Error();
      uint flags = normalize ? (uint)Constants.GPTQ_EMBED_NORMALIZE : 0;
      GptqException.Check(Api.gptq_embed(engine.Pointer, arena.Strings(texts), (UIntPtr)texts.Count, (int)pooling, flags, to, error), error);
    }
    for (int i = 0; i < vectors.Length; i++) vectors[i] = new ReadOnlySpan<float>(all, i * width, width).ToArray();
    return vectors;
  }

  /// <summary>What the engine and its runtime hold now.</summary>
  public MemoryInfo Memory {
    get {
      using (var engine = Hold())
      using (Domain.Enter()) {
        var info = gptq_memory_info.New();
        GptqException.Check(Api.gptq_engine_memory(engine.Pointer, &info));
        return new MemoryInfo {
          PageTokens = (int)info.page_tokens, KvPagesTotal = info.kv_pages_total, KvPagesUsed = info.kv_pages_used, HostBytes = info.host_bytes,
          HostPeak = info.host_peak, DeviceBytes = info.device_bytes, DevicePeak = info.device_peak
        };
      }
    }
  }

  /// <summary>The same of what Session.Save wrote to a stream, or of a file.</summary>
  public Session Restore(Source source, out bool exact) {
    using (var engine = Hold())
    using (var arena = new Arena())
    using (var callbacks = new Callbacks())
    using (Domain.Enter()) {
      gptq_error* error = arena.Error();
      IntPtr session = IntPtr.Zero;
      int status = Api.gptq_session_restore_from(engine.Pointer, source.In(arena, callbacks), &session, error);
      callbacks.Rethrow();
      exact = GptqException.Check(status, error) == Constants.GPTQ_OK;
      return new Session(this, session);
    }
  }
  /// <summary>The stream has to be able to seek, and is read from its beginning.</summary>
  public Session Restore(Stream saved, out bool exact) { return Restore(Source.FromStream(saved), out exact); }

  /// <summary>A session that goes on where the saved one stood. exact is false where its numbers may differ in their last digits.</summary>
  public Session Restore(ReadOnlySpan<byte> saved, out bool exact) {
    using (var engine = Hold())
    using (Domain.Enter())
    fixed (byte* bytes = saved) {
      var error = gptq_error.New();
      IntPtr session;
      int status = Api.gptq_session_restore(engine.Pointer, bytes, (UIntPtr)saved.Length, &session, &error);
      exact = GptqException.Check(status, &error) == Constants.GPTQ_OK;
      return new Session(this, session);
    }
  }
}

}
