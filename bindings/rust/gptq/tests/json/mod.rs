// SPDX-License-Identifier: Apache-2.0
//! As much of JSON as conformance.json needs, so that the crates have no dependencies.
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(BTreeMap<String, Json>),
}

static NULL: Json = Json::Null;

impl Json {
    pub fn get(&self, key: &str) -> &Json {
        match self {
            Json::Object(members) => members.get(key).unwrap_or(&NULL),
            _ => &NULL,
        }
    }
    pub fn text(&self) -> &str {
        match self {
            Json::Text(text) => text,
            _ => "",
        }
    }
    pub fn number(&self) -> f64 {
        match self {
            Json::Number(number) => *number,
            _ => 0.0,
        }
    }
    pub fn list(&self) -> &[Json] {
        match self {
            Json::List(list) => list,
            _ => &[],
        }
    }
    pub fn is_true(&self) -> bool {
        *self == Json::Bool(true)
    }
    pub fn ids(ids: &[i32]) -> Json {
        Json::List(ids.iter().map(|&id| Json::Number(id.into())).collect())
    }
    pub fn parse(text: &str) -> Json {
        Parser { rest: text.chars().peekable() }.value()
    }
}

struct Parser<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
}

impl Parser<'_> {
    fn peek(&mut self) -> char {
        while self.rest.next_if(|c| c.is_whitespace()).is_some() {}
        *self.rest.peek().expect("more text")
    }
    fn expect(&mut self, c: char) {
        assert_eq!(self.peek(), c);
        self.rest.next();
    }
    /// Whether another element follows, or `end` came.
    fn more(&mut self, end: char, first: bool) -> bool {
        if self.peek() == end {
            self.rest.next();
            return false;
        }
        if !first {
            self.expect(',');
        }
        true
    }
    fn value(&mut self) -> Json {
        match self.peek() {
            '{' => {
                self.rest.next();
                let mut members = BTreeMap::new();
                while self.more('}', members.is_empty()) {
                    self.peek();
                    let key = self.string();
                    self.expect(':');
                    members.insert(key, self.value());
                }
                Json::Object(members)
            }
            '[' => {
                self.rest.next();
                let mut list = Vec::new();
                while self.more(']', list.is_empty()) {
                    list.push(self.value());
                }
                Json::List(list)
            }
            '"' => Json::Text(self.string()),
            _ => {
                let mut word = String::new();
                while let Some(c) = self.rest.next_if(|c| c.is_alphanumeric() || "+-.".contains(*c)) {
                    word.push(c);
                }
                match word.as_str() {
                    "null" => Json::Null,
                    "true" | "false" => Json::Bool(word == "true"),
                    _ => Json::Number(word.parse().expect("a number")),
                }
            }
        }
    }
    fn string(&mut self) -> String {
        self.expect('"');
        let mut text = String::new();
        loop {
            match self.rest.next().expect("the end of a string") {
                '"' => return text,
                '\\' => match self.rest.next() {
                    Some('n') => text.push('\n'),
                    Some(c @ ('"' | '\\' | '/')) => text.push(c),
                    other => panic!("conformance.json does not use the escape {other:?}"),
                },
                c => text.push(c),
            }
        }
    }
}
