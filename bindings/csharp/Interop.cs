// SPDX-License-Identifier: Apache-2.0
// What the classes are made of: handles, memory for the time of a call, callbacks.
using System;
using System.Collections.Generic;
using System.IO;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using System.Text;
using Gptq.Native;

namespace Gptq {

/// <summary>Unity's IL2CPP looks for an attribute of this name.</summary>
[AttributeUsage(AttributeTargets.Method)]
sealed class MonoPInvokeCallbackAttribute : Attribute {
  public MonoPInvokeCallbackAttribute(Type type) { }
}

/// <summary>A reference that C counts. Disposing gives it back; so does the garbage collector, on its own thread.</summary>
public abstract class GptqHandle : SafeHandle {
  protected GptqHandle(IntPtr pointer) : base(IntPtr.Zero, true) { SetHandle(pointer); }
  public override bool IsInvalid { get { return handle == IntPtr.Zero; } }

  /// <summary>Keeps the handle from being released until this is disposed. Throws ObjectDisposedException.</summary>
  internal Use Hold() { return new Use(this); }

  internal struct Use : IDisposable {
    readonly GptqHandle of;
    internal Use(GptqHandle handle) {
      bool held = false;
      handle.DangerousAddRef(ref held);
      of = handle;
    }
    internal IntPtr Pointer { get { return of.handle; } }
    public void Dispose() { of.DangerousRelease(); }
  }
}

/// <summary>Memory of C's for the time of a call, zeroed.</summary>
sealed unsafe class Arena : IDisposable {
  readonly List<IntPtr> blocks = new List<IntPtr>();
  readonly List<GCHandle> pins = new List<GCHandle>();

  public byte* Bytes(int size) {
    IntPtr block = Marshal.AllocHGlobal(size + 1);
    blocks.Add(block);
    new Span<byte>((byte*)block, size + 1).Clear();
    return (byte*)block;
  }
  public byte* Text(string text, out UIntPtr size) {
    int count = Encoding.UTF8.GetByteCount(text);
    byte* bytes = Bytes(count);
    fixed (char* characters = text) Encoding.UTF8.GetBytes(characters, text.Length, bytes, count);
    size = (UIntPtr)count;
    return bytes;
  }
  public byte* TextOrNull(string text, out UIntPtr size) {
    size = UIntPtr.Zero;
    return text == null ? null : Text(text, out size);
  }
  public gptq_string* Strings(IReadOnlyList<string> texts) {
    var list = (gptq_string*)Bytes(sizeof(gptq_string) * texts.Count);
    for (int i = 0; i < texts.Count; i++) list[i].ptr = Text(texts[i], out list[i].size);
    return list;
  }
  /// <summary>Where the bytes lie, which stay there until this is disposed.</summary>
  public void* Pin(byte[] bytes) {
    var pin = GCHandle.Alloc(bytes, GCHandleType.Pinned);
    pins.Add(pin);
    return (void*)pin.AddrOfPinnedObject();
  }
  public gptq_error* Error() {
    var error = (gptq_error*)Bytes(sizeof(gptq_error));
    *error = gptq_error.New();
    return error;
  }
  public void Dispose() {
    foreach (IntPtr block in blocks) Marshal.FreeHGlobal(block);
    foreach (GCHandle pin in pins) pin.Free();
  }
}

/// <summary>How much of a phase (GPTQ_PHASE_*) is done, 0 to 1; false cancels.</summary>
public delegate bool Progress(int phase, double done);

/// <summary>
/// What C calls while one of our calls is in it: static methods, which find their object by a GCHandle, as ahead-of-time compilers need it. An
/// exception in one stops the call and goes on above it.
/// </summary>
sealed unsafe class Callbacks : IDisposable {
  public Func<string, bool> Text;
  public Progress Progress;
  public Action<QuantizeReport> Report;
  public Stream Stream;
  Exception failure;
  readonly GCHandle self;

  public Callbacks() { self = GCHandle.Alloc(this); }
  public void Dispose() { self.Free(); }
  public void* User { get { return (void*)GCHandle.ToIntPtr(self); } }
  public void Rethrow() {
    if (failure != null) ExceptionDispatchInfo.Capture(failure).Throw();
  }

  /// <summary>What a stream gives, or EIO. The library may read on several threads.</summary>
  static long Guarded(void* user, Func<Callbacks, long> call) {
    const long eio = -5;
    var callbacks = (Callbacks)GCHandle.FromIntPtr((IntPtr)user).Target;
    lock (callbacks) {
      if (callbacks.failure != null) return eio;
      try {
        return call(callbacks);
      } catch (Exception e) {
        callbacks.failure = e;
        return eio;
      }
    }
  }
  [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
  delegate long SizeFunction(void* user);
  [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
  delegate long ReadFunction(void* user, ulong offset, void* to, UIntPtr size);
  [MonoPInvokeCallback(typeof(SizeFunction))]
  static long OnSize(void* user) { return Guarded(user, callbacks => callbacks.Stream.Length); }
  [MonoPInvokeCallback(typeof(ReadFunction))]
  static long OnRead(void* user, ulong offset, void* to, UIntPtr size) {
    return Guarded(user, callbacks => {
      int done = 0;
      callbacks.Stream.Position = (long)offset;
      for (int n = -1; done < (int)size && n != 0; done += n) n = callbacks.Stream.Read(new Span<byte>((byte*)to + done, (int)size - done));
      return done;
    });
  }
  [MonoPInvokeCallback(typeof(gptq_write_fn))]
  static int OnWrite(void* user, void* bytes, UIntPtr size) {
    return (int)Guarded(user, callbacks => {
      callbacks.Stream.Write(new ReadOnlySpan<byte>(bytes, (int)size));
      return 0;
    });
  }

  /// <summary>Runs one, unless another failed before; 0 if it wants more.</summary>
  static int Run(void* user, Func<Callbacks, bool> call) {
    var callbacks = (Callbacks)GCHandle.FromIntPtr((IntPtr)user).Target;
    if (callbacks.failure != null) return 1;
    try {
      return call(callbacks) ? 0 : 1;
    } catch (Exception e) {
      callbacks.failure = e;
      return 1;
    }
  }
  [MonoPInvokeCallback(typeof(gptq_text_fn))]
  static int OnText(void* user, byte* text, UIntPtr size) {
    return Run(user, callbacks => callbacks.Text(Encoding.UTF8.GetString(text, (int)size)));
  }
  [MonoPInvokeCallback(typeof(gptq_progress_fn))]
  static int OnProgress(void* user, uint phase, uint permille) {
    return Run(user, callbacks => callbacks.Progress((int)phase, permille / 1000.0));
  }
  [MonoPInvokeCallback(typeof(gptq_quantize_report_fn))]
  static void OnReport(void* user, gptq_quantize_report* report) {
    Run(user, callbacks => {
      callbacks.Report(new QuantizeReport(report));
      return true;
    });
  }

  /// <summary>user is a GCHandle of an Action, or null. There is nobody above who could be told of an exception.</summary>
  [MonoPInvokeCallback(typeof(gptq_log_fn))]
  static void OnLog(void* user, int level, byte* text, UIntPtr size) {
    try {
      string message = Encoding.UTF8.GetString(text, (int)size);
      if (level == Constants.GPTQ_LOG_ERROR) GptqException.Told = message;
      if (user != null) ((Action<int, string>)GCHandle.FromIntPtr((IntPtr)user).Target)(level, message);
    } catch (Exception) {
    }
  }
  [MonoPInvokeCallback(typeof(gptq_user_free_fn))]
  static void OnFree(void* user) { GCHandle.FromIntPtr((IntPtr)user).Free(); }

  // Delegates must live as long as their pointers are used: for ever.
  static readonly gptq_text_fn text = OnText;
  static readonly gptq_progress_fn progress = OnProgress;
  static readonly gptq_quantize_report_fn report = OnReport;
  static readonly SizeFunction size = OnSize;
  static readonly ReadFunction read = OnRead;
  static readonly gptq_write_fn write = OnWrite;
  static readonly gptq_log_fn log = OnLog;
  static readonly gptq_user_free_fn free = OnFree;
  public static readonly IntPtr TextPointer = Marshal.GetFunctionPointerForDelegate(text);
  public static readonly IntPtr ProgressPointer = Marshal.GetFunctionPointerForDelegate(progress);
  public static readonly IntPtr ReportPointer = Marshal.GetFunctionPointerForDelegate(report);
  public static readonly IntPtr SizePointer = Marshal.GetFunctionPointerForDelegate(size);
  public static readonly IntPtr ReadPointer = Marshal.GetFunctionPointerForDelegate(read);
  public static readonly IntPtr WritePointer = Marshal.GetFunctionPointerForDelegate(write);
  public static readonly IntPtr LogPointer = Marshal.GetFunctionPointerForDelegate(log);
  public static readonly IntPtr FreePointer = Marshal.GetFunctionPointerForDelegate(free);
}

}
