// SPDX-License-Identifier: Apache-2.0
use crate::error::{call, check, sized};
use crate::{sys, Engine, EngineOptions, Result, Runtime};
use std::ptr::{null, null_mut, NonNull};
use std::sync::Arc;

pub use sys::gptq_model_info as ModelInfo;

/// Weights, tokenizer and chat template of a `.gptq` file. Threads may share it; cheap to clone.
pub struct Model {
    pointer: NonNull<sys::gptq_model>,
    runtime: Runtime,
}
// The C API: model functions may be called from any thread.
unsafe impl Send for Model {}
unsafe impl Sync for Model {}

impl Clone for Model {
    fn clone(&self) -> Self {
        unsafe { sys::gptq_model_retain(self.pointer()) };
        Model { pointer: self.pointer, runtime: self.runtime.clone() }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        unsafe { sys::gptq_model_release(self.pointer()) }
    }
}

/// A message of a conversation.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    pub role: &'a str,
    pub text: &'a str,
}

/// What a generated text must be: for `Generate::constraint`, of any number of generations at once. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Constraint(Arc<Compiled>);

#[derive(Debug)]
struct Compiled(NonNull<sys::gptq_constraint>);
// The C API: any thread.
unsafe impl Send for Compiled {}
unsafe impl Sync for Compiled {}

impl Drop for Compiled {
    fn drop(&mut self) {
        unsafe { sys::gptq_constraint_destroy(self.0.as_ptr()) }
    }
}

impl Constraint {
    pub(crate) fn pointer(&self) -> *mut sys::gptq_constraint {
        self.0 .0.as_ptr()
    }
}

/// A JSON string.
fn quote(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => out += &format!("\\u{:04x}", c as u32),
            c => out.push(c),
        }
    }
    out + "\""
}

/// gptq_chat over messages, for the time of f.
pub(crate) fn with_chat<R>(messages: &[Message<'_>], f: impl FnOnce(&sys::gptq_chat) -> R) -> R {
    let structs: Vec<_> = messages
        .iter()
        .map(|message| sys::gptq_message {
            role: message.role.as_ptr().cast(),
            role_size: message.role.len(),
            text: message.text.as_ptr().cast(),
            text_size: message.text.len(),
            ..Default::default()
        })
        .collect();
    let pointers: Vec<*const _> = structs.iter().map(std::ptr::from_ref).collect();
    f(&sys::gptq_chat {
        flags: sys::GPTQ_CHAT_ADD_GENERATION_PROMPT as u32,
        messages: pointers.as_ptr(),
        n_messages: pointers.len(),
        ..Default::default()
    })
}

impl Model {
    pub(crate) fn new(runtime: Runtime, pointer: NonNull<sys::gptq_model>) -> Self {
        Model { pointer, runtime }
    }
    pub(crate) fn pointer(&self) -> *mut sys::gptq_model {
        self.pointer.as_ptr()
    }
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub fn info(&self) -> ModelInfo {
        let mut info = ModelInfo::default();
        unsafe { sys::gptq_model_info_get(self.pointer(), &mut info) };
        info
    }

    /// Text of the file: "name", "license", "chat_template", ...
    pub fn meta(&self, key: &str) -> Result<String> {
        let mut bytes: Vec<u8> = sized(|buffer: *mut u8, cap, needed| {
            check(unsafe { sys::gptq_model_meta(self.pointer(), key.as_ptr().cast(), key.len(), buffer.cast(), cap, needed) })
        })?;
        bytes.pop(); // the NUL
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// flags: `gptq::sys::GPTQ_TEXT_*`.
    pub fn tokenize(&self, text: &str, flags: i32) -> Result<Vec<i32>> {
        sized(|buffer, cap, needed| {
            let (at, size) = (text.as_ptr().cast(), text.len());
            check(unsafe { sys::gptq_tokenize(self.pointer(), at, size, flags as u32, buffer, cap, needed) })
        })
    }

    /// Bytes that are no UTF-8 become U+FFFD.
    pub fn detokenize(&self, tokens: &[i32], flags: i32) -> Result<String> {
        let bytes: Vec<u8> = sized(|buffer: *mut u8, cap, needed| {
            let (at, size) = (tokens.as_ptr(), tokens.len());
            check(unsafe { sys::gptq_detokenize(self.pointer(), at, size, flags as u32, buffer.cast(), cap, needed) })
        })?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The model's chat template over the messages.
    pub fn render_chat(&self, messages: &[Message<'_>]) -> Result<String> {
        let bytes: Vec<u8> = with_chat(messages, |chat| {
            sized(|buffer: *mut u8, cap, needed| {
                call(|error| unsafe { sys::gptq_chat_render(self.pointer(), chat, buffer.cast(), cap, needed, error) })
            })
        })?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Makes a generated text one of some.
    pub fn choice(&self, texts: &[&str]) -> Result<Constraint> {
        let quoted: Vec<String> = texts.iter().map(|text| quote(text)).collect();
        self.constraint(sys::GPTQ_CONSTRAINT_CHOICE, &format!("[{}]", quoted.join(",")))
    }
    /// Makes it match the expression as a whole. The error's offset is the byte where the expression was refused.
    pub fn regex(&self, expression: &str) -> Result<Constraint> {
        self.constraint(sys::GPTQ_CONSTRAINT_REGEX, expression)
    }
    fn constraint(&self, kind: i32, source: &str) -> Result<Constraint> {
        let mut out = null_mut();
        let (at, size) = (source.as_ptr().cast(), source.len());
        call(|error| unsafe { sys::gptq_constraint_compile(self.pointer(), kind, at, size, &mut out, error) })?;
        Ok(Constraint(Arc::new(Compiled(NonNull::new(out).expect("a constraint")))))
    }

    pub fn engine(&self, options: &EngineOptions) -> Result<Engine> {
        let params = sys::gptq_engine_params {
            flags: if options.exact { sys::GPTQ_ENGINE_EXACT as u32 } else { 0 },
            next: null(),
            kv_bytes: options.kv_bytes,
            max_sessions: options.max_sessions,
            ctx_tokens: options.ctx_tokens,
            batch_tokens: options.batch_tokens,
            logits_rows: options.logits_rows,
            kv_type: options.kv_type,
            ..Default::default()
        };
        let mut out = null_mut();
        call(|error| unsafe { sys::gptq_engine_create(self.pointer(), &params, &mut out, error) })?;
        Ok(Engine::new(self.clone(), NonNull::new(out).expect("an engine")))
    }
}
