// SPDX-License-Identifier: Apache-2.0
//! The calls of bindings/conformance.json (GPTQ_CASES), on the models of the folder GPTQ_MODELS.
mod json;

use gptq::{sys, Engine, EngineOptions, Error, Generate, Message, Model, QuantizeOptions, Runtime, Session, StopReason};
use json::Json;
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::time::Duration;

type Found = Result<Json, Error>;

struct Case {
    runtime: Runtime,
    models: String,
    model: Model,
    engine: Engine,
    sessions: HashMap<u64, Session>,
    saved: Vec<u8>,
}

fn object(members: Vec<(&str, Json)>) -> Json {
    Json::Object(members.into_iter().map(|(name, value)| (name.to_string(), value)).collect())
}
fn text(text: String) -> Json {
    object(vec![("text", Json::Text(text))])
}
fn number(number: impl Into<f64>) -> Json {
    Json::Number(number.into())
}
fn ids(list: &Json) -> Vec<i32> {
    list.list().iter().map(|id| id.number() as i32).collect()
}

fn reason(reason: StopReason) -> Json {
    Json::Text(format!("{reason:?}").to_lowercase())
}

fn messages(list: &Json) -> Vec<Message<'_>> {
    list.list().iter().map(|one| Message { role: one.get("role").text(), text: one.get("content").text() }).collect()
}

fn text_flags(call: &Json) -> i32 {
    let of = |name, flag| if call.get(name).is_true() { flag } else { 0 };
    of("add_bos", sys::GPTQ_TEXT_ADD_BOS) | of("parse_special", sys::GPTQ_TEXT_PARSE_SPECIAL) | of("render_special", sys::GPTQ_TEXT_RENDER_SPECIAL)
}

fn generate(params: &Json) -> Generate {
    let flag = |name, flag| if params.get(name).is_true() { flag } else { 0 };
    Generate {
        max_tokens: params.get("max_tokens").number() as u32,
        temperature: params.get("temperature").number() as f32,
        top_k: params.get("top_k").number() as i32,
        top_p: params.get("top_p").number() as f32,
        min_p: params.get("min_p").number() as f32,
        repeat_penalty: params.get("repeat_penalty").number() as f32,
        seed: params.get("seed").number() as u64,
        stop: params.get("stop").list().iter().map(|stop| stop.text().to_string()).collect(),
        flags: flag("ignore_eos", sys::GPTQ_GEN_IGNORE_EOS)
            | flag("prefill_only", sys::GPTQ_GEN_PREFILL_ONLY)
            | flag("logits", sys::GPTQ_GEN_LOGITS)
            | flag("marked", sys::GPTQ_GEN_MARKED),
        ..Default::default()
    }
}

fn engine_of(model: &Model, options: &Json) -> Engine {
    let number = |name| options.get(name).number() as u32;
    let options = EngineOptions {
        max_sessions: number("max_sessions"),
        ctx_tokens: number("ctx_tokens"),
        logits_rows: number("logits_rows"),
        exact: options.get("exact").is_true(),
        ..Default::default()
    };
    model.engine(&options).unwrap()
}

impl Case {
    fn new(runtime: &Runtime, models: &str, description: &Json) -> Self {
        let model = runtime.load(format!("{models}/{}.gptq", description.get("model").text())).unwrap();
        let engine = engine_of(&model, description.get("engine"));
        Case { runtime: runtime.clone(), models: models.into(), model, engine, sessions: HashMap::new(), saved: Vec::new() }
    }
    fn path(&self, name: &Json) -> String {
        format!("{}/{}.gptq", self.models, name.text())
    }
    fn session(&mut self, call: &Json) -> &mut Session {
        let engine = &self.engine;
        self.sessions.entry(call.get("session").number() as u64).or_insert_with(|| engine.session().unwrap())
    }

    fn run(&mut self, call: &Json) -> Found {
        let (input, mut params) = (call.get("input"), generate(call.get("params")));
        let (choice, regex) = (call.get("params").get("choice"), call.get("params").get("regex").text());
        if !choice.list().is_empty() {
            params.constraint = Some(self.model.choice(&choice.list().iter().map(Json::text).collect::<Vec<_>>())?);
        } else if !regex.is_empty() {
            params.constraint = Some(self.model.regex(regex)?);
        }
        Ok(match call.get("call").text() {
            "load" => self.runtime.load(self.path(call.get("model"))).map(|_| Json::Null)?,
            "use" => {
                self.sessions.clear();
                self.model = self.runtime.load(self.path(call.get("model")))?;
                self.engine = engine_of(&self.model, &Json::Null);
                Json::Null
            }
            "model_info" => {
                let info = self.model.info();
                object(vec![
                    ("n_vocab", number(info.n_vocab)),
                    ("n_layers", number(info.n_layers)),
                    ("n_embd", number(info.n_embd)),
                    ("bits", number(info.bits)),
                    ("group_size", number(info.group_size)),
                    ("bos", number(info.bos)),
                    ("eos", number(info.eos)),
                ])
            }
            "meta" => text(self.model.meta(call.get("key").text())?),
            "tokenize" => object(vec![("tokens", Json::ids(&self.model.tokenize(input.text(), text_flags(call))?))]),
            "detokenize" => text(self.model.detokenize(&ids(input), text_flags(call))?),
            "render_chat" => text(self.model.render_chat(&messages(call.get("messages")))?),
            "append" => self.session(call).append(input.text(), text_flags(call)).map(|_| Json::Null)?,
            "append_tokens" => self.session(call).append_tokens(&ids(input)).map(|_| Json::Null)?,
            "chat" => object(vec![("n_tokens", number(self.session(call).set_chat(&messages(call.get("messages")))? as u32))]),
            "start" => self.session(call).start(&params).map(|_| Json::Null)?,
            "finish" => {
                let budget = match call.get("budget_us") {
                    Json::Number(us) => Duration::from_micros(*us as u64),
                    _ => Duration::MAX,
                };
                let mut steps = 1;
                while self.engine.step(budget)?.more {
                    steps += 1;
                }
                object(vec![("many_steps", Json::Bool(steps > 1))])
            }
            "read" => text(self.session(call).read()?),
            "read_marked" => {
                let tell = |piece: gptq::Marked| match piece.kind {
                    gptq::Mark::Answer => format!("answer {}", piece.text),
                    gptq::Mark::Thinking => format!("thinking {}", piece.text),
                    gptq::Mark::ToolCall => format!("{} {}", piece.name, piece.text),
                };
                text(self.session(call).read_marked()?.into_iter().map(tell).collect::<Vec<_>>().join("|"))
            }
            "read_tokens" => object(vec![("tokens", Json::ids(&self.session(call).read_tokens()?))]),
            "read_logits" => {
                let logits = self.session(call).read_logits()?;
                let n_vocab = self.model.info().n_vocab as usize;
                let best = |row: &[f32]| (0..n_vocab).reduce(|a, b| if row[b] > row[a] { b } else { a }).unwrap() as i32;
                let best: Vec<i32> = logits.values.chunks(n_vocab).map(best).collect();
                object(vec![("first", number(logits.first_position)), ("rows", number(logits.rows)), ("best", Json::ids(&best))])
            }
            "tokens" => object(vec![("tokens", Json::ids(&self.session(call).tokens()?))]),
            "truncate" => self.session(call).truncate(call.get("n_tokens").number() as u32).map(|_| Json::Null)?,
            "cancel" => {
                self.session(call).cancel_handle().cancel();
                Json::Null
            }
            "fork" => {
                let fork = self.session(call).fork()?;
                self.sessions.insert(call.get("as").number() as u64, fork);
                Json::Null
            }
            "save" => {
                self.saved = self.session(call).save(sys::GPTQ_SAVE_REPLAY)?;
                object(vec![("small", Json::Bool(!self.saved.is_empty() && self.saved.len() < 4096))])
            }
            "restore" => {
                let (session, exact) = self.engine.restore(&self.saved)?;
                self.sessions.insert(call.get("as").number() as u64, session);
                object(vec![("exact", Json::Bool(exact))])
            }
            "close" => {
                self.sessions.remove(&(call.get("session").number() as u64));
                Json::Null
            }
            "info" => {
                let info = self.session(call).info()?;
                object(vec![
                    ("running", Json::Bool(info.running)),
                    ("stop_reason", reason(info.stop_reason)),
                    ("n_tokens", number(info.n_tokens)),
                    ("n_generated", number(info.n_generated)),
                ])
            }
            "stream" => text(self.session(call).stream(input.text(), &params)?.collect::<Result<String, Error>>()?),
            "generate" => {
                let (mut all, mut pieces, last) = (String::new(), 0, call.get("pieces").number() as u32);
                let info = self.session(call).generate(input.text(), &params, |piece| {
                    all += piece;
                    pieces += 1;
                    if pieces == last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                })?;
                object(vec![
                    ("text", Json::Text(all)),
                    ("stop_reason", reason(info.stop_reason)),
                    ("n_generated", number(info.n_generated)),
                ])
            }
            "quantize" => self.quantize(call)?,
            other => panic!("no call is named {other}"),
        })
    }

    fn quantize(&mut self, call: &Json) -> Found {
        let number_of = |name| call.get("params").get(name).number();
        let options = QuantizeOptions {
            bits: number_of("bits") as u32,
            group_size: number_of("group_size") as i32,
            rows: number_of("rows") as u32,
            row_tokens: number_of("row_tokens") as u32,
            replace: true,
            ..Default::default()
        };
        let (mut reports, mut done) = (0, Vec::new());
        let progress = |phase, part| {
            done.push((phase == gptq::Phase::Quantize, part));
            ControlFlow::Continue(())
        };
        self.runtime.quantize(self.path(call.get("from")), self.path(call.get("to")), &options, progress, |_| reports += 1)?;
        let rises = !done.is_empty() && done.windows(2).all(|two| two[0] <= two[1]);
        Ok(object(vec![("reports", number(reports)), ("progress", Json::Bool(rises))]))
    }
}

fn difference(case: &mut Case, call: &Json) -> Option<String> {
    match (case.run(call), call.get("error").text()) {
        (Err(error), expected) => {
            let same = error.status.name() == expected
                && error.message.contains(call.get("message").text())
                && error.site.contains(call.get("site").text());
            (!same).then(|| format!("{error} at {}", error.site))
        }
        (Ok(_), expected) if !expected.is_empty() => Some(format!("no {expected}")),
        (Ok(found), _) => {
            let none = BTreeMap::new();
            let expected = if let Json::Object(members) = call.get("expect") { members } else { &none };
            expected.iter().find(|(name, value)| found.get(name) != *value).map(|(name, value)| {
                format!("{name} is {:?}, not {value:?}", found.get(name))
            })
        }
    }
}

#[test]
fn conformance() {
    let variable = |name| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let cases = Json::parse(&std::fs::read_to_string(variable("GPTQ_CASES")).unwrap());
    let (runtime, models, mut failed) = (Runtime::new().unwrap(), variable("GPTQ_MODELS"), 0);
    for description in cases.get("cases").list() {
        let mut case = Case::new(&runtime, &models, description);
        let name = description.get("name").text();
        let wrong = description.get("calls").list().iter().find_map(|call| {
            difference(&mut case, call).map(|wrong| format!("not ok - {name}: {}: {wrong}", call.get("call").text()))
        });
        failed += wrong.is_some() as u32;
        println!("{}", wrong.unwrap_or(format!("ok - {name}")));
    }
    assert_eq!(failed, 0);
}
