// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]
mod callback;
mod engine;
mod error;
mod model;
mod runtime;
mod session;

pub use engine::{Engine, EngineOptions, Step};
pub use error::{Error, Result, Status};
pub use gptq_sys as sys;
pub use model::{Constraint, Message, Model, ModelInfo};
pub use runtime::{Phase, QuantizeOptions, Report, Runtime, RuntimeOptions};
pub use session::{Cancel, Generate, Logits, Mark, Marked, Session, SessionInfo, StopReason, Stream};

/// The library's version, as (major, minor, patch).
pub fn version() -> (u32, u32, u32) {
    let number = unsafe { sys::gptq_version() };
    (number >> 16, number >> 8 & 255, number & 255)
}
