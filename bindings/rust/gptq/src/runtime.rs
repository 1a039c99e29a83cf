// SPDX-License-Identifier: Apache-2.0
use crate::callback::{progress_fn, report_fn, text, Callback};
use crate::error::call;
use crate::{sys, Model, Result};
use std::ffi::{c_char, c_void, CStr};
use std::ops::ControlFlow;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;
use std::ptr::{null_mut, NonNull};
use std::sync::Arc;

type LogFn = dyn Fn(i32, &str) + Send + Sync;

/// What every other object uses: threads, memory, log. Cheap to clone.
#[derive(Clone)]
pub struct Runtime(Arc<Inner>);

struct Inner {
    pointer: NonNull<sys::gptq_runtime>,
    _log: Option<Box<Box<LogFn>>>,
}
// The C API: runtime functions may be called from any thread.
unsafe impl Send for Inner {}
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        unsafe { sys::gptq_runtime_release(self.pointer.as_ptr()) }
    }
}

#[derive(Default)]
pub struct RuntimeOptions {
    /// 0 = one for each physical core.
    pub threads: u32,
    /// Refuse to hold more; 0 = no limit.
    pub host_bytes_max: u64,
    pub log_level: i32,
    /// May be called from any thread that is inside the library. A panic in it is dropped.
    pub log: Option<Box<LogFn>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    Load,
    Sample,
    Quantize,
    Other,
}

impl Phase {
    pub(crate) fn of(phase: u32) -> Self {
        match phase as i32 {
            sys::GPTQ_PHASE_LOAD => Phase::Load,
            sys::GPTQ_PHASE_SAMPLE => Phase::Sample,
            sys::GPTQ_PHASE_QUANTIZE => Phase::Quantize,
            _ => Phase::Other,
        }
    }
}

/// All zero: 4 bits in groups of 128, calibrated with text that the model writes itself.
#[derive(Clone, Debug, Default)]
pub struct QuantizeOptions {
    pub bits: u32,
    pub group_size: i32,
    pub head_bits: u32,
    pub text: Option<String>,
    pub rows: u32,
    pub row_tokens: u32,
    /// Replace an existing file.
    pub replace: bool,
}

/// What became of one matrix.
#[derive(Clone, Debug)]
pub struct Report {
    pub name: String,
    pub bits: u32,
    pub group_size: i32,
    /// Squared error of its output, as a part of the squared output.
    pub error: f64,
}

unsafe extern "C" fn log_thunk(user: *mut c_void, level: i32, at: *const c_char, size: usize) {
    let log = &*user.cast::<Box<LogFn>>();
    let _ = catch_unwind(AssertUnwindSafe(|| log(level, &text(at, size))));
}

impl Runtime {
    pub fn new() -> Result<Self> {
        Self::with(RuntimeOptions::default())
    }

    pub fn with(options: RuntimeOptions) -> Result<Self> {
        let log = options.log.map(Box::new);
        let mut desc = sys::gptq_runtime_desc {
            threads: options.threads,
            host_bytes_max: options.host_bytes_max,
            log_level: options.log_level,
            ..Default::default()
        };
        if let Some(log) = &log {
            desc.log = Some(log_thunk);
            desc.log_user = std::ptr::from_ref::<Box<LogFn>>(log).cast_mut().cast();
        }
        let mut out = null_mut();
        call(|error| unsafe { sys::gptq_runtime_create(&desc, &mut out, error) })?;
        Ok(Runtime(Arc::new(Inner { pointer: NonNull::new(out).expect("a runtime"), _log: log })))
    }

    pub(crate) fn pointer(&self) -> *mut sys::gptq_runtime {
        self.0.pointer.as_ptr()
    }

    /// The kernel levels in use.
    pub fn kernels(&self) -> String {
        unsafe { CStr::from_ptr(sys::gptq_runtime_kernels(self.pointer())) }.to_string_lossy().into_owned()
    }

    pub fn load(&self, path: impl AsRef<Path>) -> Result<Model> {
        self.load_with(path, |_, _| ControlFlow::Continue(()))
    }

    /// progress gets the phase and how much of it is done, 0 to 1; `Break` cancels.
    pub fn load_with(&self, path: impl AsRef<Path>, mut progress: impl FnMut(Phase, f32) -> ControlFlow<()>) -> Result<Model> {
        let path = path.as_ref().to_string_lossy();
        let mut progress = Callback::new(|phase, done| progress(Phase::of(phase), done));
        let params =
            sys::gptq_model_params { progress: progress_fn(&progress), progress_user: progress.user(), ..Default::default() };
        let mut out = null_mut();
        let result =
            call(|error| unsafe { sys::gptq_model_load(self.pointer(), path.as_ptr().cast(), path.len(), &params, &mut out, error) });
        progress.finish();
        result?;
        Ok(Model::new(self.clone(), NonNull::new(out).expect("a model")))
    }

    /// Makes a model with few bits of one with 16 or 32. Blocks; what is done is kept, so that the same call goes on after a cancel.
    pub fn quantize(
        &self,
        source: impl AsRef<Path>,
        target: impl AsRef<Path>,
        options: &QuantizeOptions,
        mut progress: impl FnMut(Phase, f32) -> ControlFlow<()>,
        mut report: impl FnMut(Report),
    ) -> Result<()> {
        let (source, target) = (source.as_ref().to_string_lossy(), target.as_ref().to_string_lossy());
        let mut progress = Callback::new(|phase, done| progress(Phase::of(phase), done));
        let mut report = Callback::new(|one: &sys::gptq_quantize_report| {
            let name = unsafe { text(one.name, one.name_size) }.into_owned();
            report(Report { name, bits: one.bits, group_size: one.group_size, error: one.error })
        });
        let from = sys::gptq_source { path: source.as_ptr().cast(), path_size: source.len(), ..Default::default() };
        let mut params = sys::gptq_quantize_params {
            flags: if options.replace { sys::GPTQ_QUANTIZE_REPLACE as u32 } else { 0 },
            head_bits: options.head_bits,
            rows: options.rows,
            row_tokens: options.row_tokens,
            progress: progress_fn(&progress),
            progress_user: progress.user(),
            report: report_fn(&report),
            report_user: report.user(),
            ..Default::default()
        };
        if let Some(text) = &options.text {
            (params.text, params.text_size) = (text.as_ptr().cast(), text.len());
        }
        (params.defaults.bits, params.defaults.group_size) = (options.bits, options.group_size);
        let result =
            call(|error| unsafe { sys::gptq_quantize(self.pointer(), &from, target.as_ptr().cast(), target.len(), &params, error) });
        progress.finish();
        report.finish();
        result.map(|_| ())
    }
}
