// SPDX-License-Identifier: Apache-2.0
//! Constants, sizes and offsets against what the C program bindings/layout.c printed into the file GPTQ_LAYOUT.
mod facts;

#[test]
fn layout() {
    let path = std::env::var("GPTQ_LAYOUT").expect("GPTQ_LAYOUT names the output of layout.c");
    let text = std::fs::read_to_string(path).unwrap();
    let expected: Vec<(&str, i64)> =
        text.lines().map(|line| line.split_once(' ').unwrap()).map(|(name, value)| (name, value.parse().unwrap())).collect();
    assert!(!expected.is_empty());
    assert_eq!(facts::FACTS, expected);
    println!("ok - layout: {} constants, sizes and offsets", expected.len());
}
