// SPDX-License-Identifier: Apache-2.0
//! Closures that C calls. A panic does not cross C's frames: it stops the call and goes on above it.
use crate::sys;
use std::any::Any;
use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};

pub(crate) type Panic = Option<Box<dyn Any + Send>>;

pub(crate) struct Callback<F> {
    pub function: F,
    pub panic: Panic,
}

impl<F> Callback<F> {
    pub fn new(function: F) -> Self {
        Callback { function, panic: None }
    }
    pub fn user(&mut self) -> *mut c_void {
        std::ptr::from_mut(self).cast()
    }
    /// # Safety
    /// user is what `user()` gave.
    pub unsafe fn run<R>(user: *mut c_void, failed: R, call: impl FnOnce(&mut F) -> R) -> R {
        let this = &mut *user.cast::<Self>();
        if this.panic.is_some() {
            return failed;
        }
        match catch_unwind(AssertUnwindSafe(|| call(&mut this.function))) {
            Ok(result) => result,
            Err(panic) => {
                this.panic = Some(panic);
                failed
            }
        }
    }
    pub fn finish(self) {
        if let Some(panic) = self.panic {
            resume_unwind(panic);
        }
    }
}

/// # Safety
/// C gives text of that size.
pub(crate) unsafe fn text<'a>(text: *const c_char, size: usize) -> std::borrow::Cow<'a, str> {
    match text.is_null() {
        true => "".into(),
        false => String::from_utf8_lossy(std::slice::from_raw_parts(text.cast(), size)),
    }
}

pub(crate) fn text_fn<F: FnMut(&str) -> ControlFlow<()>>(_: &Callback<F>) -> sys::gptq_text_fn {
    unsafe extern "C" fn thunk<F: FnMut(&str) -> ControlFlow<()>>(user: *mut c_void, at: *const c_char, size: usize) -> i32 {
        Callback::<F>::run(user, 1, |f| f(&text(at, size)).is_break() as i32)
    }
    Some(thunk::<F>)
}

pub(crate) fn progress_fn<F: FnMut(u32, f32) -> ControlFlow<()>>(_: &Callback<F>) -> sys::gptq_progress_fn {
    unsafe extern "C" fn thunk<F: FnMut(u32, f32) -> ControlFlow<()>>(user: *mut c_void, phase: u32, permille: u32) -> i32 {
        Callback::<F>::run(user, 1, |f| f(phase, permille as f32 / 1000.0).is_break() as i32)
    }
    Some(thunk::<F>)
}

pub(crate) fn report_fn<F: FnMut(&sys::gptq_quantize_report)>(_: &Callback<F>) -> sys::gptq_quantize_report_fn {
    unsafe extern "C" fn thunk<F: FnMut(&sys::gptq_quantize_report)>(user: *mut c_void, report: *const sys::gptq_quantize_report) {
        Callback::<F>::run(user, (), |f| f(&*report))
    }
    Some(thunk::<F>)
}
