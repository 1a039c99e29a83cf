// SPDX-License-Identifier: Apache-2.0
//! What a generated text must be or must not have, and adapters.
use crate::error::{call, check};
use crate::source::Source;
use crate::{sys, Model, Result};
use std::ptr::{null_mut, NonNull};
use std::sync::Arc;

/// What a generated text must be, for `Generate::constraint`, or phrases that it never has, for `Generate::banned`; of any number of generations at
/// once. Cheap to clone.
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

/// A JSON array of strings.
fn list(texts: &[impl AsRef<str>]) -> String {
    let mut out = String::from("[");
    for text in texts {
        out += if out.len() > 1 { ",\"" } else { "\"" };
        for c in text.as_ref().chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                c if c < ' ' => out += &format!("\\u{:04x}", c as u32),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    out + "]"
}

impl Model {
    /// Makes a generated text one of some.
    pub fn choice(&self, texts: &[impl AsRef<str>]) -> Result<Constraint> {
        self.constraint(sys::GPTQ_CONSTRAINT_CHOICE, &list(texts))
    }
    /// Makes it match the expression as a whole. The error's offset is the byte where the expression was refused.
    pub fn regex(&self, expression: &str) -> Result<Constraint> {
        self.constraint(sys::GPTQ_CONSTRAINT_REGEX, expression)
    }
    /// Makes it JSON that the schema allows.
    pub fn json_schema(&self, schema: &str) -> Result<Constraint> {
        self.constraint(sys::GPTQ_CONSTRAINT_JSON_SCHEMA, schema)
    }
    /// The same, each value in the shortest way to write it.
    pub fn json_schema_compact(&self, schema: &str) -> Result<Constraint> {
        self.constraint(sys::GPTQ_CONSTRAINT_JSON_COMPACT, schema)
    }
    /// Makes it a text of the grammar, as llama.cpp writes them.
    pub fn grammar(&self, gbnf: &str) -> Result<Constraint> {
        self.constraint(sys::GPTQ_CONSTRAINT_GRAMMAR, gbnf)
    }
    /// Free text until a tag begins, for tool calls; the source is JSON, as gptq.h says.
    pub fn tags(&self, source: &str) -> Result<Constraint> {
        self.constraint(sys::GPTQ_CONSTRAINT_TAGS, source)
    }
    /// Phrases that the text never has, in large and small letters.
    pub fn banned(&self, phrases: &[impl AsRef<str>]) -> Result<Constraint> {
        self.constraint(sys::GPTQ_CONSTRAINT_BANNED, &list(phrases))
    }
    /// kind: `gptq::sys::GPTQ_CONSTRAINT_*`.
    pub fn constraint(&self, kind: i32, source: &str) -> Result<Constraint> {
        let mut out = null_mut();
        let (at, size) = (source.as_ptr().cast(), source.len());
        call(|error| unsafe { sys::gptq_constraint_compile(self.pointer(), kind, at, size, &mut out, error) })?;
        Ok(Constraint(Arc::new(Compiled(NonNull::new(out).expect("a constraint")))))
    }

    /// A `.gptq-lora` file, for [`Session::set_adapter`](crate::Session::set_adapter).
    pub fn adapter(&self, source: Source<'_>) -> Result<Adapter> {
        let mut out = null_mut();
        source.with(|source, error| unsafe { sys::gptq_adapter_load(self.pointer(), source, &mut out, error) })?;
        Ok(Adapter(Arc::new(Loaded(NonNull::new(out).expect("an adapter")))))
    }
}

/// What sessions of the model can be changed by. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Adapter(Arc<Loaded>);

#[derive(Debug)]
struct Loaded(NonNull<sys::gptq_adapter>);
// The C API: any thread.
unsafe impl Send for Loaded {}
unsafe impl Sync for Loaded {}

impl Drop for Loaded {
    fn drop(&mut self) {
        unsafe { sys::gptq_adapter_release(self.0.as_ptr()) }
    }
}

pub use sys::gptq_adapter_info as AdapterInfo;

impl Adapter {
    pub(crate) fn pointer(&self) -> *mut sys::gptq_adapter {
        self.0 .0.as_ptr()
    }
    pub fn info(&self) -> Result<AdapterInfo> {
        let mut info = AdapterInfo::default();
        check(unsafe { sys::gptq_adapter_info_get(self.pointer(), &mut info) })?;
        Ok(info)
    }
}
