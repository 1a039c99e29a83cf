// SPDX-License-Identifier: Apache-2.0
using System;
using System.IO;
using Gptq.Native;

namespace Gptq {

/// <summary>What a model, an adapter or a save is read from: a file, bytes or a stream, whole or a part of it.</summary>
public sealed unsafe class Source {
  readonly string path;
  readonly byte[] bytes;
  readonly Stream stream;
  readonly ulong offset, size;

  Source(string path, byte[] bytes, Stream stream, ulong offset = 0, ulong size = 0) {
    if (path == null && bytes == null && stream == null) throw new ArgumentNullException();
    this.path = path;
    this.bytes = bytes;
    this.stream = stream;
    this.offset = offset;
    this.size = size;
  }
  public static Source FromFile(string path) { return new Source(path, null, null); }
  public static Source FromBytes(byte[] bytes) { return new Source(null, bytes, null); }
  /// <summary>It must be able to seek, and is read during the call only, by one thread at a time. Its exceptions are thrown by the call.</summary>
  public static Source FromStream(Stream stream) {
    if (stream != null && !(stream.CanSeek && stream.CanRead)) throw new ArgumentException("The stream cannot seek and read.", "stream");
    return new Source(null, null, stream);
  }
  /// <summary>The part from offset on; size 0: to the end.</summary>
  public Source Part(long offset, long size = 0) {
    if (offset < 0 || size < 0) throw new ArgumentOutOfRangeException(offset < 0 ? "offset" : "size", "It must not be negative.");
    return new Source(path, bytes, stream, (ulong)offset, (ulong)size);
  }

  internal gptq_source* In(Arena arena, Callbacks callbacks) {
    var source = (gptq_source*)arena.Bytes(sizeof(gptq_source));
    *source = gptq_source.New();
    source->offset = offset;
    source->size = size;
    if (path != null) {
      source->path = arena.Text(path, out source->path_size);
    } else if (bytes != null) {
      source->data = arena.Pin(bytes);
      source->data_size = (UIntPtr)bytes.Length;
    } else {
      callbacks.Stream = stream;
      source->io = (gptq_io*)arena.Bytes(sizeof(gptq_io));
      *source->io = gptq_io.New();
      source->io->user = callbacks.User;
      source->io->size = Callbacks.SizePointer;
      source->io->read_at = Callbacks.ReadPointer;
    }
    return source;
  }
}

}
