// SPDX-License-Identifier: Apache-2.0
#include "peer.h"

#include <simdjson.h>

#include <algorithm>
#include <stdexcept>

namespace gptq::bench {
namespace {

using simdjson::dom::element;

// 0, or otherwise, where the entry has no such field.
uint32_t number(const element& entry, const char* key, uint32_t otherwise = 0) {
  int64_t value = 0;
  return entry[key].get(value) ? otherwise : static_cast<uint32_t>(value);
}

// An entry with prompt and generation but no depth comes from a fork of llama-bench that words a decode behind a prompt so.
Test test_of(const element& entry) {
  Test test{number(entry, "n_prompt"), number(entry, "n_gen"), number(entry, "n_depth"), number(entry, "n_threads"), number(entry, "n_sessions", 1)};
  const bool has_depth = entry["n_depth"].error() == simdjson::SUCCESS;
  if (test.n_prompt && test.n_gen && !has_depth) test.n_depth = std::exchange(test.n_prompt, 0);
  return test;
}

std::vector<double> samples_of(const element& entry) {
  std::vector<double> samples;
  simdjson::dom::array list;
  double value;
  if (!entry["samples_ts"].get(list))
    for (const element& sample : list)
      if (!sample.get(value)) samples.push_back(value);
  if (samples.empty() && !entry["avg_ts"].get(value)) samples.push_back(value);
  return samples;
}

}  // namespace

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}

Peer::Peer(const std::string& path) : name_(path.substr(path.find_last_of('/') + 1)) {
  if (const size_t dot = name_.rfind(".json"); dot != std::string::npos) name_.resize(dot);
  simdjson::dom::parser parser;
  simdjson::dom::array list;
  if (const auto error = parser.load(path).get(list)) throw std::runtime_error(path + ": " + simdjson::error_message(error) + "; it has to be a list as llama-bench -o json writes it");
  for (const element& entry : list) {
    const std::vector<double> samples = samples_of(entry);
    if (samples.empty()) throw std::runtime_error(path + ": an entry has neither samples_ts nor avg_ts");
    entries_.push_back({test_of(entry), median(samples)});
  }
}

std::optional<double> Peer::find(const Test& test) const {
  for (const Entry& entry : entries_)
    if (entry.test == test) return entry.median;
  return std::nullopt;
}

}  // namespace gptq::bench
