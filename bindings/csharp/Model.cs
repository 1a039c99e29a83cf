// SPDX-License-Identifier: Apache-2.0
using System;
using System.Collections.Generic;
using System.Text;
using Gptq.Native;

namespace Gptq {

[Flags]
public enum TextFlags {
  None = 0,
  AddBos = Constants.GPTQ_TEXT_ADD_BOS,
  ParseSpecial = Constants.GPTQ_TEXT_PARSE_SPECIAL,
  RenderSpecial = Constants.GPTQ_TEXT_RENDER_SPECIAL
}

/// <summary>All zero: one session, the model's context, at most 4096 tokens.</summary>
public sealed class EngineOptions {
  public int MaxSessions, ContextTokens, PageTokens, BatchTokens, LogitsRows;
  /// <summary>Of each token so many of the best log-probabilities are kept for GenerateOptions.LogProbs, at most 20.</summary>
  public int BestLogProbs;
  /// <summary>Room for adapters of this rank; otherwise it is taken when the first is attached.</summary>
  public int AdapterRank;
  public ulong KvBytes;
  /// <summary>Activations as float32, or as bfloat16.</summary>
  public bool Exact, Bf16;
  /// <summary>Constants.GPTQ_KV_*, and GPTQ_KV_VALUES_* or nothing.</summary>
  public int KvType;

  internal gptq_engine_params Parameters() {
    var parameters = gptq_engine_params.New();
    parameters.flags = (Exact ? (uint)Constants.GPTQ_ENGINE_EXACT : 0) | (Bf16 ? (uint)Constants.GPTQ_ENGINE_BF16 : 0);
    parameters.max_sessions = GptqException.Count(MaxSessions, "MaxSessions");
    parameters.ctx_tokens = GptqException.Count(ContextTokens, "ContextTokens");
    parameters.page_tokens = GptqException.Count(PageTokens, "PageTokens");
    parameters.batch_tokens = GptqException.Count(BatchTokens, "BatchTokens");
    parameters.logits_rows = GptqException.Count(LogitsRows, "LogitsRows");
    parameters.best_logprobs = GptqException.Count(BestLogProbs, "BestLogProbs");
    parameters.adapter_rank = GptqException.Count(AdapterRank, "AdapterRank");
    parameters.kv_bytes = KvBytes;
    parameters.kv_type = KvType;
    return parameters;
  }
}

/// <summary>What a token stands for. IsByte: one byte alone; IsAdded: not of the tokenizer's own vocabulary; IsEnd: it ends a generation.</summary>
public sealed class Token {
  public readonly byte[] Bytes;
  public readonly bool IsSpecial, IsByte, IsAdded, IsEnd;
  internal Token(byte[] bytes, uint attributes) {
    Bytes = bytes;
    IsSpecial = (attributes & Constants.GPTQ_TOKEN_SPECIAL) != 0;
    IsByte = (attributes & Constants.GPTQ_TOKEN_BYTE) != 0;
    IsAdded = (attributes & Constants.GPTQ_TOKEN_ADDED) != 0;
    IsEnd = (attributes & Constants.GPTQ_TOKEN_END) != 0;
  }
}

/// <summary>Layers that are side by side on one device. Kind: Constants.GPTQ_DEVICE_*.</summary>
public struct Placement {
  public int Kind, Ordinal, FirstLayer, Layers;
  public ulong Bytes;
}

/// <summary>A .gptq file: weights, tokenizer, chat template. Threads may share it.</summary>
public sealed unsafe class Model : GptqHandle {
  public Runtime Runtime { get; }

  internal Model(Runtime runtime, IntPtr pointer) : base(pointer) { Runtime = runtime; }

  protected override bool ReleaseHandle() {
    Api.gptq_model_release(handle);
    return true;
  }

  public gptq_model_info Info {
    get {
      using (var model = Hold()) {
        var info = gptq_model_info.New();
        GptqException.Check(Api.gptq_model_info_get(model.Pointer, &info));
        return info;
      }
    }
  }

  static bool Failed(int status) { return status < 0 && status != Constants.GPTQ_E_BUFFER_TOO_SMALL; }

  /// <summary>Text of the file: "name", "license", "chat_template", ...</summary>
  public string Meta(string key) {
    using (var model = Hold())
    using (var arena = new Arena()) {
      UIntPtr size, needed;
      byte* name = arena.Text(key, out size);
      int status = Api.gptq_model_meta(model.Pointer, name, size, null, UIntPtr.Zero, &needed);
      if (Failed(status)) GptqException.Check(status, null, status == Constants.GPTQ_E_NOT_FOUND ? "the model has no text for " + key : null);
      byte* text = arena.Bytes((int)needed);
      GptqException.Check(Api.gptq_model_meta(model.Pointer, name, size, text, needed, &needed));
      return Encoding.UTF8.GetString(text, (int)needed - 1);  // without the NUL
    }
  }

  public int[] Tokenize(string text, TextFlags flags = TextFlags.None) {
    using (var model = Hold())
    using (var arena = new Arena()) {
      UIntPtr size, needed;
      byte* at = arena.Text(text, out size);
      int status = Api.gptq_tokenize(model.Pointer, at, size, (uint)flags, null, UIntPtr.Zero, &needed);
      if (Failed(status)) GptqException.Check(status);
      var tokens = new int[(int)needed];
      fixed (int* to = tokens) GptqException.Check(Api.gptq_tokenize(model.Pointer, at, size, (uint)flags, to, needed, &needed));
      return tokens;
    }
  }

  /// <summary>Bytes that are no UTF-8 become U+FFFD.</summary>
  public string Detokenize(ReadOnlySpan<int> tokens, TextFlags flags = TextFlags.None) {
    using (var model = Hold())
    using (var arena = new Arena())
    fixed (int* ids = tokens) {
      UIntPtr size = (UIntPtr)tokens.Length, needed;
      int status = Api.gptq_detokenize(model.Pointer, ids, size, (uint)flags, null, UIntPtr.Zero, &needed);
      if (Failed(status)) GptqException.Check(status);
      byte* text = arena.Bytes((int)needed);
      GptqException.Check(Api.gptq_detokenize(model.Pointer, ids, size, (uint)flags, text, needed, &needed));
      return Encoding.UTF8.GetString(text, (int)needed);
    }
  }

  /// <summary>The bytes that a token stands for, and what it is.</summary>
  public Token Token(int token) {
    using (var model = Hold()) {
      byte* at;
      UIntPtr size;
      uint attributes;
      GptqException.Check(Api.gptq_token_bytes(model.Pointer, token, &at, &size, &attributes));
      return new Token(new ReadOnlySpan<byte>(at, (int)size).ToArray(), attributes);
    }
  }

  /// <summary>Which layers are on which device, in their order.</summary>
  public IReadOnlyList<Placement> Placements {
    get {
      var all = new List<Placement>();
      using (var model = Hold())
        for (;;) {
          var one = gptq_placement.New();
          int status = Api.gptq_model_placement(model.Pointer, (uint)all.Count, &one);
          if (status == Constants.GPTQ_E_NOT_FOUND) return all;
          GptqException.Check(status);
          all.Add(new Placement {
            Kind = one.kind, Ordinal = one.ordinal, FirstLayer = (int)one.first_layer, Layers = (int)one.n_layers, Bytes = one.bytes
          });
        }
    }
  }

  /// <summary>The model's chat template over the messages.</summary>
  public string RenderChat(IReadOnlyList<Message> messages, ChatOptions options = null) {
    using (var model = Hold())
    using (var arena = new Arena()) {
      gptq_chat* chat = ChatOptions.Chat(arena, messages, options);
      gptq_error* error = arena.Error();
      UIntPtr needed;
      int status = Api.gptq_chat_render(model.Pointer, chat, null, UIntPtr.Zero, &needed, error);
      if (Failed(status)) GptqException.Check(status, error);
      byte* text = arena.Bytes((int)needed);
      GptqException.Check(Api.gptq_chat_render(model.Pointer, chat, text, needed, &needed, error), error);
      return Encoding.UTF8.GetString(text, (int)needed);
    }
  }

  /// <summary>Reserves everything that generating will need.</summary>
  public Engine CreateEngine(EngineOptions options = null) {
    options = options ?? new EngineOptions();
    using (var model = Hold()) {
      gptq_engine_params parameters = options.Parameters();
      var error = gptq_error.New();
      IntPtr engine;
      GptqException.Check(Api.gptq_engine_create(model.Pointer, &parameters, &engine, &error), &error);
      return new Engine(this, engine, options.BestLogProbs);
    }
  }

  static string List(string[] texts) {
    var json = new StringBuilder("[");
    foreach (string text in texts) {
      json.Append(json.Length > 1 ? ",\"" : "\"");
      foreach (char c in text)
        if (c == '"' || c == '\\') json.Append('\\').Append(c);
        else if (c < ' ') json.Append("\\u").Append(((int)c).ToString("x4"));
        else json.Append(c);
      json.Append('"');
    }
    return json.Append(']').ToString();
  }
  /// <summary>Makes a generated text one of some.</summary>
  public Constraint Choice(params string[] texts) { return Compile(ConstraintKind.Choice, List(texts)); }
  /// <summary>Makes it match the expression as a whole. An exception's Offset is the byte where the expression was refused.</summary>
  public Constraint Regex(string expression) { return Compile(ConstraintKind.Regex, expression); }
  /// <summary>Makes it JSON that the schema allows; compact: each value in the shortest way to write it.</summary>
  public Constraint JsonSchema(string schema, bool compact = false) {
    return Compile(compact ? ConstraintKind.JsonCompact : ConstraintKind.JsonSchema, schema);
  }
  /// <summary>Makes it a text of the grammar, as llama.cpp writes them (GBNF).</summary>
  public Constraint Grammar(string gbnf) { return Compile(ConstraintKind.Grammar, gbnf); }
  /// <summary>Free text until a tag begins, for tool calls; the source is JSON, as gptq.h says.</summary>
  public Constraint Tags(string source) { return Compile(ConstraintKind.Tags, source); }
  /// <summary>For GenerateOptions.Banned: phrases that the text never has, in large and small letters.</summary>
  public Constraint Banned(params string[] phrases) { return Compile(ConstraintKind.Banned, List(phrases)); }

  public Constraint Compile(ConstraintKind kind, string source) {
    using (var model = Hold())
    using (var arena = new Arena()) {
      gptq_error* error = arena.Error();
      UIntPtr size;
      byte* text = arena.Text(source, out size);
      IntPtr constraint;
      GptqException.Check(Api.gptq_constraint_compile(model.Pointer, (int)kind, text, size, &constraint, error), error);
      return new Constraint(constraint);
    }
  }

  /// <summary>A .gptq-lora file, for sessions of this model.</summary>
  public Adapter LoadAdapter(string path) { return LoadAdapter(Source.FromFile(path)); }
  public Adapter LoadAdapter(Source source) {
    using (var model = Hold())
    using (var arena = new Arena())
    using (var callbacks = new Callbacks()) {
      gptq_error* error = arena.Error();
      IntPtr adapter = IntPtr.Zero;
      int status = Api.gptq_adapter_load(model.Pointer, source.In(arena, callbacks), &adapter, error);
      callbacks.Rethrow();
      GptqException.Check(status, error);
      return new Adapter(adapter);
    }
  }
}

}
