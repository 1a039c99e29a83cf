// SPDX-License-Identifier: Apache-2.0
//! Cancel from other threads, drops at odd times, closures that panic, and no leaks.
use gptq::{sys, Engine, EngineOptions, Generate, Model, QuantizeOptions, Runtime, RuntimeOptions, Source, StopReason};
use std::ops::ControlFlow::{Break, Continue};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Mutex;
use std::time::Duration;

static ALONE: Mutex<()> = Mutex::new(()); // memory is measured

fn path(name: &str) -> String {
    format!("{}/{name}.gptq", std::env::var("GPTQ_MODELS").expect("GPTQ_MODELS is not set"))
}
fn text_model() -> Model {
    Runtime::new().unwrap().load(path("text")).unwrap()
}
fn engine(max_sessions: u32) -> Engine {
    text_model().engine(&EngineOptions { max_sessions, ctx_tokens: 256, ..Default::default() }).unwrap()
}
fn tokens(max_tokens: u32) -> Generate {
    Generate { max_tokens, flags: sys::GPTQ_GEN_IGNORE_EOS, ..Default::default() }
}
fn resident() -> i64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<i64>().unwrap() * 4096
}
fn growth(mut cycle: impl FnMut()) -> i64 {
    (0..250).for_each(|_| cycle());
    let before = resident();
    (0..1000).for_each(|_| cycle());
    resident() - before
}
fn test(name: &str, run: impl FnOnce()) {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    run();
    println!("ok - {name}");
}

#[test]
fn objects() {
    test("1,000 times everything, made and dropped", || {
        let growth = growth(|| {
            let runtime = Runtime::with(RuntimeOptions { threads: 1, ..Default::default() }).unwrap();
            let engine = runtime.load(path("text")).unwrap().engine(&EngineOptions { ctx_tokens: 64, ..Default::default() }).unwrap();
            let adapter = engine.model().adapter(Source::path(path("text") + "-lora")).unwrap();
            let (mut session, banned) = (engine.session().unwrap(), engine.model().banned(&["as an AI"]).unwrap());
            session.set_adapter(Some(&adapter), 1.0).unwrap();
            session.generate("a", &Generate { banned: Some(banned), flags: 0, ..tokens(1) }, |_| Continue(())).unwrap();
            session.save_to(sys::GPTQ_SAVE_REPLAY, std::io::sink()).unwrap();
        });
        assert!(growth < 1 << 20, "{growth} bytes more");
    });
}

#[test]
fn closures_that_panic() {
    test("1,000 panics in a closure arrive in the caller", || {
        std::panic::set_hook(Box::new(|_| ()));
        let engine = engine(1);
        let growth = growth(|| {
            let mut session = engine.session().unwrap();
            let result = catch_unwind(AssertUnwindSafe(|| session.generate("a", &tokens(4), |_| panic!("from the closure"))));
            assert_eq!(result.unwrap_err().downcast_ref::<&str>(), Some(&"from the closure"));
        });
        drop(std::panic::take_hook());
        assert!(growth < 1 << 20, "{growth} bytes more");
    });
}

#[test]
fn cancel_from_another_thread() {
    test("cancel from another thread", || {
        let engine = engine(1);
        let mut session = engine.session().unwrap();
        let cancel = session.cancel_handle();
        std::thread::scope(|scope| {
            let (stop, stopped) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || {
                while stopped.recv_timeout(Duration::from_millis(1)).is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Timeout) {
                    cancel.cancel();
                }
            });
            for _ in 0..20 {
                while session.generate("the cat", &tokens(200), |_| Continue(())).unwrap().stop_reason != StopReason::Cancelled {
                    session.truncate(0).unwrap();
                }
                session.truncate(0).unwrap();
            }
            drop(session); // while the other thread still cancels
            drop(stop);
        });
    });
}

#[test]
fn closures_may_not_call_their_engine() {
    test("a closure may not call its engine, but may drop sessions", || {
        let engine = engine(2);
        let (mut session, mut others) = (engine.session().unwrap(), vec![engine.session().unwrap()]);
        let info = session.generate("the cat", &tokens(4), |_| {
            assert_eq!(engine.step(Duration::ZERO).unwrap_err().status.0, sys::GPTQ_E_INVALID_STATE);
            others.clear();
            Continue(())
        });
        assert_eq!(info.unwrap().n_generated, 4);
        engine.session().unwrap(); // its place is free again
    });
}

#[test]
fn threads() {
    test("sessions of one engine on several threads", || {
        let engine = engine(4);
        let generate = |engine: &Engine| {
            let mut session = engine.session().unwrap();
            let text: Result<String, _> = session.stream("the cat", &tokens(20)).unwrap().collect();
            text.unwrap()
        };
        let expected = generate(&engine);
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|_| scope.spawn(|| generate(&engine))).collect();
            all.into_iter().for_each(|one| assert_eq!(one.join().unwrap(), expected));
        });
    });
}

#[test]
fn stream_dropped_early() {
    test("an iterator left early ends the session", || {
        let mut session = engine(1).session().unwrap();
        assert!(session.stream("the cat", &tokens(200)).unwrap().next().unwrap().is_ok());
        assert!(!session.info().unwrap().running);
    });
}

#[test]
fn forks_and_saves() {
    test("a fork and a restored save go on as the session does", || {
        let engine = engine(3);
        let mut session = engine.session().unwrap();
        session.append("the cat", sys::GPTQ_TEXT_ADD_BOS).unwrap();
        session.start(&Generate { temperature: 0.9, seed: 5, frequency_penalty: 0.2, ..tokens(24) }).unwrap();
        engine.step(Duration::from_micros(1)).unwrap();
        for kind in [sys::GPTQ_SAVE_REPLAY, sys::GPTQ_SAVE_FULL] {
            let mut fork = session.fork().unwrap();
            let mut saved = session.save(kind).unwrap();
            let (mut restored, exact) = engine.restore(&saved).unwrap();
            engine.finish().unwrap();
            let text = fork.read().unwrap();
            assert!(exact && !text.is_empty() && restored.read().unwrap() == text);
            drop((fork, restored));
            let at = saved.len() / 2;
            saved[at] ^= 1;
            assert_eq!(engine.restore(&saved).err().unwrap().status.0, sys::GPTQ_E_CHECKSUM);
        }
    });
}

#[test]
fn speculation() {
    test("a draft model and a prediction do not change the text", || {
        let engine = engine(1);
        let text = |speculates: bool, prediction: Option<&str>| {
            let mut session = engine.session().unwrap();
            session.set_prediction(prediction).unwrap();
            let flags = sys::GPTQ_GEN_IGNORE_EOS | if speculates { sys::GPTQ_GEN_SPECULATE } else { 0 };
            session.stream("the cat", &Generate { flags, ..tokens(60) }).unwrap().map(|piece| piece.unwrap()).collect::<String>()
        };
        let plain = text(false, None);
        engine.set_draft(Some(engine.model())).unwrap();
        assert_eq!(text(true, Some(&plain)), plain);
        engine.set_draft(None).unwrap();
        assert_eq!(text(true, None), plain);
        assert_eq!(engine.set_draft(Some(&text_model())).unwrap_err().status.0, sys::GPTQ_E_INVALID_ARGUMENT); // of another runtime
    });
}

#[test]
fn constraints() {
    test("constraints", || {
        let mut session = engine(1).session().unwrap();
        let model = session.engine().model().clone();
        let mut generate = |constraint| {
            let (mut text, params) = (String::new(), Generate { constraint: Some(constraint), ..Default::default() });
            let info = session.generate("well ", &params, |piece| {
                text += piece;
                Continue(())
            });
            assert!(matches!(info.unwrap().stop_reason, StopReason::Constraint | StopReason::Eos));
            text
        };
        let answer = generate(model.choice(&["yes", "may \"be\""]).unwrap());
        assert!(answer == "yes" || answer == "may \"be\"", "{answer}");
        let answer = generate(model.regex("[a-c]{3}z").unwrap());
        assert!(answer.len() == 4 && answer.ends_with('z'), "{answer}");
        let error = model.regex("ab(c").unwrap_err();
        assert_eq!(error.status.0, sys::GPTQ_E_INVALID_ARGUMENT);
        assert!(!error.site.is_empty());
    });
}

struct Broken {
    panics: bool,
}
impl Broken {
    fn fail<T>(&self) -> std::io::Result<T> {
        assert!(!self.panics, "from the stream");
        Err(std::io::Error::other("disk on fire"))
    }
}
impl std::io::Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        self.fail()
    }
}
impl std::io::Seek for Broken {
    fn seek(&mut self, _: std::io::SeekFrom) -> std::io::Result<u64> {
        Ok(4096)
    }
}
impl std::io::Write for Broken {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        self.fail()
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn streams_that_fail() {
    test("a stream's error is in the message, and its panic goes on above", || {
        let engine = engine(2);
        let mut session = engine.session().unwrap();
        session.append("a", 0).unwrap();
        let error = engine.restore_from(Source::stream(&mut Broken { panics: false })).err().unwrap();
        assert!(error.status.0 == sys::GPTQ_E_IO && error.message.contains("disk on fire"), "{error}");
        let error = session.save_to(sys::GPTQ_SAVE_REPLAY, Broken { panics: false }).unwrap_err();
        assert!(error.status.0 == sys::GPTQ_E_IO && error.message.contains("disk on fire"), "{error}");
        std::panic::set_hook(Box::new(|_| ()));
        let result = catch_unwind(AssertUnwindSafe(|| session.save_to(sys::GPTQ_SAVE_REPLAY, Broken { panics: true })));
        let other = catch_unwind(AssertUnwindSafe(|| engine.restore_from(Source::stream(&mut Broken { panics: true })).map(|_| ())));
        drop(std::panic::take_hook());
        assert!(result.is_err() && other.is_err());
        session.generate(" b", &tokens(2), |_| Continue(())).unwrap();
    });
}

#[test]
fn a_log_gets_errors_and_so_do_results() {
    test("a log gets what errors say", || {
        let told = std::sync::Arc::new(Mutex::new(String::new()));
        let to = told.clone();
        let log = Box::new(move |_, text: &str| to.lock().unwrap().push_str(text));
        let model = Runtime::with(RuntimeOptions { log: Some(log), ..Default::default() }).unwrap().load(path("text")).unwrap();
        let error = model.detokenize(&[384], 0).unwrap_err();
        assert!(error.message == "token 384 is outside the vocabulary of 384" && error.site.contains(".cpp:"), "{error}");
        assert!(told.lock().unwrap().contains("token 384"));
    });
}

#[test]
fn progress_cancels() {
    test("progress cancels", || {
        let options = QuantizeOptions { rows: 4, row_tokens: 64, ..Default::default() };
        let result = Runtime::new().unwrap().quantize(path("text"), path("never"), &options, |_, _| Break(()), |_| ());
        assert_eq!(result.unwrap_err().status.0, sys::GPTQ_E_CANCELLED);
        assert!(!std::path::Path::new(&path("never")).exists());
    });
}
