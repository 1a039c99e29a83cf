// SPDX-License-Identifier: Apache-2.0
// GGUF import: every block type against its definition, the mapping of names, rows and metadata, and files that lie.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <random>

#include "base/failure.h"
#include "converter/gguf/gguf_reader.h"
#include "converter/gguf/gguf_source.h"
#include "converter/tokenizer/description.h"
#include "kernels/half.h"
#include "tests/unit/checked_spec.h"

namespace gptq::test {
namespace {

using base::Failure;
using Bytes = std::vector<std::byte>;

// ---- block types: weight i of a block, one at a time, straight from the definition of the format ----

using Block = std::vector<uint8_t>;
double half_of(const Block& b, size_t at) { return kernels::float_from_half(static_cast<uint16_t>(b[at] | b[at + 1] << 8)); }
int bit_of(const Block& b, size_t at, size_t bit) { return b[at + bit / 8] >> bit % 8 & 1; }
int nibble_of(const Block& b, size_t at, size_t i) { return b[at + i % 16] >> (i < 16 ? 0 : 4) & 15; }

double q4_0(const Block& b, size_t i) { return half_of(b, 0) * (nibble_of(b, 2, i) - 8); }
double q4_1(const Block& b, size_t i) { return half_of(b, 0) * nibble_of(b, 4, i) + half_of(b, 2); }
double q5_0(const Block& b, size_t i) { return half_of(b, 0) * (nibble_of(b, 6, i) + 16 * bit_of(b, 2, i) - 16); }
double q5_1(const Block& b, size_t i) { return half_of(b, 0) * (nibble_of(b, 8, i) + 16 * bit_of(b, 4, i)) + half_of(b, 2); }
double q8_0(const Block& b, size_t i) { return half_of(b, 0) * static_cast<int8_t>(b[2 + i]); }

// The pair (scale, minimum) of sub-block g as two 6-bit fields.
std::pair<int, int> six_bit_pair(const Block& b, size_t g) {
  const uint8_t* s = b.data() + 4;
  if (g < 4) return {s[g] % 64, s[g + 4] % 64};
  return {s[g + 4] % 16 + 16 * (s[g - 4] / 64), s[g + 4] / 16 + 16 * (s[g] / 64)};
}
double k_quant(const Block& b, size_t i, int code) {
  const auto [scale, minimum] = six_bit_pair(b, i / 32);
  return half_of(b, 0) * scale * code - half_of(b, 2) * minimum;
}
int k_nibble(const Block& b, size_t at, size_t i) { return b[at + i / 64 * 32 + i % 32] >> (i % 64 < 32 ? 0 : 4) & 15; }
double q4_k(const Block& b, size_t i) { return k_quant(b, i, k_nibble(b, 16, i)); }
double q5_k(const Block& b, size_t i) { return k_quant(b, i, k_nibble(b, 48, i) + 16 * (b[16 + i % 32] >> i / 32 & 1)); }
double q6_k(const Block& b, size_t i) {
  const size_t half = i / 128, in_half = i % 128;
  const int lower = b[64 * half + in_half % 64] >> (in_half < 64 ? 0 : 4) & 15;
  const int upper = b[128 + 32 * half + in_half % 32] >> 2 * (in_half / 32) & 3;
  return half_of(b, 208) * static_cast<int8_t>(b[192 + i / 16]) * (lower + 16 * upper - 32);
}

TEST(Gguf, EveryBlockTypeAsDefined) {
  struct Case {
    uint32_t id;
    double (*weight)(const Block&, size_t);
    std::vector<size_t> halves;  // places of float16 numbers, made finite
  };
  const Case cases[] = {{2, q4_0, {0}},        {3, q4_1, {0, 2}},     {6, q5_0, {0}},    {7, q5_1, {0, 2}},
                        {8, q8_0, {0}},        {12, q4_k, {0, 2}},    {13, q5_k, {0, 2}}, {14, q6_k, {208}}};
  std::minstd_rand random(3);
  for (const Case& c : cases) {
    const convert::GgufType& type = convert::find_gguf_type(c.id, "t");
    for (int round = 0; round < 50; ++round) {
      Block block(type.block_bytes);
      for (uint8_t& byte : block) byte = static_cast<uint8_t>(random() >> 8);
      for (size_t at : c.halves) block[at + 1] &= 0xBB;
      std::vector<float> out(type.block, NAN);
      type.decode(block.data(), out.data());
      for (size_t i = 0; i < out.size(); ++i) {
        const double expected = c.weight(block, i), terms = std::abs(half_of(block, c.halves[0])) * 64 * 128 + std::abs(expected);
        ASSERT_NEAR(out[i], expected, 4e-7 * terms) << type.name << " weight " << i;
      }
    }
  }
}

// ---- a GGUF file in memory ----

class Builder {
 public:
  std::string architecture = "llama";
  uint32_t version = 3, weight_type = 8;  // Q8_0
  std::vector<std::string> dropped;       // keys and tensors to leave out
  std::function<void(Builder&)> more;     // adds keys

  template <class T>
  void number(const std::string& key, uint32_t type, T value) {
    if (!begin_value(key, type)) return;
    put(values_, value);
  }
  void count(const std::string& key, uint32_t value) { number(key, 4, value); }
  void text(const std::string& key, std::string_view value) {
    if (begin_value(key, 8)) put_text(values_, value);
  }
  void texts(const std::string& key, const std::vector<std::string>& items) {
    if (!begin_value(key, 9)) return;
    put(values_, uint32_t{8});
    put(values_, uint64_t{items.size()});
    for (const std::string& item : items) put_text(values_, item);
  }
  void integers(const std::string& key, const std::vector<int32_t>& items) {
    if (!begin_value(key, 9)) return;
    put(values_, uint32_t{5});
    put(values_, uint64_t{items.size()});
    for (int32_t item : items) put(values_, item);
  }
  void tensor(const std::string& name, std::vector<uint64_t> dims, uint32_t type, const Bytes& data) {
    if (std::find(dropped.begin(), dropped.end(), name) != dropped.end()) return;
    put_text(infos_, name);
    put(infos_, static_cast<uint32_t>(dims.size()));
    for (uint64_t dim : dims) put(infos_, dim);
    put(infos_, type);
    put(infos_, uint64_t{data_.size()});
    data_.insert(data_.end(), data.begin(), data.end());
    data_.resize((data_.size() + 31) / 32 * 32);
    ++n_tensors_;
  }

  // Two heads of 16, one shared key head; row r of every matrix is filled with the value r (q8_0: scale 1).
  Bytes build() {
    const std::string a = architecture + ".";
    text("general.architecture", architecture);
    text("general.name", "Tiny");
    text("general.license", "mit");
    count(a + "block_count", 1);
    count(a + "context_length", 128);
    count(a + "embedding_length", 32);
    count(a + "feed_forward_length", 64);
    count(a + "attention.head_count", 2);
    count(a + "attention.head_count_kv", 1);
    number(a + "attention.layer_norm_rms_epsilon", 6, 1e-5f);
    number(a + "rope.freq_base", 6, 500000.0f);
    text("tokenizer.ggml.model", "gpt2");
    text("tokenizer.ggml.pre", "gpt-2");
    texts("tokenizer.ggml.tokens", {"<s>", "a", "b", "ab"});
    texts("tokenizer.ggml.merges", {"a b"});
    integers("tokenizer.ggml.token_type", {3, 1, 1, 1});
    count("tokenizer.ggml.bos_token_id", 0);
    count("tokenizer.ggml.eos_token_id", 0);
    count("tokenizer.ggml.eot_token_id", 3);
    text("tokenizer.chat_template", "{{ messages }}");
    if (more) more(*this);
    matrix("token_embd.weight", 4, 32);
    vector("output_norm.weight", 32);
    matrix("output.weight", 4, 32);
    for (const char* norm : {"attn_norm", "ffn_norm"}) vector(std::string("blk.0.") + norm + ".weight", 32);
    if (architecture == "qwen3")
      for (const char* norm : {"attn_q_norm", "attn_k_norm"}) vector(std::string("blk.0.") + norm + ".weight", 16);
    matrix("blk.0.attn_q.weight", 32, 32);
    vector("blk.0.attn_q.bias", 32);
    matrix("blk.0.attn_k.weight", 16, 32);
    matrix("blk.0.attn_v.weight", 16, 32);
    matrix("blk.0.attn_output.weight", 32, 32);
    matrix("blk.0.ffn_gate.weight", 64, 32);
    matrix("blk.0.ffn_up.weight", 64, 32);
    matrix("blk.0.ffn_down.weight", 32, 64);
    Bytes out;
    put(out, uint32_t{0x46554747});
    put(out, version);
    put(out, n_tensors_);
    put(out, n_keys_);
    out.insert(out.end(), values_.begin(), values_.end());
    out.insert(out.end(), infos_.begin(), infos_.end());
    header_size = out.size();
    out.resize((out.size() + 31) / 32 * 32);
    out.insert(out.end(), data_.begin(), data_.end());
    return out;
  }
  size_t header_size = 0;

 private:
  template <class T>
  static void put(Bytes& out, T value) {
    const auto bytes = std::as_bytes(std::span(&value, 1));
    out.insert(out.end(), bytes.begin(), bytes.end());
  }
  static void put_text(Bytes& out, std::string_view value) {
    put(out, uint64_t{value.size()});
    const auto bytes = std::as_bytes(std::span(value));
    out.insert(out.end(), bytes.begin(), bytes.end());
  }
  bool begin_value(const std::string& key, uint32_t type) {
    if (std::find(dropped.begin(), dropped.end(), key) != dropped.end()) return false;
    put_text(values_, key);
    put(values_, type);
    ++n_keys_;
    return true;
  }
  void matrix(const std::string& name, uint64_t n, uint64_t k) {
    Bytes data;
    for (uint64_t row = 0; row < n; ++row) {
      for (uint64_t block = 0; block < k / 32; ++block) {
        put(data, uint16_t{0x3C00});
        for (int i = 0; i < 32; ++i) put(data, static_cast<uint8_t>(row));
      }
    }
    tensor(name, {k, n}, weight_type, data);
  }
  void vector(const std::string& name, uint64_t n) {
    Bytes data;
    for (uint64_t i = 0; i < n; ++i) put(data, static_cast<float>(i));
    tensor(name, {n}, 0, data);
  }

  Bytes values_, infos_, data_;
  uint64_t n_keys_ = 0, n_tensors_ = 0;
};

class OwnedSource final : public base::Source {
 public:
  explicit OwnedSource(Bytes bytes) : bytes_(std::move(bytes)), source_(bytes_) {}
  uint64_t size() const override { return source_.size(); }
  void read_at(uint64_t offset, std::span<std::byte> dst) const override { source_.read_at(offset, dst); }

 private:
  Bytes bytes_;
  base::MemorySource source_;
};

std::unique_ptr<convert::ModelSource> open(Bytes bytes) {
  return convert::open_gguf(std::make_unique<OwnedSource>(std::move(bytes)), "tiny.gguf", {});
}

model::ModelSpec checked(const convert::ModelSource& source) { return checked_spec(source.description().spec); }

// Opens it and takes everything out, as a conversion does.
gptq_status import(Bytes bytes, std::string* message = nullptr) {
  try {
    const auto source = open(std::move(bytes));
    for (const model::Slot& slot : model::weight_slots(checked(*source), std::pmr::get_default_resource()))
      if (std::holds_alternative<std::monostate>(source->load(slot)) && slot.required)
        base::fail(GPTQ_E_FORMAT, "missing: ", std::string_view(slot.name));
    if (source->description().tokenizer) convert::compile_tokenizer(*source->description().tokenizer);
    return GPTQ_OK;
  } catch (const Failure& failure) {
    if (message) *message = failure.detail.message;
    return failure.detail.status;
  }
}

std::vector<float> floats_of(const convert::Weight& weight) {
  const auto& dense = std::get<convert::DenseWeight>(weight);
  std::vector<float> out;
  for (size_t i = 0; i < dense.bytes.size(); i += dense.kind == kernels::Kind::f32 ? 4 : 2) {
    uint32_t word = 0;
    std::memcpy(&word, dense.bytes.data() + i, dense.kind == kernels::Kind::f32 ? 4 : 2);
    out.push_back(dense.kind == kernels::Kind::f32 ? kernels::float_from_bits(word)
                                                   : kernels::float_from_half(static_cast<uint16_t>(word)));
  }
  return out;
}

convert::Weight load(convert::ModelSource& source, std::string_view name) {
  for (const model::Slot& slot : model::weight_slots(checked(source), std::pmr::get_default_resource()))
    if (slot.name == name) return source.load(slot);
  throw std::out_of_range(std::string(name));
}

TEST(Gguf, Metadata) {
  std::string message;
  for (const char* architecture : {"llama", "qwen2", "qwen3"}) {
    Builder builder;
    builder.architecture = architecture;
    EXPECT_EQ(import(builder.build(), &message), GPTQ_OK) << architecture << ": " << message;
  }
  Builder builder;
  builder.more = [](Builder& b) { b.count("llama.attention.sliding_window", 32); };
  const auto source = open(builder.build());
  const auto& d = source->description();
  EXPECT_EQ(d.spec.n_vocab, 4u);
  EXPECT_EQ(d.spec.n_embd, 32u);
  EXPECT_EQ(d.spec.n_ff, 64u);
  EXPECT_EQ(d.spec.n_heads, 2u);
  EXPECT_EQ(d.spec.n_kv_heads, 1u);
  EXPECT_EQ(d.spec.head_dim, 16u);
  EXPECT_EQ(d.spec.n_ctx_train, 128u);
  EXPECT_EQ(d.spec.window, 32u);
  EXPECT_FALSE(d.spec.tied_head);
  EXPECT_FLOAT_EQ(d.spec.norm_eps, 1e-5f);
  EXPECT_FLOAT_EQ(d.spec.attention_scale, 0.25f);
  EXPECT_FLOAT_EQ(d.spec.rope->inv_freq[4], static_cast<float>(std::pow(500000.0, -0.5)));
  EXPECT_EQ(d.generation.eos, 0);
  EXPECT_EQ(d.generation.end_tokens, (std::vector<int32_t>{0, 3}));
  const std::vector<std::pair<std::string, std::string>> meta{{"name", "Tiny"}, {"license", "mit"}, {"source", "GGUF file tiny.gguf"},
    {"architecture", "LlamaForCausalLM"}, {"quantization", "GGUF: 9 of Q8_0"}, {"chat_template", "{{ messages }}"},
    {"end_tokens", "0 the file's eos; 3 the file's eot"}};
  EXPECT_EQ(d.meta, meta);
  ASSERT_TRUE(d.tokenizer);
  EXPECT_EQ(d.tokenizer->tokens.size(), 4u);
}

TEST(Gguf, TiedHeadWhereOutputIsAbsent) {
  Builder builder;
  builder.dropped = {"output.weight"};
  EXPECT_TRUE(open(builder.build())->description().spec.tied_head);
}

// Llama's rows come interleaved: row 2j + h of a head belongs to place h * dim/2 + j. Qwen's rows are in place already.
TEST(Gguf, RotaryRowsAreReordered) {
  for (const bool permuted : {true, false}) {
    Builder builder;
    builder.architecture = permuted ? "llama" : "qwen2";
    const auto source = open(builder.build());
    const std::vector<float> q = floats_of(load(*source, "layers.0.q")), bias = floats_of(load(*source, "layers.0.q.bias")),
                             v = floats_of(load(*source, "layers.0.v"));
    for (size_t row = 0; row < 32; ++row) {
      const size_t head = row / 16, half = row % 16 / 8, j = row % 8;
      const float expected = static_cast<float>(permuted ? head * 16 + 2 * j + half : row);
      EXPECT_EQ(q[row * 32], expected) << row;
      EXPECT_EQ(q[row * 32 + 31], expected) << row;
      EXPECT_EQ(bias[row], expected) << row;
    }
    for (size_t row = 0; row < 16; ++row) EXPECT_EQ(v[row * 32], static_cast<float>(row));
  }
}

TEST(Gguf, RopeScaling) {
  const auto with = [](const std::function<void(Builder&)>& more) {
    Builder builder;
    builder.more = more;
    return std::move(*open(builder.build())->description().spec.rope);
  };
  const auto plain = with([](Builder&) {});
  const auto linear = with([](Builder& b) { b.text("llama.rope.scaling.type", "linear"), b.number("llama.rope.scaling.factor", 6, 4.0f); });
  for (size_t j = 0; j < 8; ++j) EXPECT_FLOAT_EQ(linear.inv_freq[j], plain.inv_freq[j] / 4);
  const auto yarn = with([](Builder& b) {
    b.text("llama.rope.scaling.type", "yarn"), b.number("llama.rope.scaling.factor", 6, 4.0f),
        b.count("llama.rope.scaling.original_context_length", 32);
  });
  EXPECT_FLOAT_EQ(yarn.scale, static_cast<float>(0.1 * std::log(4.0) + 1));
  EXPECT_FLOAT_EQ(yarn.inv_freq[0], plain.inv_freq[0]);
  EXPECT_FLOAT_EQ(yarn.inv_freq[7], plain.inv_freq[7] / 4);
  const auto factors = with([](Builder& b) {
    Bytes data(32);
    for (size_t j = 0; j < 8; ++j) {
      const float factor = static_cast<float>(j + 1);
      std::memcpy(data.data() + 4 * j, &factor, 4);
    }
    b.tensor("rope_freqs.weight", {8}, 0, data);
  });
  for (size_t j = 0; j < 8; ++j) EXPECT_FLOAT_EQ(factors.inv_freq[j], plain.inv_freq[j] / static_cast<float>(j + 1));
}

TEST(Gguf, RefusedByName) {
  const auto expect = [](std::string_view word, gptq_status status, const std::function<void(Builder&)>& change) {
    Builder builder;
    change(builder);
    std::string message;
    EXPECT_EQ(import(builder.build(), &message), status) << message;
    EXPECT_NE(message.find(word), message.npos) << "'" << word << "' is not in '" << message << "'";
  };
  const auto with_key = [](const std::function<void(Builder&)>& more) { return [more](Builder& b) { b.more = more; }; };
  expect("mamba", GPTQ_E_UNSUPPORTED, [](Builder& b) { b.architecture = "mamba"; });
  expect("IQ4_NL", GPTQ_E_UNSUPPORTED, [](Builder& b) { b.weight_type = 20; });
  expect("number 77", GPTQ_E_UNSUPPORTED, [](Builder& b) { b.weight_type = 77; });
  expect("version 1", GPTQ_E_UNSUPPORTED, [](Builder& b) { b.version = 1; });
  expect("big-endian", GPTQ_E_UNSUPPORTED, [](Builder& b) { b.version = 0x03000000; });
  expect("llama.expert_used_count", GPTQ_E_FORMAT, with_key([](Builder& b) { b.count("llama.expert_count", 8); }));
  expect("part 1 of 2", GPTQ_E_UNSUPPORTED, with_key([](Builder& b) { b.number("split.count", 2, uint16_t{2}); }));
  expect("part 3 of 4 of a split model: join the parts", GPTQ_E_UNSUPPORTED, [](Builder& b) {  // it says nothing of the model
    b.dropped = {"general.architecture", "llama.block_count", "llama.embedding_length"};
    b.more = [](Builder& builder) { builder.number("split.count", 2, uint16_t{4}), builder.number("split.no", 2, uint16_t{2}); };
  });
  expect("longrope", GPTQ_E_UNSUPPORTED, with_key([](Builder& b) { b.text("llama.rope.scaling.type", "longrope"); }));
  expect("general.alignment", GPTQ_E_FORMAT, with_key([](Builder& b) { b.count("general.alignment", 24); }));
  expect("twice", GPTQ_E_FORMAT, with_key([](Builder& b) { b.text("general.name", "again"); }));
  expect("twice", GPTQ_E_FORMAT, with_key([](Builder& b) { b.tensor("output_norm.weight", {1}, 0, Bytes(4)); }));
  expect("layers.0.v", GPTQ_E_FORMAT, [](Builder& b) { b.dropped = {"blk.0.attn_v.weight"}; });
  for (const auto& [key, words] : {std::pair{"llama.embedding_length", "hidden_size = 2147483647 is more than the 65536"}, {"llama.attention.key_length", "head_dim = 2147483647"}}) {
    const std::string name = key;
    expect(words, GPTQ_E_FORMAT, [name](Builder& b) {
      b.dropped = {name};
      b.more = [name](Builder& builder) { builder.dropped.clear(), builder.count(name, INT32_MAX); };
    });
  }
  expect("is out of range", GPTQ_E_FORMAT, with_key([](Builder& b) { b.number("split.count", 10, UINT64_MAX); }));
  expect("does not hold 8 numbers", GPTQ_E_FORMAT, with_key([](Builder& b) { b.tensor("rope_freqs.weight", {3}, 0, Bytes(12)); }));
  expect("a factor that is not positive", GPTQ_E_FORMAT, with_key([](Builder& b) { b.tensor("rope_freqs.weight", {8}, 0, Bytes(32)); }));
  expect("different lengths", GPTQ_E_UNSUPPORTED, with_key([](Builder& b) { b.count("llama.attention.value_length", 3); }));
  expect("the chat template has 262145 bytes", GPTQ_E_UNSUPPORTED, [](Builder& b) {
    b.dropped = {"tokenizer.chat_template"};
    b.more = [](Builder& builder) { builder.dropped.clear(), builder.text("tokenizer.chat_template", std::string((256 << 10) + 1, 'x')); };
  });
  expect("block_count", GPTQ_E_FORMAT, [](Builder& b) { b.dropped = {"llama.block_count"}; });
  expect("head_count", GPTQ_E_FORMAT, [](Builder& b) { b.dropped = {"llama.attention.head_count"}; });
}

bool clean(gptq_status status) { return status == GPTQ_E_FORMAT || status == GPTQ_E_UNSUPPORTED || status == GPTQ_E_OUT_OF_MEMORY; }

TEST(Gguf, SaysWhatElseItIs) {
  const auto message_of = [](std::string text) {
    text.resize(200, 'x');
    const auto bytes = std::as_bytes(std::span(text));
    std::string message;
    EXPECT_EQ(import(Bytes(bytes.begin(), bytes.end()), &message), GPTQ_E_FORMAT);
    return message;
  };
  EXPECT_NE(message_of("version https://git-lfs.github.com/spec/v1\n").find("a git-lfs pointer"), std::string::npos);
  EXPECT_NE(message_of("tjgg\3").find("older than GGUF"), std::string::npos);
  EXPECT_NE(message_of("<!DOCTYPE html>").find("a web page"), std::string::npos);
  EXPECT_NE(message_of("anything").find("its first bytes differ"), std::string::npos);
}

TEST(Gguf, EveryTruncationIsRefused) {
  const Bytes file = Builder().build();
  for (size_t size = 0; size < file.size(); ++size)
    ASSERT_TRUE(clean(import(Bytes(file.begin(), file.begin() + static_cast<ptrdiff_t>(size))))) << size;
}

// Every byte of the header and every word from it: counts, lengths, types, dimensions, offsets. What passes must be harmless.
TEST(Gguf, EveryHeaderWordMutated) {
  Builder builder;
  const Bytes file = builder.build();
  constexpr uint64_t edges[] = {0, 1, 9, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x1FFFFFFFFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFE0,
      0xFFFFFFFFFFFFFFFF};
  size_t n_refused = 0;
  for (size_t at = 0; at + 8 <= builder.header_size; ++at) {
    for (uint64_t value : edges) {
      Bytes changed = file;
      std::memcpy(changed.data() + at, &value, value <= 0xFF ? 1 : value <= 0xFFFFFFFF ? 4 : 8);
      const gptq_status status = import(std::move(changed));
      ASSERT_TRUE(status == GPTQ_OK || clean(status)) << "byte " << at << " = " << value << ": " << status;
      n_refused += status != GPTQ_OK ? 1 : 0;
    }
  }
  EXPECT_GT(n_refused, builder.header_size * 5);
}

}  // namespace
}  // namespace gptq::test
