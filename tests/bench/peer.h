// SPDX-License-Identifier: Apache-2.0
// The figures of another program, read from the JSON list that llama-bench and gptq-bench write.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace gptq::bench {

struct Test {
  uint32_t n_prompt, n_gen, n_depth, n_threads, n_sessions;
  bool operator==(const Test&) const = default;
};

class Peer {
 public:
  explicit Peer(const std::string& path);
  const std::string& name() const { return name_; }
  // Median tokens per second of the test; none where the file does not have it.
  std::optional<double> find(const Test& test) const;

 private:
  struct Entry {
    Test test;
    double median;
  };
  std::string name_;
  std::vector<Entry> entries_;
};

// The middle of the values, or the mean of the two in the middle; not of an empty list.
double median(std::vector<double> values);

}  // namespace gptq::bench
