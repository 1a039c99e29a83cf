// SPDX-License-Identifier: Apache-2.0
//! The calls of bindings/conformance.json (GPTQ_CASES), on the models of the folder GPTQ_MODELS.
mod json;

use gptq::{
    sys, Adapter, ChatOptions, Engine, EngineOptions, Error, Generate, LoadOptions, Message, Model, Pooling, QuantizeOptions, Runtime, Session, Source,
    StopReason,
};
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
    list.list().iter().map(|one| Message { role: one.get("role").text(), text: one.get("content").text(), extra_json: one.get("extra").text() }).collect()
}

fn chat_options(call: &Json) -> ChatOptions<'_> {
    ChatOptions {
        drop_oldest: call.get("drop_oldest").is_true(),
        reserve_tokens: call.get("reserve_tokens").number() as u32,
        keep_tokens: call.get("keep_tokens").number() as u32,
        tools_json: call.get("tools").text(),
        variables_json: call.get("variables").text(),
        template: Some(call.get("template").text()).filter(|text| !text.is_empty()),
        ..Default::default()
    }
}

fn texts(list: &Json) -> Vec<&str> {
    list.list().iter().map(Json::text).collect()
}
fn numbers(list: impl IntoIterator<Item = impl Into<f64>>) -> Json {
    Json::List(list.into_iter().map(number).collect())
}
fn pooling(of: &Json) -> Pooling {
    match of.get("pooling").text() {
        "last" => Pooling::Last,
        "mean" => Pooling::Mean,
        _ => Pooling::None,
    }
}
fn given(of: &Json, name: &str) -> bool {
    *of.get(name) != Json::Null
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
            | flag("marked", sys::GPTQ_GEN_MARKED)
            | flag("logprobs", sys::GPTQ_GEN_LOGPROBS),
        pooling: pooling(params),
        ..Default::default()
    }
}

fn engine_options(options: &Json) -> EngineOptions {
    let number = |name| options.get(name).number() as u32;
    EngineOptions {
        max_sessions: number("max_sessions"),
        ctx_tokens: number("ctx_tokens"),
        logits_rows: number("logits_rows"),
        best_logprobs: number("best_logprobs"),
        adapter_rank: number("adapter_rank"),
        exact: options.get("exact").is_true(),
        bf16: options.get("bf16").is_true(),
        ..Default::default()
    }
}
fn engine_of(model: &Model, options: &Json) -> Engine {
    model.engine(&engine_options(options)).unwrap()
}

fn quantize_options(call: &Json) -> QuantizeOptions {
    let number_of = |name| call.get("params").get(name).number();
    QuantizeOptions {
        bits: number_of("bits") as u32,
        group_size: number_of("group_size") as i32,
        rows: number_of("rows") as u32,
        row_tokens: number_of("row_tokens") as u32,
        damp: number_of("damp"),
        first_token_weight: number_of("first_token_weight"),
        bits_per_weight: number_of("bits_per_weight"),
        file_bytes_max: number_of("file_bytes_max") as u64,
        head_bits: number_of("head_bits") as u32,
        asymmetric: call.get("params").get("asymmetric").is_true(),
        aim: call.get("params").get("aim").is_true(),
        reference: call.get("params").get("reference").is_true(),
        tokens: ids(call.get("params").get("tokens")),
        replace: true,
        ..Default::default()
    }
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
        let (constraint, banned) = (call.get("params").get("constraint"), call.get("params").get("banned"));
        let source = constraint.get("source").text();
        match constraint.get("kind").text() {
            "json_schema" => params.constraint = Some(self.model.json_schema(source)?),
            "json_compact" => params.constraint = Some(self.model.json_schema_compact(source)?),
            "grammar" => params.constraint = Some(self.model.grammar(source)?),
            "tags" => params.constraint = Some(self.model.tags(source)?),
            _ => (),
        }
        if !banned.list().is_empty() {
            params.banned = Some(self.model.banned(&texts(banned))?);
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
            "render_chat" => text(self.model.render_chat_with(&messages(call.get("messages")), &chat_options(call))?),
            "append" => self.session(call).append(input.text(), text_flags(call)).map(|_| Json::Null)?,
            "append_tokens" => self.session(call).append_tokens(&ids(input)).map(|_| Json::Null)?,
            "chat" => object(vec![("n_tokens", number(self.session(call).set_chat_with(&messages(call.get("messages")), &chat_options(call))? as u32))]),
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
                let kind = if call.get("full").is_true() { sys::GPTQ_SAVE_FULL } else { sys::GPTQ_SAVE_REPLAY };
                let mut stream = Vec::new();
                if given(call, "to") {
                    self.session(call).save_to(kind, &mut stream)?;
                } else {
                    stream = self.session(call).save(kind)?;
                }
                self.saved = stream;
                object(vec![("small", Json::Bool(!self.saved.is_empty() && self.saved.len() < 4096))])
            }
            "restore" => {
                let (session, exact) = match given(call, "from") {
                    true => self.engine.restore_from(Source::stream(&mut std::io::Cursor::new(&self.saved)))?,
                    false => self.engine.restore(&self.saved)?,
                };
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
                    ("n_dropped", number(info.n_dropped)),
                    ("n_ctx", number(info.n_ctx)),
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
            _ => self.more(call)?,
        })
    }

    fn adapter(&self, call: &Json) -> Result<Adapter, Error> {
        let path = self.path(call.get("adapter")) + "-lora";
        match given(call, "from") {
            true => self.model.adapter(Source::stream(&mut std::fs::File::open(path).unwrap())),
            false => self.model.adapter(Source::path(path)),
        }
    }

    fn more(&mut self, call: &Json) -> Found {
        let head = |vector: &[f32]| vector[..4].to_vec();
        Ok(match call.get("call").text() {
            "load_from" => {
                let (path, mut file, bytes);
                path = self.path(call.get("model"));
                let source = match call.get("from").text() {
                    "part" => Source::path(path).part(8, 0),
                    "stream" => {
                        file = std::fs::File::open(path).unwrap();
                        Source::stream(&mut file)
                    }
                    _ => {
                        bytes = std::fs::read(path).unwrap();
                        Source::bytes(&bytes)
                    }
                };
                let model = self.runtime.load_from(source, &LoadOptions::default(), |_, _| ControlFlow::Continue(()))?;
                object(vec![("n_vocab", number(model.info().n_vocab))])
            }
            "token" => {
                let token = self.model.token(ids(call.get("input"))[0])?;
                let bytes = String::from_utf8(token.bytes.to_vec()).unwrap();
                object(vec![("text", Json::Text(bytes)), ("special", Json::Bool(token.special)), ("end", Json::Bool(token.end))])
            }
            "placements" => {
                let all = self.model.placements()?;
                let layers: u32 = all.iter().map(|one| one.n_layers).sum();
                object(vec![("devices", number(all.len() as u32)), ("n_layers", number(layers))])
            }
            "devices" => object(vec![("devices", number(self.runtime.devices()?.len() as u32))]),
            "estimate" => {
                let engine = given(call, "engine").then(|| engine_options(call.get("engine")));
                let e = self.runtime.estimate(Source::path(self.path(call.get("model"))), &LoadOptions::default(), engine.as_ref())?;
                object(vec![
                    ("fits", Json::Bool(e.fits != 0)),
                    ("host_kv", number(e.host_kv as f64)),
                    ("device_weights", number(e.device_weights as f64)),
                ])
            }
            "quantize_estimate" => {
                let e = self.runtime.quantize_estimate(Source::path(self.path(call.get("model"))), &quantize_options(call))?;
                object(vec![("n_modules", number(e.n_modules))])
            }
            "memory" => {
                let info = self.engine.memory()?;
                object(vec![
                    ("page_tokens", number(info.page_tokens)),
                    ("kv_pages_total", number(info.kv_pages_total as f64)),
                    ("kv_pages_used", number(info.kv_pages_used as f64)),
                ])
            }
            "readable" => {
                let readable = self.engine.readable()?;
                let mut all: Vec<_> = self.sessions.iter().filter(|one| readable.contains(&one.1.id())).map(|one| *one.0 as u32).collect();
                all.sort();
                object(vec![("sessions", numbers(all))])
            }
            "adapter_info" => {
                let info = self.adapter(call)?.info()?;
                object(vec![("rank", number(info.rank)), ("n_matrices", number(info.n_matrices))])
            }
            "set_adapter" => {
                let adapter = if given(call, "adapter") { Some(self.adapter(call)?) } else { None };
                let scale = if given(call, "scale") { call.get("scale").number() as f32 } else { 1.0 };
                self.session(call).set_adapter(adapter.as_ref(), scale).map(|_| Json::Null)?
            }
            "score" => {
                let scores = self.session(call).score(&texts(call.get("input")))?;
                object(vec![
                    ("logprobs", numbers(scores.iter().map(|one| one.logprob))),
                    ("n_tokens", numbers(scores.iter().map(|one| one.n_tokens))),
                ])
            }
            "logprobs" => {
                let all = self.session(call).logprobs(call.get("first").number() as u32, call.get("n").number() as u32)?;
                let best: Vec<_> = all.iter().flat_map(|one| one.best.clone()).collect();
                object(vec![
                    ("tokens", numbers(all.iter().map(|one| one.token))),
                    ("logprobs", numbers(all.iter().map(|one| one.logprob))),
                    ("best", numbers(best.iter().map(|one| one.0))),
                    ("best_logprobs", numbers(best.iter().map(|one| one.1))),
                ])
            }
            "embed" => {
                let vectors = self.engine.embed(&texts(call.get("input")), pooling(call), call.get("normalize").is_true())?;
                object(vec![
                    ("rows", number(vectors.len() as u32)),
                    ("n_embd", number(vectors.first().map_or(0, Vec::len) as u32)),
                    ("vectors", numbers(vectors.iter().flat_map(|one| head(one)))),
                ])
            }
            "embedding" => {
                let vector = self.session(call).embedding(call.get("normalize").is_true())?;
                object(vec![("n_embd", number(vector.len() as u32)), ("vectors", numbers(head(&vector)))])
            }
            other => panic!("no call is named {other}"),
        })
    }

    fn quantize(&mut self, call: &Json) -> Found {
        let options = quantize_options(call);
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

/// Numbers that processors compute differ in their last digits.
fn same(found: &Json, value: &Json) -> bool {
    match (found, value) {
        (Json::Number(a), Json::Number(b)) => (a - b).abs() <= 1e-4 * b.abs().max(1.0),
        (Json::List(a), Json::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => found == value,
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
            expected.iter().find(|(name, value)| !same(found.get(name), value)).map(|(name, value)| {
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
