// SPDX-License-Identifier: Apache-2.0
use crate::sys;

/// A message of a conversation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Message<'a> {
    pub role: &'a str,
    pub text: &'a str,
    /// An object of what else the template may ask the message for: tool calls, names; or "".
    pub extra_json: &'a str,
}

impl<'a> Message<'a> {
    pub fn new(role: &'a str, text: &'a str) -> Self {
        Message { role, text, extra_json: "" }
    }
}

/// How a conversation becomes a sequence. All zero: as the model's template has it, with the beginning of an answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChatOptions<'a> {
    /// Without what makes the model answer.
    pub no_generation_prompt: bool,
    /// Leave the oldest turns out, whole ones, where the conversation does not fit: `SessionInfo::n_dropped`.
    pub drop_oldest: bool,
    /// Room for the reply; 0 = a quarter of the context.
    pub reserve_tokens: u32,
    /// When turns must go, at most so many tokens stay; 0 = half of the rest.
    pub keep_tokens: u32,
    /// An array, or "".
    pub tools_json: &'a str,
    /// An object of further variables of the template, or "".
    pub variables_json: &'a str,
    /// Instead of the model's.
    pub template: Option<&'a str>,
}

/// gptq_chat over messages, for the time of f.
pub(crate) fn with_chat<R>(messages: &[Message<'_>], options: &ChatOptions<'_>, f: impl FnOnce(&sys::gptq_chat) -> R) -> R {
    let structs: Vec<_> = messages
        .iter()
        .map(|message| sys::gptq_message {
            role: message.role.as_ptr().cast(),
            role_size: message.role.len(),
            text: message.text.as_ptr().cast(),
            text_size: message.text.len(),
            extra_json: message.extra_json.as_ptr().cast(),
            extra_json_size: message.extra_json.len(),
            ..Default::default()
        })
        .collect();
    let pointers: Vec<*const _> = structs.iter().map(std::ptr::from_ref).collect();
    let prompt = if options.no_generation_prompt { 0 } else { sys::GPTQ_CHAT_ADD_GENERATION_PROMPT };
    let drop = if options.drop_oldest { sys::GPTQ_CHAT_DROP_OLDEST } else { 0 };
    let mut chat = sys::gptq_chat {
        flags: (prompt | drop) as u32,
        messages: pointers.as_ptr(),
        n_messages: pointers.len(),
        reserve_tokens: options.reserve_tokens,
        keep_tokens: options.keep_tokens,
        tools_json: options.tools_json.as_ptr().cast(),
        tools_json_size: options.tools_json.len(),
        kwargs_json: options.variables_json.as_ptr().cast(),
        kwargs_json_size: options.variables_json.len(),
        ..Default::default()
    };
    if let Some(template) = options.template {
        (chat.template_override, chat.template_override_size) = (template.as_ptr().cast(), template.len());
    }
    f(&chat)
}
