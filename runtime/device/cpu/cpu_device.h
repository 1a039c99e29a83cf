// SPDX-License-Identifier: Apache-2.0
// The CPU as a device: cuts every operation into tasks for the pool and calls the kernels.
#pragma once
#include <algorithm>
#include <atomic>

#include "base/memory.h"
#include "base/threads.h"
#include "device/cpu/attention_plan.h"
#include "device/device.h"

namespace gptq::device {

struct CpuLimits {
  uint32_t rows;             // most rows of a batch
  uint32_t packed_rows;      // most rows of one product: with experts more than a batch has
  uint64_t packed_elements;  // most rows * columns of one product's input
  uint64_t finished;         // the same of inputs that are normed or activated, in true columns
  Activations activations;
  uint32_t n_heads, value_dim, ctx_tokens;
};

// Room for activations as the matrices want them, and for partial results of attention.
struct CpuScratch {
  CpuScratch(const CpuLimits& limits, base::Arena& arena);
  Activations activations;
  float* finished = nullptr;  // [rows][k]: inputs that are normed or activated
  kernels::Int8Activations packed{};
  float* gathered = nullptr;  // [rows][k_padded], except for int8
  uint16_t* gathered16() const { return reinterpret_cast<uint16_t*>(gathered); }  // the same as bfloat16
  AttentionRoom attention{};
};

class CpuDevice : public Device {
 public:
  static constexpr uint32_t tasks_per_thread = 4;  // so that a thread that is held up costs little
  CpuDevice(const kernels::Kernels& kernels, base::Pool& pool, const CpuScratch& scratch);

  void begin(const Batch& batch) override { batch_ = batch; }
  void embed(const kernels::Matrix& table, float* x) override;
  void prepare(const Input& input, uint32_t rows) override;
  void matmul(std::span<const Product> products, bool accumulate) override;
  void append_kv(const KvCache& kv, const Heads& heads) override;
  void attention(const KvCache& kv, const float* q, float* out, const AttentionShape& shape) override;
  void select_rows(const float* x, uint32_t n, uint32_t first, uint32_t count, float* out) override;
  // elementwise.cpp
  void norm(const float* x, const Norm& norm, float* y, uint32_t rows, uint32_t n) override;
  void scale(float* x, uint64_t count, float factor) override;
  void add(float* y, const float* x, uint64_t count, float factor) override;
  void gate(float* x, const float* gate, uint64_t count) override;
  void copy_columns(const Copy& copy) override;
  void gather_rows(const float* x, const uint32_t* rows, uint32_t count, uint32_t n, float* out) override;
  void mix_parts(const Mixture& mixture) override;
  void softcap(float* x, uint64_t count, float cap) override;
  void add_positions(const kernels::Matrix& table, uint32_t offset, float* x) override;
  void latent_heads(const LatentHeads& heads) override;
  // latent.cpp
  void latent_attention(const KvCache& kv, const LatentAttention& attention) override;
  // recurrent.cpp
  void convolve(const Convolution& convolution) override;
  void delta_rule(const DeltaRule& rule) override;

  // Room for what is between the two matrices of every change: [rows][width], width at least the ranks of all products that one matmul has.
  void set_low_rank_room(float* room, uint32_t width) { low_rank_room_ = room, low_rank_width_ = width; }
  void embed(const kernels::Matrix& table, std::span<const int32_t> tokens, float* x);
  // What the products read, in true order: [rows][k].
  const float* finish_input(const Input& input, uint32_t rows, uint32_t k);

 protected:
  const float* finish_rows(uint32_t k);
  uint32_t prepared_rows() const { return rows_; }

 private:
  // How a matrix reads its inputs here. rounded: to bfloat16, as float32, where there is no matmul_bf16.
  enum class Form : uint8_t { none, plain, int8, bf16, rounded, floats };
  Form form_of(const kernels::Matrix& w) const;
  bool is_packed_for(const kernels::Matrix& w) const;
  void pack(const kernels::Matrix& w);
  void pack_row(const kernels::Matrix& w, const float* x, uint32_t row);
  const float* finish_row(uint32_t row, uint32_t k);
  void multiply_group(std::span<const Product> products, bool accumulate);
  // low_rank.cpp
  bool in_8_bits() const;
  uint32_t ranks_at_once() const;
  uint32_t rank_of(const kernels::LowRank& change) const;
  struct Reduction {  // A x of all that is added to some products, in pieces
    const float* x = nullptr;
    uint32_t count = 0;
    std::atomic<uint32_t> next{0}, done{0};
  };
  uint32_t parts_of(const kernels::LowRank& change) const;
  uint32_t count_reductions(std::span<const Product> products) const;
  void reduce_one(std::span<const Product> products, const float* x, uint32_t number) const;
  void reduce(Reduction& reduction, std::span<const Product> products) const;
  static void wait_for(const Reduction& reduction);
  void reduce_rows(const Adapted& rows, const kernels::LowRank& change, const float* x, float* y, uint32_t first, uint32_t first_rank, uint32_t last_rank) const;
  void fetch_ahead(const Product& product, uint32_t first_block, uint32_t last_block) const;
  void expand(std::span<const Product> products, size_t index, uint32_t first_block, uint32_t last_block) const;
  float* reduced(const Adapted& rows, std::span<const Product> products, size_t index) const;
  void norm_rows(const float* x, const Norm& norm, float* y, uint32_t rows, uint32_t n) const;
  void activate(const Input& input, const float* x, const float* up, float* y, uint32_t n) const;
  void change(kernels::Elementwise kind, const float* x, const float* y, float* out, uint64_t count, float factor);
  void norm_heads(const HeadNorms& norms, const Norm& norm, float* x, uint32_t rows, uint32_t n_heads, uint32_t dim) const;
  void append_rows(const KvCache& kv, const Heads& heads, const Sequence& sequence, uint32_t first, uint32_t n_rows);
  void turn(int32_t rope, uint64_t row, float* x, uint32_t n_heads, uint32_t stride) const;
  void attend_latent(const KvCache& kv, const LatentAttention& attention);
  void merge_attention(const AttentionPlan& plan, float* out, const AttentionShape& shape, uint32_t value_dim, bool turned);
  uint32_t tasks_wanted() const { return pool_.threads() == 1 ? 0 : pool_.threads() * tasks_per_thread; }
  // Calls part(first, last) over 0..total in pieces of at least `least`.
  template <class F>
  void split(uint64_t total, uint64_t least, F&& part) {
    const uint64_t tasks = std::clamp<uint64_t>(total / least, 1, uint64_t(pool_.threads()) * tasks_per_thread);
    pool_.run(static_cast<uint32_t>(tasks), [&](uint32_t task) { part(total * task / tasks, total * (task + 1) / tasks); });
  }

  kernels::Kernels kernels_;
  base::Pool& pool_;
  const CpuScratch scratch_;
  Batch batch_;
  float* low_rank_room_ = nullptr;
  uint32_t low_rank_width_ = 0;

  // What is prepared, and the form it is packed in: that of packed_for_.
  Input input_{};
  uint32_t rows_ = 0;
  bool finished_ = false;  // scratch_.finished has it
  Form form_ = Form::none;
  kernels::Matrix packed_for_{};
};

}  // namespace gptq::device
