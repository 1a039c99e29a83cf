// SPDX-License-Identifier: Apache-2.0
using System;
using System.Collections.Generic;
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
  public int Bits, GroupSize, HeadBits, HeadGroupSize, Rows, RowTokens;
  /// <summary>Constants.GPTQ_ORDER_*.</summary>
  public int Order;
  /// <summary>With zero points; with GPTQ_ORDER_ACT: groups as the columns stand.</summary>
  public bool Asymmetric, StaticGroups;
  /// <summary>Of the mean of the Hessian's diagonal, 0 = 0.01; how many tokens the first of a row counts for, 0 = 32.</summary>
  public double Damp, FirstTokenWeight;
  /// <summary>Instead of Bits a budget: of the whole file, or the mean over the layers' matrices; 0 = none.</summary>
  public ulong FileBytesMax;
  public double BitsPerWeight;
  /// <summary>For calibration: text or tokens.</summary>
  public string Text;
  public int[] Tokens;
  /// <summary>Aim at the original model's outputs; the algorithm as published, nothing more.</summary>
  public bool Aim, Reference;
  /// <summary>Replace an existing file.</summary>
  public bool Replace;
  public Progress Progress;
  public Action<QuantizeReport> Report;

  internal unsafe gptq_quantize_params Parameters(Arena arena) {
    var parameters = gptq_quantize_params.New();
    parameters.flags = (Replace ? (uint)Constants.GPTQ_QUANTIZE_REPLACE : 0) | (Aim ? (uint)Constants.GPTQ_QUANTIZE_AIM : 0) |
                       (Reference ? (uint)Constants.GPTQ_QUANTIZE_REFERENCE : 0);
    parameters.defaults.flags = (Asymmetric ? (uint)Constants.GPTQ_QUANT_ASYMMETRIC : 0) |
                                (StaticGroups ? (uint)Constants.GPTQ_QUANT_STATIC_GROUPS : 0);
    parameters.defaults.order = Order;
    parameters.defaults.damp = Damp;
    parameters.head_group_size = HeadGroupSize;
    parameters.first_token_weight = FirstTokenWeight;
    parameters.file_bytes_max = FileBytesMax;
    parameters.bits_per_weight = BitsPerWeight;
    if (Tokens != null && Tokens.Length > 0) {
      parameters.tokens = (int*)arena.Bytes(sizeof(int) * Tokens.Length);
      for (int i = 0; i < Tokens.Length; i++) parameters.tokens[i] = Tokens[i];
      parameters.n_tokens = (UIntPtr)Tokens.Length;
    }
    parameters.defaults.bits = GptqException.Count(Bits, "Bits");
    parameters.defaults.group_size = GroupSize;
    parameters.head_bits = GptqException.Count(HeadBits, "HeadBits");
    parameters.rows = GptqException.Count(Rows, "Rows");
    parameters.row_tokens = GptqException.Count(RowTokens, "RowTokens");
    parameters.text = arena.TextOrNull(Text, out parameters.text_size);
    return parameters;
  }
}

/// <summary>What Runtime.Quantize would take.</summary>
public sealed class QuantizeEstimate {
  public readonly int Modules;
  public readonly ulong FileBytes, WorkBytes, HostBytes;
  public readonly TimeSpan Duration;
  internal QuantizeEstimate(gptq_quantize_estimate of) {
    Modules = (int)of.n_modules;
    FileBytes = of.file_bytes;
    WorkBytes = of.work_bytes;
    HostBytes = of.host_bytes;
    Duration = TimeSpan.FromSeconds(of.seconds);
  }
}

/// <summary>Where a model's layers go: to the CPU, unless Cuda is set.</summary>
public sealed class LoadOptions {
  public bool Cuda;
  public int DeviceOrdinal;
  /// <summary>The last so many, and the head, go to the GPU; null: all that fit.</summary>
  public int? DeviceLayers;
  /// <summary>Hold no more there, engines included; 0 = what is free.</summary>
  public ulong DeviceBytesMax;

  internal static gptq_model_params Parameters(LoadOptions options) {
    var parameters = gptq_model_params.New();
    if (options == null) return parameters;
    parameters.device_kind = options.Cuda ? Constants.GPTQ_DEVICE_CUDA : 0;
    parameters.device_ordinal = options.DeviceOrdinal;
    if (options.DeviceLayers != null)
      parameters.device_layers = options.DeviceLayers == 0 ? uint.MaxValue : GptqException.Count(options.DeviceLayers.Value, "DeviceLayers");
    parameters.device_bytes_max = options.DeviceBytesMax;
    return parameters;
  }
}

/// <summary>What a model, and an engine, would hold. Fits: within HostBytesMax beside what is held already, and within every GPU's budget.</summary>
public sealed class MemoryEstimate {
  public readonly bool Fits;
  public readonly ulong HostWeights, HostKv, HostScratch, HostLoadPeak, DeviceWeights, DeviceKv, DeviceScratch;
  public readonly int DeviceLayers;
  internal MemoryEstimate(gptq_memory_estimate of) {
    Fits = of.fits != 0;
    HostWeights = of.host_weights;
    HostKv = of.host_kv;
    HostScratch = of.host_scratch;
    HostLoadPeak = of.host_load_peak;
    DeviceWeights = of.device_weights;
    DeviceKv = of.device_kv;
    DeviceScratch = of.device_scratch;
    DeviceLayers = (int)of.device_layers;
  }
}

/// <summary>A GPU. Capability: 90 for compute capability 9.0.</summary>
public sealed unsafe class Device {
  public readonly int Ordinal, Capability;
  public readonly string Name;
  public readonly ulong BytesTotal, BytesFree;
  public readonly byte[] Uuid = new byte[16];
  internal Device(gptq_device_info* info) {
    Ordinal = info->ordinal;
    Capability = (int)info->capability;
    Name = GptqException.Text(info->name);
    BytesTotal = info->bytes_total;
    BytesFree = info->bytes_free;
    for (int i = 0; i < Uuid.Length; i++) Uuid[i] = info->uuid[i];
  }
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
    desc.log = Callbacks.LogPointer;  // also without Log: it keeps the messages of functions that have no gptq_error
    if (options.Log != null) {
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

  /// <summary>The library's: "0.1.0".</summary>
  public static string Version {
    get {
      uint number = Api.gptq_version();
      return (number >> 16) + "." + (number >> 8 & 255) + "." + (number & 255);
    }
  }
  /// <summary>One line: version, compiler, kernel levels compiled in.</summary>
  public static string BuildInfo { get { return GptqException.Text(Api.gptq_build_info()); } }

  /// <summary>Loads a model file. Cancelling ends it with OperationCanceledException.</summary>
  public Model Load(string path, Progress progress = null, CancellationToken token = default(CancellationToken)) {
    if (path == null) throw new ArgumentNullException("path");
    return Load(path, null, null, progress, token);
  }
  /// <summary>The same of bytes, of a stream, or of a part of a file, and to a GPU.</summary>
  public Model Load(Source source, LoadOptions options = null, Progress progress = null, CancellationToken token = default(CancellationToken)) {
    if (source == null) throw new ArgumentNullException("source");
    return Load(null, source, options, progress, token);
  }
  Model Load(string path, Source source, LoadOptions options, Progress progress, CancellationToken token) {
    using (var runtime = Hold())
    using (var arena = new Arena())
    using (var callbacks = new Callbacks { Progress = Within(token, progress) }) {
      gptq_model_params parameters = LoadOptions.Parameters(options);
      parameters.progress = Callbacks.ProgressPointer;
      parameters.progress_user = callbacks.User;
      gptq_error* error = arena.Error();
      IntPtr model = IntPtr.Zero;
      int status;
      if (path != null) {
        UIntPtr size;
        byte* name = arena.Text(path, out size);
        status = Api.gptq_model_load(runtime.Pointer, name, size, &parameters, &model, error);
      } else {
        status = Api.gptq_model_load_from(runtime.Pointer, source.In(arena, callbacks), &parameters, &model, error);
      }
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

  /// <summary>What loading, and one engine (null: none), would hold.</summary>
  public MemoryEstimate Estimate(Source source, EngineOptions engine = null, LoadOptions options = null) {
    using (var runtime = Hold())
    using (var arena = new Arena())
    using (var callbacks = new Callbacks()) {
      gptq_model_params parameters = LoadOptions.Parameters(options);
      gptq_engine_params engineParameters = engine == null ? new gptq_engine_params() : engine.Parameters();
      gptq_error* error = arena.Error();
      var estimate = gptq_memory_estimate.New();
      int status = Api.gptq_model_estimate(runtime.Pointer, source.In(arena, callbacks), &parameters, engine == null ? null : &engineParameters,
                                           &estimate, error);
      callbacks.Rethrow();
      GptqException.Check(status, error);
      return new MemoryEstimate(estimate);
    }
  }

  /// <summary>Loads the CUDA backend: where the system's loader has it, or that file.</summary>
  public void LoadBackend(string path = null) {
    using (var runtime = Hold())
    using (var arena = new Arena()) {
      gptq_error* error = arena.Error();
      UIntPtr size;
      byte* name = arena.TextOrNull(path, out size);
      GptqException.Check(Api.gptq_runtime_load_backend(runtime.Pointer, name, size, error), error);
    }
  }

  /// <summary>The GPUs. Throws where no backend is loaded.</summary>
  public IReadOnlyList<Device> Devices {
    get {
      var all = new List<Device>();
      using (var runtime = Hold())
        for (;;) {
          var error = gptq_error.New();
          var info = gptq_device_info.New();
          int status = Api.gptq_runtime_device(runtime.Pointer, (uint)all.Count, &info, &error);
          if (status == Constants.GPTQ_E_NOT_FOUND) return all;
          GptqException.Check(status, &error);
          all.Add(new Device(&info));
        }
    }
  }

  /// <summary>What Quantize with these options would take.</summary>
  public QuantizeEstimate EstimateQuantize(Source source, QuantizeOptions options = null) {
    using (var runtime = Hold())
    using (var arena = new Arena())
    using (var callbacks = new Callbacks()) {
      gptq_error* error = arena.Error();
      gptq_quantize_params parameters = (options ?? new QuantizeOptions()).Parameters(arena);
      var estimate = gptq_quantize_estimate.New();
      int status = Api.gptq_quantize_estimate_get(runtime.Pointer, source.In(arena, callbacks), &parameters, &estimate, error);
      callbacks.Rethrow();
      GptqException.Check(status, error);
      return new QuantizeEstimate(estimate);
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
      gptq_quantize_params parameters = options.Parameters(arena);
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
