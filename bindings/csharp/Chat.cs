// SPDX-License-Identifier: Apache-2.0
using System;
using System.Collections.Generic;
using Gptq.Native;

namespace Gptq {

/// <summary>One of a conversation. ExtraJson: an object of what else the template may ask it for; may be null.</summary>
public sealed class Message {
  public readonly string Role, Text, ExtraJson;
  public Message(string role, string text, string extraJson = null) {
    if (role == null || text == null) throw new ArgumentNullException(role == null ? "role" : "text");
    Role = role;
    Text = text;
    ExtraJson = extraJson;
  }
}

/// <summary>How a conversation becomes a sequence.</summary>
public sealed class ChatOptions {
  public bool AddGenerationPrompt = true;
  /// <summary>Leave the oldest turns out, whole ones, where the conversation does not fit: SessionInfo.Dropped.</summary>
  public bool DropOldest;
  /// <summary>Room for the reply, 0 = a quarter of the context; when turns must go, at most so many tokens stay, 0 = half of the rest.</summary>
  public int ReserveTokens, KeepTokens;
  /// <summary>An array; an object of further variables of the template; a template instead of the model's. Each may be null.</summary>
  public string ToolsJson, VariablesJson, Template;

  internal static unsafe gptq_chat* Chat(Arena arena, IReadOnlyList<Message> messages, ChatOptions options) {
    options = options ?? new ChatOptions();
    var chat = (gptq_chat*)arena.Bytes(sizeof(gptq_chat));
    *chat = gptq_chat.New();
    var list = (gptq_message**)arena.Bytes(sizeof(gptq_message*) * messages.Count);
    for (int i = 0; i < messages.Count; i++) {
      list[i] = (gptq_message*)arena.Bytes(sizeof(gptq_message));
      *list[i] = gptq_message.New();
      list[i]->role = arena.Text(messages[i].Role, out list[i]->role_size);
      list[i]->text = arena.Text(messages[i].Text, out list[i]->text_size);
      list[i]->extra_json = arena.TextOrNull(messages[i].ExtraJson, out list[i]->extra_json_size);
    }
    chat->flags = (options.AddGenerationPrompt ? (uint)Constants.GPTQ_CHAT_ADD_GENERATION_PROMPT : 0) |
                  (options.DropOldest ? (uint)Constants.GPTQ_CHAT_DROP_OLDEST : 0);
    chat->messages = list;
    chat->n_messages = (UIntPtr)messages.Count;
    chat->reserve_tokens = GptqException.Count(options.ReserveTokens, "ReserveTokens");
    chat->keep_tokens = GptqException.Count(options.KeepTokens, "KeepTokens");
    chat->tools_json = arena.TextOrNull(options.ToolsJson, out chat->tools_json_size);
    chat->kwargs_json = arena.TextOrNull(options.VariablesJson, out chat->kwargs_json_size);
    chat->template_override = arena.TextOrNull(options.Template, out chat->template_override_size);
    return chat;
  }
}

}
