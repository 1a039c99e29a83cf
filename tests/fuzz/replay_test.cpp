// SPDX-License-Identifier: Apache-2.0
// Every fuzz target on its corpus and on what random changes make of that: as many inputs as GPTQ_FUZZ_INPUTS says. The input at work is kept in a file, which a
// crash leaves behind.
#include <gtest/gtest.h>

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <vector>

#include "tests/frugal.h"
#include "tests/fuzz/target.h"
#include "tests/seed.h"

namespace gptq::fuzz {
namespace {

using Input = std::vector<uint8_t>;
constexpr size_t largest = 1 << 20;
#ifdef GPTQ_SANITIZED
constexpr size_t usual_inputs = 3000;
#else
constexpr size_t usual_inputs = 150000;
#endif

Input read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// As checkpoint_fuzz.cpp has it.
Input checkpoint(const std::filesystem::path& folder) {
  const Input config = read(folder / "config.json"), weights = read(folder / "model.safetensors");
  Input all{static_cast<uint8_t>(config.size()), static_cast<uint8_t>(config.size() >> 8)};
  all.insert(all.end(), config.begin(), config.end());
  all.insert(all.end(), weights.begin(), weights.end());
  return all;
}

// In tests/fuzz/corpus/NAME, and the golden files that are one.
std::vector<Input> corpus_of(const std::string& name) {
  const std::filesystem::path golden = std::getenv("GPTQ_GOLDEN");
  std::vector<std::filesystem::path> paths;
  const auto add = [&](const std::filesystem::path& folder, const std::string& ending) {
    if (!std::filesystem::is_directory(folder)) return;
    for (const auto& entry : std::filesystem::directory_iterator(folder))
      if (entry.is_regular_file() && entry.path().string().ends_with(ending)) paths.push_back(entry.path());
  };
  add(golden / ".." / "fuzz" / "corpus" / name, "");
  if (name == "container") add(golden, ".gptq");
  if (name == "save") add(golden, ".save");
  std::sort(paths.begin(), paths.end());
  std::vector<Input> inputs;
  for (const auto& path : paths) inputs.push_back(read(path));
  if (name == "checkpoint")
    for (const char* family : {"checkpoints/random-mistral-window-w4-g64", "families/mixtral-w4-g32", "families/opt-350m-like-w4-g64", "families/gpt-oss-w4-g32"})
      inputs.push_back(checkpoint(golden / family));
  return inputs;
}

// A few of the changes that find most: bits, bytes, numbers, parts cut out, doubled, or taken from another input.
class Mutator {
 public:
  Mutator(const std::vector<Input>& corpus, uint32_t seed) : corpus_(corpus), random_(seed) {}
  Input next() {
    Input input = corpus_[below(corpus_.size())];
    for (size_t n = 1 + below(4); n--;) change(input);
    if (input.size() > largest) input.resize(largest);
    return input;
  }

 private:
  size_t below(size_t n) { return n ? std::uniform_int_distribution<size_t>(0, n - 1)(random_) : 0; }
  void change(Input& input) {
    const size_t size = input.size(), at = below(size + 1), n = 1 + below(below(4) ? 8 : size + 1);
    const auto here = input.begin() + static_cast<ptrdiff_t>(at);
    const size_t left = std::min(n, size - at);
    switch (below(8)) {
      case 0:
        if (left) input[at] ^= static_cast<uint8_t>(1u << below(8));
        break;
      case 1:
        if (left) input[at] = static_cast<uint8_t>(below(256));
        break;
      case 2: {  // a number that is a limit
        constexpr uint64_t limits[] = {0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, ~uint64_t{0}};
        const uint64_t limit = limits[below(std::size(limits))];
        if (left) std::memcpy(&input[at], &limit, std::min<size_t>(size_t{1} << below(4), size - at));
        break;
      }
      case 3: input.erase(here, here + static_cast<ptrdiff_t>(left)); break;
      case 4: {
        const Input copy(here, here + static_cast<ptrdiff_t>(left));
        input.insert(input.begin() + static_cast<ptrdiff_t>(below(size + 1)), copy.begin(), copy.end());
        break;
      }
      case 5: {
        const Input& other = corpus_[below(corpus_.size())];
        const size_t from = below(other.size()), most = std::min(n, other.size() - from);
        input.insert(here, other.begin() + static_cast<ptrdiff_t>(from), other.begin() + static_cast<ptrdiff_t>(from + most));
        break;
      }
      case 6:
        for (size_t i = 0; i < left; ++i) input[at + i] = static_cast<uint8_t>(below(256));
        break;
      case 7: input.resize(at); break;
    }
  }
  const std::vector<Input>& corpus_;
  std::mt19937 random_;
};

// The input at work, also after a crash.
class Witness {
 public:
  explicit Witness(const std::string& name) : path_(std::filesystem::temp_directory_path() / ("gptq-fuzz-" + name)) {
    std::ofstream(path_, std::ios::binary) << std::string(largest + sizeof(uint64_t), 0);
    FILE* const file = std::fopen(path_.c_str(), "r+b");
    if (void* at = file ? mmap(nullptr, largest + sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file), 0) : MAP_FAILED; at != MAP_FAILED)
      at_ = static_cast<uint8_t*>(at);
    if (file) std::fclose(file);
  }
  ~Witness() {
    if (at_) munmap(at_, largest + sizeof(uint64_t));
    if (!stays_) std::filesystem::remove(path_);
  }
  void stay() { stays_ = true; }
  // The size, then the bytes.
  void keep(const Input& input) {
    const uint64_t size = input.size();
    if (!at_) return;
    std::memcpy(at_, &size, sizeof size);
    if (size) std::memcpy(at_ + sizeof size, input.data(), input.size());
  }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
  uint8_t* at_ = nullptr;
  bool stays_ = false;
};

// Beside twice the input. Three have an engine; of a tokenizer's splitting patterns there are tables.
int64_t bytes_max(std::string_view name) {
  return name == "calls" || name == "save" || name == "constraint" ? 64 << 20 : name == "tokenizer" ? 4 << 20 : test::hostile_bytes_max;
}

class Replay : public testing::Test {
 public:
  Replay(std::string name, Target target) : name_(std::move(name)), target_(target) {}
  void TestBody() override {
    if (!std::getenv("GPTQ_GOLDEN")) GTEST_SKIP() << "GPTQ_GOLDEN is not set; meson test sets it to tests/golden";
    const std::vector<Input> corpus = corpus_of(name_);
    ASSERT_FALSE(corpus.empty()) << "no corpus for " << name_;
    const char* asked = std::getenv("GPTQ_FUZZ_INPUTS");
    const size_t inputs = asked ? std::strtoull(asked, nullptr, 10) : name_ == "checkpoint" ? usual_inputs / 50 : name_ == "tokenizer" ? usual_inputs / 10 : usual_inputs;
    Witness witness(name_);
    std::printf("the input at work is in %s\n", witness.path().c_str());
    Mutator mutator(corpus, test::seed(1));
    double slowest = 0;
    int64_t largest_heap = 0;
    for (size_t i = 0; i < corpus.size() + inputs; ++i) {
      const Input input = i < corpus.size() ? corpus[i] : mutator.next();
      witness.keep(input);
      const test::Cost cost = test::cost_of([&] { target_(input.data(), input.size()); });
      slowest = std::max(slowest, cost.ms);
      largest_heap = std::max(largest_heap, cost.bytes - 2 * static_cast<int64_t>(input.size()));
      if (cost.ms > test::hostile_ms_max) {
        witness.stay();
        FAIL() << "input " << i << " of " << input.size() << " bytes takes " << cost.ms << " ms: " << witness.path();
      }
    }
    EXPECT_LT(largest_heap, bytes_max(name_));
    std::printf("fuzz %s: %zu inputs, the slowest %.0f ms, memory at most twice the input and %.1f MiB\n", name_.c_str(), corpus.size() + inputs, slowest,
                static_cast<double>(largest_heap) / (1 << 20));
  }

 private:
  const std::string name_;
  const Target target_;
};

}  // namespace
}  // namespace gptq::fuzz

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  for (const auto& [name, target] : gptq::fuzz::targets())
    testing::RegisterTest("Fuzz", name.c_str(), nullptr, nullptr, __FILE__, __LINE__,
                          [name = name, target = target]() -> testing::Test* { return new gptq::fuzz::Replay(name, target); });
  return RUN_ALL_TESTS();
}
