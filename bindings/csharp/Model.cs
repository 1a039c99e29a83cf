// SPDX-License-Identifier: Apache-2.0
using System;
using System.Collections.Generic;
using System.Text;
using Gptq.Native;

namespace Gptq {

/// <summary>One of a conversation.</summary>
public sealed class Message {
  public readonly string Role, Text;
  public Message(string role, string text) {
    Role = role;
    Text = text;
  }
}

[Flags]
public enum TextFlags {
  None = 0,
  AddBos = Constants.GPTQ_TEXT_ADD_BOS,
  ParseSpecial = Constants.GPTQ_TEXT_PARSE_SPECIAL,
  RenderSpecial = Constants.GPTQ_TEXT_RENDER_SPECIAL
}

/// <summary>All zero: one session, the model's context, at most 4096 tokens.</summary>
public sealed class EngineOptions {
  public int MaxSessions, ContextTokens, BatchTokens, LogitsRows;
  public ulong KvBytes;
  public bool Exact;
  /// <summary>Constants.GPTQ_KV_*, and GPTQ_KV_VALUES_* or nothing.</summary>
  public int KvType;
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
      if (Failed(status)) GptqException.Check(status);
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

  internal static gptq_chat* Chat(Arena arena, IReadOnlyList<Message> messages) {
    var chat = (gptq_chat*)arena.Bytes(sizeof(gptq_chat));
    *chat = gptq_chat.New();
    var list = (gptq_message**)arena.Bytes(sizeof(gptq_message*) * messages.Count);
    for (int i = 0; i < messages.Count; i++) {
      list[i] = (gptq_message*)arena.Bytes(sizeof(gptq_message));
      *list[i] = gptq_message.New();
      list[i]->role = arena.Text(messages[i].Role, out list[i]->role_size);
      list[i]->text = arena.Text(messages[i].Text, out list[i]->text_size);
    }
    chat->flags = Constants.GPTQ_CHAT_ADD_GENERATION_PROMPT;
    chat->messages = list;
    chat->n_messages = (UIntPtr)messages.Count;
    return chat;
  }

  /// <summary>The model's chat template over the messages.</summary>
  public string RenderChat(IReadOnlyList<Message> messages) {
    using (var model = Hold())
    using (var arena = new Arena()) {
      gptq_chat* chat = Chat(arena, messages);
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
      var parameters = gptq_engine_params.New();
      parameters.flags = options.Exact ? (uint)Constants.GPTQ_ENGINE_EXACT : 0;
      parameters.max_sessions = GptqException.Count(options.MaxSessions, "MaxSessions");
      parameters.ctx_tokens = GptqException.Count(options.ContextTokens, "ContextTokens");
      parameters.batch_tokens = GptqException.Count(options.BatchTokens, "BatchTokens");
      parameters.logits_rows = GptqException.Count(options.LogitsRows, "LogitsRows");
      parameters.kv_bytes = options.KvBytes;
      parameters.kv_type = options.KvType;
      var error = gptq_error.New();
      IntPtr engine;
      GptqException.Check(Api.gptq_engine_create(model.Pointer, &parameters, &engine, &error), &error);
      return new Engine(this, engine);
    }
  }

  /// <summary>Makes a generated text one of some.</summary>
  public Constraint Choice(params string[] texts) {
    var json = new StringBuilder("[");
    foreach (string text in texts) {
      json.Append(json.Length > 1 ? ",\"" : "\"");
      foreach (char c in text)
        if (c == '"' || c == '\\') json.Append('\\').Append(c);
        else if (c < ' ') json.Append("\\u").Append(((int)c).ToString("x4"));
        else json.Append(c);
      json.Append('"');
    }
    return Compile(Constants.GPTQ_CONSTRAINT_CHOICE, json.Append(']').ToString());
  }
  /// <summary>Makes it match the expression as a whole. An exception's Offset is the byte where the expression was refused.</summary>
  public Constraint Regex(string expression) { return Compile(Constants.GPTQ_CONSTRAINT_REGEX, expression); }

  Constraint Compile(int kind, string source) {
    using (var model = Hold())
    using (var arena = new Arena()) {
      gptq_error* error = arena.Error();
      UIntPtr size;
      byte* text = arena.Text(source, out size);
      IntPtr constraint;
      GptqException.Check(Api.gptq_constraint_compile(model.Pointer, kind, text, size, &constraint, error), error);
      return new Constraint(constraint);
    }
  }
}

/// <summary>What a generated text must be: for GenerateOptions, of any number of generations at once.</summary>
public sealed class Constraint : GptqHandle {
  internal Constraint(IntPtr pointer) : base(pointer) { }
  protected override bool ReleaseHandle() {
    Api.gptq_constraint_destroy(handle);
    return true;
  }
}

}
