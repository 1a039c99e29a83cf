// SPDX-License-Identifier: Apache-2.0
use crate::chat::with_chat;
use crate::error::{call, check, check_or, sized};
use crate::source::every;
use crate::{sys, ChatOptions, Engine, EngineOptions, Message, Result, Runtime};
use std::ptr::{null, null_mut, NonNull};

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

/// What a token stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'m> {
    pub bytes: &'m [u8],
    pub special: bool,
    /// Of one byte alone.
    pub byte: bool,
    /// Not of the tokenizer's own vocabulary.
    pub added: bool,
    /// It ends a generation.
    pub end: bool,
}

/// Layers that are side by side on one device; kind: `gptq::sys::GPTQ_DEVICE_*`.
pub use sys::gptq_placement as Placement;

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
            let status = unsafe { sys::gptq_model_meta(self.pointer(), key.as_ptr().cast(), key.len(), buffer.cast(), cap, needed) };
            check_or(status, || format!("the model has no text for {key:?}"))
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

    /// The bytes that a token stands for, and what it is.
    pub fn token(&self, token: i32) -> Result<Token<'_>> {
        let (mut at, mut size, mut attributes) = (null(), 0, 0);
        check(unsafe { sys::gptq_token_bytes(self.pointer(), token, &mut at, &mut size, &mut attributes) })?;
        let bytes = if size == 0 { &[] } else { unsafe { std::slice::from_raw_parts(at.cast::<u8>(), size) } };
        let is = |flag: i32| attributes & flag as u32 != 0;
        Ok(Token {
            bytes,
            special: is(sys::GPTQ_TOKEN_SPECIAL),
            byte: is(sys::GPTQ_TOKEN_BYTE),
            added: is(sys::GPTQ_TOKEN_ADDED),
            end: is(sys::GPTQ_TOKEN_END),
        })
    }

    /// Which layers are on which device, in their order.
    pub fn placements(&self) -> Result<Vec<Placement>> {
        every(|index, out| check(unsafe { sys::gptq_model_placement(self.pointer(), index, out) }))
    }

    /// The model's chat template over the messages.
    pub fn render_chat(&self, messages: &[Message<'_>]) -> Result<String> {
        self.render_chat_with(messages, &ChatOptions::default())
    }
    pub fn render_chat_with(&self, messages: &[Message<'_>], options: &ChatOptions<'_>) -> Result<String> {
        let bytes: Vec<u8> = with_chat(messages, options, |chat| {
            sized(|buffer: *mut u8, cap, needed| {
                call(|error| unsafe { sys::gptq_chat_render(self.pointer(), chat, buffer.cast(), cap, needed, error) })
            })
        })?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    pub fn engine(&self, options: &EngineOptions) -> Result<Engine> {
        let params = options.params();
        let mut out = null_mut();
        call(|error| unsafe { sys::gptq_engine_create(self.pointer(), &params, &mut out, error) })?;
        Ok(Engine::new(self.clone(), NonNull::new(out).expect("an engine"), options.best_logprobs))
    }
}
