// SPDX-License-Identifier: Apache-2.0
using System;
using System.Collections;
using System.Collections.Generic;
using System.Threading;
using System.Threading.Tasks;
using Gptq.Native;

namespace Gptq {

/// <summary>Pieces of text until the session ends. Disposed early, which foreach does when it is left, it cancels.</summary>
public sealed unsafe class TextStream : IEnumerable<string>, IEnumerator<string>, IAsyncEnumerable<string>, IAsyncEnumerator<string> {
  const uint BudgetMicroseconds = 5000;
  readonly Session session;
  CancellationToken token;
  bool ended;

  internal TextStream(Session session, CancellationToken token) {
    this.session = session;
    this.token = token;
  }

  public string Current { get; private set; }
  object IEnumerator.Current { get { return Current; } }

  public bool MoveNext() {
    while (!ended) {
      if (token.IsCancellationRequested) Dispose();
      token.ThrowIfCancellationRequested();
      SessionInfo info = session.Info;
      Current = session.Read();
      if (Current.Length > 0) return true;
      ended = !info.Running;
      if (ended) GptqException.Check(info.Status, null, "the generation ended by " + GptqException.NameOf(info.Status));
      else session.Engine.Step(BudgetMicroseconds);
    }
    return false;
  }
  /// <summary>Works on the thread pool.</summary>
  public ValueTask<bool> MoveNextAsync() { return new ValueTask<bool>(Task.Run(() => MoveNext())); }

  public void Dispose() {
    if (ended) return;
    ended = true;
    session.Cancel();
    session.Engine.Step(1);  // which ends it; a poll would not
  }
  public ValueTask DisposeAsync() { return new ValueTask(Task.Run(() => Dispose())); }

  public void Reset() { throw new NotSupportedException(); }
  public IEnumerator<string> GetEnumerator() { return this; }
  IEnumerator IEnumerable.GetEnumerator() { return this; }
  public IAsyncEnumerator<string> GetAsyncEnumerator(CancellationToken cancellation = default(CancellationToken)) {
    if (cancellation.CanBeCanceled) token = cancellation;
    return this;
  }
}

}
