// SPDX-License-Identifier: Apache-2.0
using System;
using Gptq.Native;

namespace Gptq {

public enum ConstraintKind {
  Choice = Constants.GPTQ_CONSTRAINT_CHOICE,
  Regex = Constants.GPTQ_CONSTRAINT_REGEX,
  JsonSchema = Constants.GPTQ_CONSTRAINT_JSON_SCHEMA,
  JsonCompact = Constants.GPTQ_CONSTRAINT_JSON_COMPACT,
  Grammar = Constants.GPTQ_CONSTRAINT_GRAMMAR,
  Tags = Constants.GPTQ_CONSTRAINT_TAGS,
  Banned = Constants.GPTQ_CONSTRAINT_BANNED
}

/// <summary>What a generated text must be, for GenerateOptions.Constraint, or phrases that it never has, for GenerateOptions.Banned; of any number
/// of generations at once.</summary>
public sealed class Constraint : GptqHandle {
  internal Constraint(IntPtr pointer) : base(pointer) { }
  protected override bool ReleaseHandle() {
    Api.gptq_constraint_destroy(handle);
    return true;
  }
}

/// <summary>A .gptq-lora file, for Session.SetAdapter.</summary>
public sealed unsafe class Adapter : GptqHandle {
  internal Adapter(IntPtr pointer) : base(pointer) { }
  protected override bool ReleaseHandle() {
    Api.gptq_adapter_release(handle);
    return true;
  }

  gptq_adapter_info Info {
    get {
      using (var adapter = Hold()) {
        var info = gptq_adapter_info.New();
        GptqException.Check(Api.gptq_adapter_info_get(adapter.Pointer, &info));
        return info;
      }
    }
  }
  /// <summary>The largest of its matrices.</summary>
  public int Rank { get { return (int)Info.rank; } }
  /// <summary>How many of the model it changes.</summary>
  public int Matrices { get { return (int)Info.n_matrices; } }
  public ulong HostBytes { get { return Info.host_bytes; } }
  public ulong Fingerprint { get { return Info.fingerprint; } }
}

}
