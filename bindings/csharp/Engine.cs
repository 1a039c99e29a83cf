// SPDX-License-Identifier: Apache-2.0
using System;
using System.Collections.Concurrent;
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

/// <summary>The KV memory and the scheduler of some sessions.</summary>
public sealed unsafe class Engine : GptqHandle {
  internal readonly Domain Domain = new Domain();
  public Model Model { get; }

  internal Engine(Model model, IntPtr pointer) : base(pointer) { Model = model; }

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
