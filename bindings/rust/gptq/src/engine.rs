// SPDX-License-Identifier: Apache-2.0
//! An engine with its sessions is used by one thread at a time: a lock sees to that.
use crate::error::{call, check, Error};
use crate::source::strings;
use crate::{sys, Model, Pooling, Result, Session, SessionId, Source};
use std::ptr::{null, null_mut, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

/// All zero: one session, the model's context, at most 4096 tokens.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    pub max_sessions: u32,
    pub ctx_tokens: u32,
    pub kv_bytes: u64,
    pub page_tokens: u32,
    pub batch_tokens: u32,
    pub logits_rows: u32,
    /// Of each token's best log-probabilities so many are kept for `GPTQ_GEN_LOGPROBS`, at most 20.
    pub best_logprobs: u32,
    /// Room for adapters of this rank; otherwise it is taken when the first is attached.
    pub adapter_rank: u32,
    /// float32 activations.
    pub exact: bool,
    /// bfloat16 activations; not with `exact`.
    pub bf16: bool,
    /// `sys::GPTQ_KV_*`, and `sys::GPTQ_KV_VALUES_*` or nothing.
    pub kv_type: i32,
}

impl EngineOptions {
    pub(crate) fn params(&self) -> sys::gptq_engine_params {
        let exact = if self.exact { sys::GPTQ_ENGINE_EXACT } else { 0 };
        let bf16 = if self.bf16 { sys::GPTQ_ENGINE_BF16 } else { 0 };
        sys::gptq_engine_params {
            flags: (exact | bf16) as u32,
            kv_bytes: self.kv_bytes,
            max_sessions: self.max_sessions,
            ctx_tokens: self.ctx_tokens,
            page_tokens: self.page_tokens,
            batch_tokens: self.batch_tokens,
            logits_rows: self.logits_rows,
            best_logprobs: self.best_logprobs,
            adapter_rank: self.adapter_rank,
            kv_type: self.kv_type,
            ..Default::default()
        }
    }
}

pub use sys::gptq_memory_info as MemoryInfo;

/// What a step did.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Work is left.
    pub more: bool,
    pub sessions_active: u32,
    pub sessions_readable: u32,
    pub used: Duration,
    /// The smallest budget that lets the next step make progress.
    pub next_quantum: Duration,
    pub tokens_prefilled: u32,
    pub tokens_generated: u32,
}

/// KV memory and scheduler for some sessions. Cheap to clone.
#[derive(Clone)]
pub struct Engine(pub(crate) Arc<Domain>);

pub(crate) struct Domain {
    pointer: NonNull<sys::gptq_engine>,
    pub model: Model,
    pub best_logprobs: u32,
    lock: Mutex<()>,
    inside: AtomicUsize, // the thread that has the lock, or 0
    dead: Mutex<Vec<usize>>, // sessions to destroy when nobody is inside
}
// Whoever calls C has the lock.
unsafe impl Send for Domain {}
unsafe impl Sync for Domain {}

fn this_thread() -> usize {
    thread_local!(static MARK: u8 = const { 0 });
    MARK.with(|mark| std::ptr::from_ref(mark) as usize)
}

/// The right to call C.
pub(crate) struct Inside<'d> {
    domain: &'d Domain,
    guard: Option<MutexGuard<'d, ()>>,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.domain.inside.store(0, Ordering::Relaxed);
        self.guard = None;
        self.domain.bury();
    }
}

impl Domain {
    /// Fails inside a callback of this engine.
    pub fn enter(&self) -> Result<Inside<'_>> {
        if self.inside.load(Ordering::Relaxed) == this_thread() {
            return Err(Error::new(sys::GPTQ_E_INVALID_STATE, "the engine is busy: a callback may not call it"));
        }
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.inside.store(this_thread(), Ordering::Relaxed);
        Ok(Inside { domain: self, guard: Some(guard) })
    }

    pub fn destroy(&self, session: NonNull<sys::gptq_session>) {
        self.dead.lock().unwrap_or_else(PoisonError::into_inner).push(session.as_ptr() as usize);
        self.bury();
    }

    /// Destroys what waits for it, unless somebody is inside, who will do it then.
    fn bury(&self) {
        let _guard = match self.lock.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        for session in self.dead.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            unsafe { sys::gptq_session_destroy(session as *mut sys::gptq_session) }
        }
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        self.bury();
        unsafe { sys::gptq_engine_destroy(self.pointer.as_ptr()) }
    }
}

impl Engine {
    pub(crate) fn new(model: Model, pointer: NonNull<sys::gptq_engine>, best_logprobs: u32) -> Self {
        let (lock, inside, dead) = (Mutex::new(()), AtomicUsize::new(0), Mutex::new(Vec::new()));
        Engine(Arc::new(Domain { pointer, model, best_logprobs, lock, inside, dead }))
    }

    pub fn model(&self) -> &Model {
        &self.0.model
    }

    /// A smaller model of the same runtime with the same tokens guesses for generations with `GPTQ_GEN_SPECULATE` from now on; `None`: none does.
    pub fn set_draft(&self, model: Option<&Model>) -> Result<()> {
        let _inside = self.0.enter()?;
        let draft = model.map_or(null_mut(), |model| model.pointer());
        call(|error| unsafe { sys::gptq_engine_set_draft(self.0.pointer.as_ptr(), draft, null(), error) }).map(|_| ())
    }

    /// A new sequence. Fails when `max_sessions` exist.
    pub fn session(&self) -> Result<Session> {
        let _inside = self.0.enter()?;
        let mut out = null_mut();
        call(|error| unsafe { sys::gptq_session_create(self.0.pointer.as_ptr(), &mut out, error) })?;
        Ok(Session::new(self.clone(), NonNull::new(out).expect("a session")))
    }

    /// A session that goes on where the saved one stood, and whether its numbers are the same to the last digit.
    pub fn restore(&self, saved: &[u8]) -> Result<(Session, bool)> {
        let _inside = self.0.enter()?;
        let mut out = null_mut();
        let (at, size) = (saved.as_ptr().cast(), saved.len());
        let status = call(|error| unsafe { sys::gptq_session_restore(self.0.pointer.as_ptr(), at, size, &mut out, error) })?;
        Ok((Session::new(self.clone(), NonNull::new(out).expect("a session")), status == sys::GPTQ_OK))
    }

    /// The same of what [`Session::save_to`] wrote.
    pub fn restore_from(&self, source: Source<'_>) -> Result<(Session, bool)> {
        let _inside = self.0.enter()?;
        let mut out = null_mut();
        let status =
            source.with(|source, error| unsafe { sys::gptq_session_restore_from(self.0.pointer.as_ptr(), source, &mut out, error) })?;
        Ok((Session::new(self.clone(), NonNull::new(out).expect("a session")), status == sys::GPTQ_OK))
    }

    /// Vectors of texts, made in free places of sessions; it steps the engine. `Pooling::None`: pooling and normalizing are as the model's files
    /// say, else the last token's, normalized.
    pub fn embed(&self, texts: &[impl AsRef<str>], pooling: Pooling, normalize: bool) -> Result<Vec<Vec<f32>>> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let (strings, width) = (strings(texts), self.model().info().n_embd as usize);
        let flags = if normalize { sys::GPTQ_EMBED_NORMALIZE as u32 } else { 0 };
        let mut out = vec![0.0; texts.len() * width];
        let _inside = self.0.enter()?;
        let (engine, at, n) = (self.0.pointer.as_ptr(), strings.as_ptr(), strings.len());
        call(|error| unsafe { sys::gptq_embed(engine, at, n, pooling as i32, flags, out.as_mut_ptr(), error) })?;
        Ok(out.chunks(width).map(<[f32]>::to_vec).collect())
    }

    /// The sessions that have something unread, or have ended since they were looked at; each at most once a step.
    pub fn readable(&self) -> Result<Vec<SessionId>> {
        let _inside = self.0.enter()?;
        let next = || unsafe { sys::gptq_engine_next_readable(self.0.pointer.as_ptr()) };
        Ok(std::iter::from_fn(|| NonNull::new(next()).map(SessionId::of)).collect())
    }

    pub fn memory(&self) -> Result<MemoryInfo> {
        let _inside = self.0.enter()?;
        let mut info = MemoryInfo::default();
        check(unsafe { sys::gptq_engine_memory(self.0.pointer.as_ptr(), &mut info) })?;
        Ok(info)
    }

    /// Computes for about that long on all started sessions together; `Duration::MAX` until nothing is left.
    pub fn step(&self, budget: Duration) -> Result<Step> {
        let budget_us = u32::try_from(budget.as_micros()).unwrap_or(sys::GPTQ_BUDGET_UNLIMITED);
        let mut info = sys::gptq_step_info::default();
        let _inside = self.0.enter()?;
        let status = check(unsafe { sys::gptq_engine_step(self.0.pointer.as_ptr(), budget_us, &mut info) })?;
        Ok(Step {
            more: status == sys::GPTQ_MORE,
            sessions_active: info.sessions_active,
            sessions_readable: info.sessions_readable,
            used: Duration::from_micros(info.used_us.into()),
            next_quantum: Duration::from_micros(info.next_quantum_us.into()),
            tokens_prefilled: info.tokens_prefilled,
            tokens_generated: info.tokens_generated,
        })
    }

    /// Steps until nothing is left to do.
    pub fn finish(&self) -> Result<()> {
        self.step(Duration::MAX).map(|_| ())
    }
}
