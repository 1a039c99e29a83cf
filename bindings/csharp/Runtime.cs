// SPDX-License-Identifier: Apache-2.0
using System;
using System.Runtime.InteropServices;
using System.Text;
using System.Threading;
using Gptq.Native;

namespace Gptq {

public sealed class RuntimeOptions {
  /// <summary>0 = one for each physical core.</summary>
  public int Threads;
  /// <summary>Refuse to hold more; 0 = no limit.</summary>
  public ulong HostBytesMax;
  public int LogLevel;
  /// <summary>Gets level and text, from any thread that is inside the library. An exception in it is dropped.</summary>
  public Action<int, string> Log;
}

/// <summary>How to quantize. All zero: 4 bits in groups of 128, calibrated with text that the model writes itself.</summary>
public sealed class QuantizeOptions {
  public int Bits, GroupSize, HeadBits, Rows, RowTokens;
  /// <summary>For calibration.</summary>
  public string Text;
  /// <summary>Replace an existing file.</summary>
  public bool Replace;
  public Progress Progress;
  public Action<QuantizeReport> Report;
}

/// <summary>What became of one matrix. Error: squared error of its output, as a part of the squared output.</summary>
public sealed unsafe class QuantizeReport {
  public readonly string Name;
  public readonly int Bits, GroupSize;
  public readonly double Error;
  internal QuantizeReport(gptq_quantize_report* report) {
    Name = Encoding.UTF8.GetString(report->name, (int)report->name_size);
    Bits = (int)report->bits;
    GroupSize = report->group_size;
    Error = report->error;
  }
}

/// <summary>What every other object uses: threads, memory, log. Any thread may use it.</summary>
public sealed unsafe class Runtime : GptqHandle {
  public Runtime(RuntimeOptions options = null) : base(IntPtr.Zero) {
    options = options ?? new RuntimeOptions();
    var desc = gptq_runtime_desc.New();
    desc.threads = GptqException.Count(options.Threads, "Threads");
    desc.host_bytes_max = options.HostBytesMax;
    desc.log_level = options.LogLevel;
    if (options.Log != null) {
      desc.log = Callbacks.LogPointer;
      desc.user_free = Callbacks.FreePointer;
      desc.user = desc.log_user = (void*)GCHandle.ToIntPtr(GCHandle.Alloc(options.Log));
    }
    var error = gptq_error.New();
    IntPtr pointer;
    int status = Api.gptq_runtime_create(&desc, &pointer, &error);
    if (status < 0 && options.Log != null) GCHandle.FromIntPtr((IntPtr)desc.user).Free();
    GptqException.Check(status, &error);
    SetHandle(pointer);
  }

  protected override bool ReleaseHandle() {
    Api.gptq_runtime_release(handle);
    return true;
  }

  /// <summary>The kernel levels in use.</summary>
  public string Kernels {
    get {
      using (var runtime = Hold()) return GptqException.Text(Api.gptq_runtime_kernels(runtime.Pointer));
    }
  }

  static Progress Within(CancellationToken token, Progress progress) {
    return (phase, done) => !token.IsCancellationRequested && (progress == null || progress(phase, done));
  }

  /// <summary>Loads a model file. Cancelling ends it with OperationCanceledException.</summary>
  public Model Load(string path, Progress progress = null, CancellationToken token = default(CancellationToken)) {
    using (var runtime = Hold())
    using (var arena = new Arena())
    using (var callbacks = new Callbacks { Progress = Within(token, progress) }) {
      var parameters = gptq_model_params.New();
      parameters.progress = Callbacks.ProgressPointer;
      parameters.progress_user = callbacks.User;
      gptq_error* error = arena.Error();
      UIntPtr size;
      byte* name = arena.Text(path, out size);
      IntPtr model = IntPtr.Zero;
      int status = Api.gptq_model_load(runtime.Pointer, name, size, &parameters, &model, error);
      Model loaded = status >= 0 ? new Model(this, model) : null;
      try {
        callbacks.Rethrow();
      } catch {
        if (loaded != null) loaded.Dispose();
        throw;
      }
      if (status == Constants.GPTQ_E_CANCELLED) token.ThrowIfCancellationRequested();
      GptqException.Check(status, error);
      return loaded;
    }
  }

  /// <summary>Makes a model with few bits of one with 16 or 32. Blocks. What is done is kept: the same call goes on after a cancel.</summary>
  public void Quantize(string source, string target, QuantizeOptions options = null, CancellationToken token = default(CancellationToken)) {
    options = options ?? new QuantizeOptions();
    using (var runtime = Hold())
    using (var arena = new Arena())
    using (var callbacks = new Callbacks { Progress = Within(token, options.Progress), Report = options.Report }) {
      gptq_error* error = arena.Error();
      var from = gptq_source.New();
      from.path = arena.Text(source, out from.path_size);
      var parameters = gptq_quantize_params.New();
      parameters.flags = options.Replace ? (uint)Constants.GPTQ_QUANTIZE_REPLACE : 0;
      parameters.defaults.bits = GptqException.Count(options.Bits, "Bits");
      parameters.defaults.group_size = options.GroupSize;
      parameters.head_bits = GptqException.Count(options.HeadBits, "HeadBits");
      parameters.rows = GptqException.Count(options.Rows, "Rows");
      parameters.row_tokens = GptqException.Count(options.RowTokens, "RowTokens");
      if (options.Text != null) parameters.text = arena.Text(options.Text, out parameters.text_size);
      parameters.progress = Callbacks.ProgressPointer;
      parameters.progress_user = callbacks.User;
      if (options.Report != null) {
        parameters.report = Callbacks.ReportPointer;
        parameters.report_user = callbacks.User;
      }
      UIntPtr size;
      byte* name = arena.Text(target, out size);
      int status = Api.gptq_quantize(runtime.Pointer, &from, name, size, &parameters, error);
      callbacks.Rethrow();
      if (status == Constants.GPTQ_E_CANCELLED) token.ThrowIfCancellationRequested();
      GptqException.Check(status, error);
    }
  }
}

}
