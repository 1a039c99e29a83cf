// SPDX-License-Identifier: Apache-2.0
using System;
using System.Text;
using Gptq.Native;

namespace Gptq {

/// <summary>What libgptq reports. Site is where it failed: quote it in bug reports.</summary>
public sealed unsafe class GptqException : Exception {
  /// <summary>One of Gptq.Native.Constants.GPTQ_E_*.</summary>
  public int Status { get; }
  /// <summary>"GPTQ_E_IO", and so on.</summary>
  public string Name { get { return NameOf(Status); } }
  public string Site { get; }
  public ulong Offset { get; }
  public long OsCode { get; }

  internal GptqException(int status, string message, string site = "", ulong offset = 0, long osCode = 0) : base(message) {
    Status = status;
    Site = site;
    Offset = offset;
    OsCode = osCode;
  }

  internal static string NameOf(int status) { return Text(Api.gptq_status_name(status)); }

  internal static string Text(byte* text) {
    int size = 0;
    while (text[size] != 0) size++;
    return Encoding.UTF8.GetString(text, size);
  }

  /// <summary>A number of the caller's for C, which has no negative ones there.</summary>
  internal static uint Count(int number, string name) {
    if (number < 0) throw new ArgumentOutOfRangeException(name, number, "It must not be negative.");
    return (uint)number;
  }

  /// <summary>This thread's last GPTQ_LOG_ERROR: functions that have no gptq_error send their message to the log before they return.</summary>
  [ThreadStatic] internal static string Told;

  /// <summary>error is null for functions that have none; otherwise: the message of one that tells none.</summary>
  internal static int Check(int status, gptq_error* error = null, string otherwise = null) {
    if (status >= 0) return status;
    if (error != null && error->status != 0)
      throw new GptqException(status, Text(error->message), Text(error->site), error->offset, error->os_code);
    string told = Told ?? "";
    Told = null;
    if (otherwise != null) throw new GptqException(status, otherwise);
    int at = told.EndsWith("]", StringComparison.Ordinal) ? told.LastIndexOf(" [", StringComparison.Ordinal) : -1;
    if (at >= 0) throw new GptqException(status, told.Substring(0, at), told.Substring(at + 2, told.Length - at - 3));
    throw new GptqException(status, told != "" ? told : NameOf(status));
  }
}

}
