// SPDX-License-Identifier: Apache-2.0
use crate::callback::{text_fn, Callback};
use crate::chat::with_chat;
use crate::error::{call, check, check_or, sized};
use crate::source::{strings, with_writer};
use crate::{sys, Adapter, ChatOptions, Engine, Generate, Message, Result, Status};
use std::io::Write;
use std::ops::ControlFlow;
use std::ptr::{null, null_mut, NonNull};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a piece of the output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Answer,
    Thinking,
    ToolCall,
}

/// A piece of what was generated with GPTQ_GEN_MARKED.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    pub kind: Mark,
    /// Of a tool call its arguments, a JSON object.
    pub text: String,
    /// The call's number in this generation.
    pub call: u32,
    /// Of the tool.
    pub name: String,
    /// What the model called the call, or "".
    pub id: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    None,
    Eos,
    String,
    Length,
    Context,
    Cancelled,
    Constraint,
    Error,
    Prefilled,
    Other(i32),
}

#[derive(Clone, Copy, Debug)]
pub struct SessionInfo {
    pub running: bool,
    pub stop_reason: StopReason,
    pub status: i32,
    pub n_tokens: u32,
    pub n_generated: u32,
    pub n_ctx: u32,
    pub prefill: Duration,
    pub decode: Duration,
    /// Tokens not yet computed.
    pub n_pending: u32,
    /// From the start.
    pub first_token: Duration,
    /// Tokens computed ahead; of them sampled.
    pub n_guessed: u32,
    pub n_guessed_right: u32,
    /// Messages that the last `set_chat` left out (`ChatOptions::drop_oldest`).
    pub n_dropped: u32,
}

impl SessionInfo {
    fn of(info: &sys::gptq_session_info) -> Self {
        let stop_reason = match info.stop_reason {
            sys::GPTQ_STOP_NONE => StopReason::None,
            sys::GPTQ_STOP_EOS => StopReason::Eos,
            sys::GPTQ_STOP_STRING => StopReason::String,
            sys::GPTQ_STOP_LENGTH => StopReason::Length,
            sys::GPTQ_STOP_CONTEXT => StopReason::Context,
            sys::GPTQ_STOP_CANCELLED => StopReason::Cancelled,
            sys::GPTQ_STOP_CONSTRAINT => StopReason::Constraint,
            sys::GPTQ_STOP_ERROR => StopReason::Error,
            sys::GPTQ_STOP_PREFILLED => StopReason::Prefilled,
            other => StopReason::Other(other),
        };
        SessionInfo {
            running: info.state == sys::GPTQ_SESSION_RUNNING,
            stop_reason,
            status: info.status,
            n_tokens: info.n_tokens,
            n_generated: info.n_generated,
            n_ctx: info.n_ctx,
            prefill: Duration::from_micros(info.prefill_us),
            decode: Duration::from_micros(info.decode_us),
            n_pending: info.n_pending,
            first_token: Duration::from_micros(info.first_token_us),
            n_guessed: info.n_guessed,
            n_guessed_right: info.n_guessed_right,
            n_dropped: info.n_dropped,
        }
    }
}

/// Logits of consecutive positions, `[rows][n_vocab]`.
#[derive(Clone, Debug, Default)]
pub struct Logits {
    pub first_position: u32,
    pub rows: u32,
    pub values: Vec<f32>,
}

/// How likely a text is: the sum of its tokens' log-probabilities, and how many they are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    pub logprob: f64,
    pub n_tokens: u32,
}

/// A token of the sequence and the natural logarithm of its probability; NaN where that is not known.
#[derive(Clone, Debug)]
pub struct TokenLogprob {
    pub token: i32,
    pub logprob: f32,
    /// The most likely tokens there, with theirs.
    pub best: Vec<(i32, f32)>,
}

/// Which session it is, of those that live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(usize);

impl SessionId {
    pub(crate) fn of(session: NonNull<sys::gptq_session>) -> Self {
        SessionId(session.as_ptr() as usize)
    }
}

/// Ends a session's work from any thread; harmless after the session.
#[derive(Clone)]
pub struct Cancel(Arc<Mutex<Option<NonNull<sys::gptq_session>>>>);
// gptq_session_cancel may be called from any thread, and the lock keeps the session from being destroyed meanwhile.
unsafe impl Send for Cancel {}
unsafe impl Sync for Cancel {}

impl Cancel {
    pub fn cancel(&self) {
        if let Some(session) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            unsafe { sys::gptq_session_cancel(session.as_ptr()) };
        }
    }
}

/// One sequence of tokens. It may be sent to other threads; calls wait until the engine is free.
pub struct Session {
    engine: Engine,
    pointer: NonNull<sys::gptq_session>,
    cancel: Cancel,
}
// Every call takes the engine's lock.
unsafe impl Send for Session {}
unsafe impl Sync for Session {}

impl Drop for Session {
    fn drop(&mut self) {
        *self.cancel.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.engine.0.destroy(self.pointer);
    }
}

impl Session {
    pub(crate) fn new(engine: Engine, pointer: NonNull<sys::gptq_session>) -> Self {
        Session { engine, pointer, cancel: Cancel(Arc::new(Mutex::new(Some(pointer)))) }
    }
    fn at(&self) -> *mut sys::gptq_session {
        self.pointer.as_ptr()
    }
    fn raw_info(&self) -> Result<sys::gptq_session_info> {
        let _inside = self.engine.0.enter()?;
        let mut info = Default::default();
        check(unsafe { sys::gptq_session_info_get(self.at(), &mut info) })?;
        Ok(info)
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }
    pub fn id(&self) -> SessionId {
        SessionId::of(self.pointer)
    }
    pub fn cancel_handle(&self) -> Cancel {
        self.cancel.clone()
    }
    pub fn info(&self) -> Result<SessionInfo> {
        Ok(SessionInfo::of(&self.raw_info()?))
    }

    /// flags: `gptq::sys::GPTQ_TEXT_*`.
    pub fn append(&mut self, text: &str, flags: i32) -> Result<()> {
        let _inside = self.engine.0.enter()?;
        let (at, size, flags) = (text.as_ptr().cast(), text.len(), flags as u32);
        call(|error| unsafe { sys::gptq_session_append_text(self.at(), at, size, flags, null_mut(), error) }).map(|_| ())
    }

    pub fn append_tokens(&mut self, tokens: &[i32]) -> Result<()> {
        let _inside = self.engine.0.enter()?;
        call(|error| unsafe { sys::gptq_session_append_tokens(self.at(), tokens.as_ptr(), tokens.len(), error) }).map(|_| ())
    }

    /// What the output is likely to have parts of, for generations with `GPTQ_GEN_SPECULATE`; `None`: no prediction.
    pub fn set_prediction(&mut self, text: Option<&str>) -> Result<()> {
        let _inside = self.engine.0.enter()?;
        let (at, size) = text.map_or((null(), 0), |text| (text.as_ptr().cast(), text.len()));
        call(|error| unsafe { sys::gptq_session_set_prediction(self.at(), at, size, 0, error) }).map(|_| ())
    }

    /// Makes the sequence that of the conversation, keeping what it already begins with; returns its tokens.
    pub fn set_chat(&mut self, messages: &[Message<'_>]) -> Result<usize> {
        self.set_chat_with(messages, &ChatOptions::default())
    }
    pub fn set_chat_with(&mut self, messages: &[Message<'_>], options: &ChatOptions<'_>) -> Result<usize> {
        let _inside = self.engine.0.enter()?;
        let mut n_tokens = 0;
        with_chat(messages, options, |chat| call(|error| unsafe { sys::gptq_session_set_chat(self.at(), chat, &mut n_tokens, error) }))?;
        Ok(n_tokens)
    }

    /// Begins generating; [`Engine::step`] does the work.
    pub fn start(&mut self, params: &Generate) -> Result<()> {
        let _inside = self.engine.0.enter()?;
        params.with(|params| call(|error| unsafe { sys::gptq_session_start(self.at(), params, error) })).map(|_| ())
    }

    /// Text that came since the last read.
    pub fn read(&mut self) -> Result<String> {
        let _inside = self.engine.0.enter()?;
        let (mut bytes, mut buffer, mut n) = (Vec::new(), [0u8; 512], 1);
        while n > 0 {
            check(unsafe { sys::gptq_session_read(self.at(), buffer.as_mut_ptr().cast(), buffer.len(), &mut n) })?;
            bytes.extend_from_slice(&buffer[..n]);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// With GPTQ_GEN_MARKED: what came since the last read, text of one kind in one piece. A tool call comes when it is complete.
    pub fn read_marked(&mut self) -> Result<Vec<Marked>> {
        let _inside = self.engine.0.enter()?;
        let (mut pieces, mut bytes, mut buffer, mut more) = (Vec::<Marked>::new(), Vec::<Vec<u8>>::new(), [0u8; 512], false);
        let text = |of: &[std::ffi::c_char]| of.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect::<Vec<u8>>();
        let string = |of: &[u8]| String::from_utf8_lossy(of).into_owned();
        loop {
            let mut marked: sys::gptq_marked = unsafe { std::mem::zeroed() };
            marked.struct_size = std::mem::size_of_val(&marked) as u32;
            check(unsafe { sys::gptq_session_read_marked(self.at(), buffer.as_mut_ptr().cast(), buffer.len(), &mut marked) })?;
            let kind = match marked.kind {
                sys::GPTQ_MARK_ANSWER => Mark::Answer,
                sys::GPTQ_MARK_THINKING => Mark::Thinking,
                sys::GPTQ_MARK_TOOL_CALL => Mark::ToolCall,
                _ => break,
            };
            if pieces.last().map_or(true, |last| last.kind != kind || (kind == Mark::ToolCall && !more)) {
                let (name, id) = (string(&text(&marked.name)), string(&text(&marked.id)));
                pieces.push(Marked { kind, text: String::new(), call: marked.call, name, id });
                bytes.push(Vec::new());
            }
            bytes.last_mut().unwrap().extend_from_slice(&buffer[..marked.size]);
            more = marked.more != 0;
        }
        for (piece, all) in pieces.iter_mut().zip(&bytes) {
            piece.text = string(all);
        }
        Ok(pieces)
    }

    pub fn read_tokens(&mut self) -> Result<Vec<i32>> {
        let _inside = self.engine.0.enter()?;
        let (mut tokens, mut buffer, mut n) = (Vec::new(), [0i32; 256], 1);
        while n > 0 {
            check(unsafe { sys::gptq_session_read_tokens(self.at(), buffer.as_mut_ptr(), buffer.len(), &mut n) })?;
            tokens.extend_from_slice(&buffer[..n]);
        }
        Ok(tokens)
    }

    /// With GPTQ_GEN_LOGITS: rows that came since the last read.
    pub fn read_logits(&mut self) -> Result<Logits> {
        let rows = self.raw_info()?.logits_unread as usize;
        let mut logits = Logits { values: vec![0.0; rows * self.engine.model().info().n_vocab as usize], ..Default::default() };
        let _inside = self.engine.0.enter()?;
        let (at, cap) = (logits.values.as_mut_ptr(), logits.values.len());
        check(unsafe { sys::gptq_session_read_logits(self.at(), at, cap, &mut logits.first_position, &mut logits.rows) })?;
        Ok(logits)
    }

    /// The whole sequence.
    pub fn tokens(&self) -> Result<Vec<i32>> {
        let _inside = self.engine.0.enter()?;
        sized(|buffer, cap, needed| check(unsafe { sys::gptq_session_tokens(self.at(), buffer, cap, needed) }))
    }

    /// Keeps the first n_tokens.
    pub fn truncate(&mut self, n_tokens: u32) -> Result<()> {
        let _inside = self.engine.0.enter()?;
        check(unsafe { sys::gptq_session_truncate(self.at(), n_tokens) }).map(|_| ())
    }

    /// A second session of the engine that stands where this one stands. It shares the KV cache.
    pub fn fork(&self) -> Result<Session> {
        let _inside = self.engine.0.enter()?;
        let mut out = null_mut();
        call(|error| unsafe { sys::gptq_session_fork(self.at(), &mut out, error) })?;
        Ok(Session::new(self.engine.clone(), NonNull::new(out).expect("a session")))
    }

    /// What [`Engine::restore`] makes a session of that goes on where this one stands, also while it generates. kind: `gptq::sys::GPTQ_SAVE_*`.
    pub fn save(&self, kind: i32) -> Result<Vec<u8>> {
        let _inside = self.engine.0.enter()?;
        sized(|buffer: *mut u8, cap, needed| {
            call(|error| unsafe { sys::gptq_session_save(self.at(), kind, buffer.cast(), cap, needed, error) })
        })
    }

    /// The same, in pieces, so that nothing holds the whole save.
    pub fn save_to(&self, kind: i32, mut to: impl Write) -> Result<()> {
        let _inside = self.engine.0.enter()?;
        with_writer(&mut to, |write, user, error| unsafe { sys::gptq_session_save_to(self.at(), kind, write, user, error) })
    }

    /// Computes with the adapter from now on, its changes multiplied by scale, also in the middle of a generation; `None`: without any.
    pub fn set_adapter(&mut self, adapter: Option<&Adapter>, scale: f32) -> Result<()> {
        let _inside = self.engine.0.enter()?;
        let adapter = adapter.map_or(null_mut(), Adapter::pointer);
        call(|error| unsafe { sys::gptq_session_set_adapter(self.at(), adapter, scale, error) }).map(|_| ())
    }

    /// With GPTQ_GEN_LOGPROBS: of the tokens at positions first to first + n - 1. `best` are as many as the engine's `best_logprobs`.
    pub fn logprobs(&self, first: u32, n: u32) -> Result<Vec<TokenLogprob>> {
        let tokens = self.tokens()?;
        let n_best = self.engine.0.best_logprobs as usize;
        let count = (n as usize).min(tokens.len()); // C refuses more
        let mut chosen = vec![0.0; count];
        let mut best = vec![sys::gptq_token_logprob { token: 0, logprob: 0.0 }; count * n_best];
        let _inside = self.engine.0.enter()?;
        let at = if best.is_empty() { null_mut() } else { best.as_mut_ptr() };
        let n = if count < n as usize { u32::MAX } else { n };
        check(unsafe { sys::gptq_session_logprobs(self.at(), first, n, chosen.as_mut_ptr(), at) })?;
        let pair = |one: &sys::gptq_token_logprob| (one.token >= 0).then_some((one.token, one.logprob));
        Ok((0..count)
            .map(|i| TokenLogprob {
                token: tokens[first as usize + i],
                logprob: chosen[i],
                best: best[i * n_best..(i + 1) * n_best].iter().filter_map(pair).collect(),
            })
            .collect())
    }

    /// How likely each text is behind what stands. The session stays as it is; needs a free place for another.
    pub fn score(&mut self, texts: &[impl AsRef<str>]) -> Result<Vec<Score>> {
        let strings = strings(texts);
        let (mut sums, mut counts) = (vec![0.0; texts.len()], vec![0; texts.len()]);
        let _inside = self.engine.0.enter()?;
        let (at, n) = (strings.as_ptr(), strings.len());
        call(|error| unsafe { sys::gptq_score(self.at(), at, n, sums.as_mut_ptr(), counts.as_mut_ptr(), error) })?;
        Ok(sums.into_iter().zip(counts).map(|(logprob, n_tokens)| Score { logprob, n_tokens }).collect())
    }

    /// The vector that a start with `Generate::pooling` made of the sequence; normalize: scaled to length 1.
    pub fn embedding(&self, normalize: bool) -> Result<Vec<f32>> {
        let _inside = self.engine.0.enter()?;
        let flags = if normalize { sys::GPTQ_EMBED_NORMALIZE as u32 } else { 0 };
        sized(|buffer, cap, needed| check(unsafe { sys::gptq_session_embedding(self.at(), flags, buffer, cap, needed) }))
    }

    /// Continues the prompt to the end. on_text gets the text as it comes; `Break` ends it. A panic in it goes on above this call.
    pub fn generate(&mut self, prompt: &str, params: &Generate, on_text: impl FnMut(&str) -> ControlFlow<()>) -> Result<SessionInfo> {
        let (mut on_text, mut info) = (Callback::new(on_text), sys::gptq_session_info::default());
        let inside = self.engine.0.enter()?;
        let (function, user, at, size) = (text_fn(&on_text), on_text.user(), prompt.as_ptr().cast(), prompt.len());
        let result = params.with(|params| {
            call(|error| unsafe { sys::gptq_generate(self.at(), at, size, params, function, user, &mut info, error) })
        });
        drop(inside);
        on_text.finish();
        result.map(|_| SessionInfo::of(&info))
    }

    /// Continues the prompt; the iterator does the work and gives the pieces. Dropped early, it cancels.
    pub fn stream(&mut self, prompt: &str, params: &Generate) -> Result<Stream<'_>> {
        let bos = if self.raw_info()?.n_tokens == 0 { sys::GPTQ_TEXT_ADD_BOS } else { 0 };
        if !prompt.is_empty() {
            self.append(prompt, bos | sys::GPTQ_TEXT_PARSE_SPECIAL)?;
        }
        self.start(params)?;
        Ok(Stream { session: self, ended: false })
    }
}

/// Pieces of text until the session ends.
pub struct Stream<'s> {
    session: &'s mut Session,
    ended: bool,
}

impl Stream<'_> {
    fn advance(&mut self) -> Result<Option<String>> {
        loop {
            let info = self.session.info()?;
            let piece = self.session.read()?;
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
            if !info.running {
                return check_or(info.status, || format!("the generation ended by {:?}", Status(info.status))).map(|_| None);
            }
            self.session.engine.step(Duration::from_millis(5))?;
        }
    }
}

impl Iterator for Stream<'_> {
    type Item = Result<String>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.advance().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.session.cancel.cancel();
            let _ = self.session.engine.step(Duration::from_micros(1)); // which ends it; a poll would not
        }
    }
}
