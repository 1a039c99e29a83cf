// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]
mod callback;
mod chat;
mod constraint;
mod engine;
mod error;
mod generate;
mod model;
mod runtime;
mod session;
mod source;

pub use chat::{ChatOptions, Message};
pub use constraint::{Adapter, AdapterInfo, Constraint};
pub use engine::{Engine, EngineOptions, MemoryInfo, Step};
pub use error::{Error, Result, Status};
pub use generate::{Generate, Pooling};
pub use gptq_sys as sys;
pub use model::{Model, ModelInfo, Placement, Token};
pub use runtime::{Device, LoadOptions, MemoryEstimate, Phase, QuantizeEstimate, QuantizeOptions, Report, Runtime, RuntimeOptions};
pub use session::{Cancel, Logits, Mark, Marked, Score, Session, SessionId, SessionInfo, StopReason, Stream, TokenLogprob};
pub use source::Source;

/// One line: version, compiler, kernel levels compiled in.
pub fn build_info() -> &'static str {
    unsafe { std::ffi::CStr::from_ptr(sys::gptq_build_info()) }.to_str().unwrap_or("")
}

/// The library's version, as (major, minor, patch).
pub fn version() -> (u32, u32, u32) {
    let number = unsafe { sys::gptq_version() };
    (number >> 16, number >> 8 & 255, number & 255)
}
