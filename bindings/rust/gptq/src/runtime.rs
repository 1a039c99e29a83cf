// SPDX-License-Identifier: Apache-2.0
use crate::callback::{progress_fn, report_fn, text, Callback};
use crate::error::{call, tell, text_of};
use crate::source::{every, Source};
use crate::{sys, EngineOptions, Model, Result};
use std::ffi::{c_char, c_void, CStr};
use std::ops::ControlFlow;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;
use std::ptr::{null, null_mut, NonNull};
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
    /// `gptq::sys::GPTQ_ORDER_*`.
    pub order: i32,
    /// With zero points.
    pub asymmetric: bool,
    /// With `GPTQ_ORDER_ACT`: groups as the columns stand.
    pub static_groups: bool,
    /// Of the mean of the Hessian's diagonal; 0 = 0.01.
    pub damp: f64,
    pub head_bits: u32,
    pub head_group_size: i32,
    /// Instead of `bits` a budget: of the whole file, or the mean over the layers' matrices; 0 = none.
    pub file_bytes_max: u64,
    pub bits_per_weight: f64,
    /// For calibration: text or tokens.
    pub text: Option<String>,
    pub tokens: Vec<i32>,
    /// How many tokens the first of a row counts for; 0 = 32.
    pub first_token_weight: f64,
    pub rows: u32,
    pub row_tokens: u32,
    /// Aim at the original model's outputs: closer to it, in about twice the time.
    pub aim: bool,
    /// The algorithm as published, nothing more.
    pub reference: bool,
    /// Replace an existing file.
    pub replace: bool,
}

impl QuantizeOptions {
    fn params(&self) -> sys::gptq_quantize_params {
        let flag = |wanted, flag| if wanted { flag as u32 } else { 0 };
        let mut params = sys::gptq_quantize_params {
            flags: flag(self.replace, sys::GPTQ_QUANTIZE_REPLACE)
                | flag(self.aim, sys::GPTQ_QUANTIZE_AIM)
                | flag(self.reference, sys::GPTQ_QUANTIZE_REFERENCE),
            head_bits: self.head_bits,
            head_group_size: self.head_group_size,
            first_token_weight: self.first_token_weight,
            file_bytes_max: self.file_bytes_max,
            bits_per_weight: self.bits_per_weight,
            rows: self.rows,
            row_tokens: self.row_tokens,
            ..Default::default()
        };
        if let Some(text) = &self.text {
            (params.text, params.text_size) = (text.as_ptr().cast(), text.len());
        }
        if !self.tokens.is_empty() {
            (params.tokens, params.n_tokens) = (self.tokens.as_ptr(), self.tokens.len());
        }
        params.defaults.flags =
            flag(self.asymmetric, sys::GPTQ_QUANT_ASYMMETRIC) | flag(self.static_groups, sys::GPTQ_QUANT_STATIC_GROUPS);
        (params.defaults.bits, params.defaults.group_size) = (self.bits, self.group_size);
        (params.defaults.order, params.defaults.damp) = (self.order, self.damp);
        params
    }
}

pub use sys::{gptq_memory_estimate as MemoryEstimate, gptq_quantize_estimate as QuantizeEstimate};

/// Where a model's layers go. Default: all on the CPU.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The ordinal of a CUDA GPU.
    pub cuda: Option<i32>,
    /// The last so many layers, and the head, go there; `None`: all that fit.
    pub device_layers: Option<u32>,
    /// Hold no more there, engines included; 0 = what is free.
    pub device_bytes_max: u64,
}

impl LoadOptions {
    fn params(&self) -> sys::gptq_model_params {
        sys::gptq_model_params {
            device_kind: self.cuda.map_or(0, |_| sys::GPTQ_DEVICE_CUDA),
            device_ordinal: self.cuda.unwrap_or(0),
            device_layers: self.device_layers.map_or(0, |n| if n == 0 { u32::MAX } else { n }),
            device_bytes_max: self.device_bytes_max,
            ..Default::default()
        }
    }
}

/// A GPU.
#[derive(Clone, Debug)]
pub struct Device {
    pub name: String,
    pub ordinal: i32,
    /// 90 for compute capability 9.0.
    pub capability: u32,
    pub bytes_total: u64,
    pub bytes_free: u64,
    pub uuid: [u8; 16],
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
    let message = text(at, size);
    if level == sys::GPTQ_LOG_ERROR {
        tell(&message);
    }
    if let Some(log) = user.cast::<Box<LogFn>>().as_ref() {
        let _ = catch_unwind(AssertUnwindSafe(|| log(level, &message)));
    }
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
            log: Some(log_thunk),
            ..Default::default()
        };
        if let Some(log) = &log {
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

    /// The same of memory, of a stream or of a part of a file, and to a GPU.
    pub fn load_from(
        &self,
        source: Source<'_>,
        options: &LoadOptions,
        mut progress: impl FnMut(Phase, f32) -> ControlFlow<()>,
    ) -> Result<Model> {
        let mut progress = Callback::new(|phase, done| progress(Phase::of(phase), done));
        let params =
            sys::gptq_model_params { progress: progress_fn(&progress), progress_user: progress.user(), ..options.params() };
        let mut out = null_mut();
        let result = source.with(|source, error| unsafe { sys::gptq_model_load_from(self.pointer(), source, &params, &mut out, error) });
        progress.finish();
        result?;
        Ok(Model::new(self.clone(), NonNull::new(out).expect("a model")))
    }

    /// What loading, and one engine (`None`: none), would hold.
    pub fn estimate(&self, source: Source<'_>, options: &LoadOptions, engine: Option<&EngineOptions>) -> Result<MemoryEstimate> {
        let (params, engine) = (options.params(), engine.map(EngineOptions::params));
        let engine = engine.as_ref().map_or(null(), std::ptr::from_ref);
        let mut out = MemoryEstimate::default();
        source.with(|source, error| unsafe { sys::gptq_model_estimate(self.pointer(), source, &params, engine, &mut out, error) })?;
        Ok(out)
    }

    /// Loads the CUDA backend: where the system's loader has it, or that file.
    pub fn load_backend(&self, path: Option<&Path>) -> Result<()> {
        let path = path.map(Path::to_string_lossy);
        let (at, size) = path.as_ref().map_or((null(), 0), |path| (path.as_ptr().cast(), path.len()));
        call(|error| unsafe { sys::gptq_runtime_load_backend(self.pointer(), at, size, error) }).map(|_| ())
    }

    /// The GPUs; an error where no backend is loaded.
    pub fn devices(&self) -> Result<Vec<Device>> {
        let all = every(|index, out| call(|error| unsafe { sys::gptq_runtime_device(self.pointer(), index, out, error) }))?;
        Ok(all
            .iter()
            .map(|one: &sys::gptq_device_info| Device {
                name: text_of(&one.name),
                ordinal: one.ordinal,
                capability: one.capability,
                bytes_total: one.bytes_total,
                bytes_free: one.bytes_free,
                uuid: one.uuid,
            })
            .collect())
    }

    /// What [`Runtime::quantize`] would take.
    pub fn quantize_estimate(&self, source: Source<'_>, options: &QuantizeOptions) -> Result<QuantizeEstimate> {
        let mut out = QuantizeEstimate::default();
        let params = options.params();
        source.with(|source, error| unsafe { sys::gptq_quantize_estimate_get(self.pointer(), source, &params, &mut out, error) })?;
        Ok(out)
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
        let params = sys::gptq_quantize_params {
            progress: progress_fn(&progress),
            progress_user: progress.user(),
            report: report_fn(&report),
            report_user: report.user(),
            ..options.params()
        };
        let result =
            call(|error| unsafe { sys::gptq_quantize(self.pointer(), &from, target.as_ptr().cast(), target.len(), &params, error) });
        progress.finish();
        report.finish();
        result.map(|_| ())
    }
}
