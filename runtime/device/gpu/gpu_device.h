// SPDX-License-Identifier: Apache-2.0
// A GPU as a device: keeps a batch's numbers where the kernels read them, and puts the operations into the stream.
#pragma once
#include <bitset>
#include <functional>
#include <memory_resource>
#include <span>
#include <unordered_map>

#include "base/memory.h"
#include "device/gpu/gpu.h"
#include "device/device.h"

namespace gptq::device {

constexpr uint32_t recorded_rows_max = 64;

struct GpuLimits {
  gpu::Shape shape;
  uint32_t max_sessions, page_tokens, pages_per_session, max_logits, logits_width;  // logits_width: or that of hidden states
  uint32_t n_ropes = 0, rope_pairs[kernels::most_ropes] = {};
  std::span<const float> alibi_slopes = {};
  bool prepares = false;  // some inputs are made for products by kernels of their own
  uint64_t uploaded = 0;  // numbers that upload() is given at most
};

struct BatchSize {
  uint32_t rows, tiles, sequences;
};

// The arrays that say what a batch is, one behind another for just its size, at the same places of two blocks: one the host writes, one the
// kernels read. Batches of one size lie alike, so that recorded kernels find them.
struct GpuBatch {
  GpuBatch(const GpuLimits& limits, const BatchSize& size, base::Arena& arena);
  int32_t* tokens;       // [rows]
  gpu::Row* rows;       // [rows]
  gpu::Tile* tiles;     // [tiles]
  uint32_t* logit_rows;  // [rows]
  struct Turns {
    float *cos, *sin;    // [rows][pairs]
  } ropes[kernels::most_ropes];
  uint32_t* pages;       // [sequences][pages_per_session]
  uint64_t bytes;
};

// What the device makes for the host, and where the host gets it.
struct GpuResults {
  GpuResults(const GpuLimits& limits, base::Arena& arena);
  int32_t* best;          // [max_logits]
  Candidate* candidates;  // [max_logits][candidates_max]
};

// Everything on the device, and what the host has beside it.
struct GpuLayout {
  GpuLayout(const Gpu& gpu, const GpuLimits& limits, base::Arena& arena);
  gpu::Workspace workspace;  // first: aligned as the whole is
  std::byte* batch;
  GpuResults results;
  float* alibi_slopes;  // [n_heads] or NULL
  float* prepared;      // [rows][k]: what products read that is not x, its RMS norm or silu(x) * up
};
struct GpuHostLayout {
  GpuHostLayout(const GpuLimits& limits, base::Arena& arena);
  std::byte* batch;
  GpuResults results;
  float* logits;     // [max_logits][logits_width]
  float* uploaded;   // from here a copy does not wait for what is in the stream
};

class GpuDevice final : public Device {
 public:
  // What it takes on the device besides what is given to its operations.
  static uint64_t device_bytes(const Gpu& gpu, const GpuLimits& limits);
  GpuDevice(const Gpu& gpu, const GpuLimits& limits, std::pmr::memory_resource* memory);
  ~GpuDevice() override;

  void begin(const Batch& batch) override;
  void embed(const kernels::Matrix& table, float* x) override;
  void prepare(const Input& input, uint32_t rows) override;
  void matmul(std::span<const Product> products, bool accumulate) override;
  void append_kv(const KvCache& kv, const Heads& heads) override;
  void attention(const KvCache& kv, const float* q, float* out, const AttentionShape& shape) override;
  void select_rows(const float* x, uint32_t n, uint32_t first, uint32_t count, float* out) override;
  void norm(const float* x, const Norm& norm, float* y, uint32_t rows, uint32_t n) override;
  void scale(float* x, uint64_t count, float factor) override;
  void add(float* y, const float* x, uint64_t count, float factor) override;
  void gate(float* x, const float* gate, uint64_t count) override;
  void softcap(float* x, uint64_t count, float cap) override;
  void add_positions(const kernels::Matrix& table, uint32_t offset, float* x) override;

  // x = what lies on the host
  void upload(const float* host, uint64_t count, float* x);
  // Where the host finds y, once the work so far is done.
  const float* download(const float* y, uint64_t count);
  // Where it then finds each row's largest logit's token, -1 where one is not finite.
  const int32_t* best_tokens(const float* logits, uint32_t rows, uint32_t n);
  // The same of each row's `count` best, higher logits first, then lower tokens; the first token is -1 where a logit is not finite. NULL: they are
  // too many.
  const Candidate* candidates(const float* logits, uint32_t rows, uint32_t n, uint32_t count);
  // The same, to memory of the host that is copied at full speed.
  void download(const float* y, uint64_t count, float* to) { table_.copy_out(&stream_, to, y, count * sizeof(float)); }
  // x = what the work of another GPU so far leaves there; by: NULL, or where that has it downloaded.
  void take(GpuDevice& other, const float* from, const float* by, uint64_t count, float* x);
  // Whether it can take from the other without the host; and whether by way of the host in the streams' order.
  bool reaches(const GpuDevice& other) const { return follows(other) && table_.reaches(&stream_, &other.stream_); }
  bool follows(const GpuDevice& other) const { return &table_ == &other.table_; }
  // Waits for the work so far, at most so long (UINT32_MAX: to its end); whether all is done.
  bool finish(uint32_t wait_us);
  // Does again what was recorded with this key, for a batch of the same number of rows, one a sequence; false: nothing was.
  bool replay(uint32_t key);

  // How many rows a batch of n_rows rows, each of another sequence, is given: as many as the next larger recorded one has. What is added
  // are copies of a row, which write what that one writes.
  uint32_t padded_rows(uint32_t n_rows) const;
  // Keeps what work() does for replay(key), for batches of n_rows rows, each of another sequence; whole: what begin() gives the device as well.
  void record(uint32_t key, uint32_t n_rows, bool whole, const std::function<void()>& work);
  bool has(uint32_t key) const { return graphs_.contains(key); }
  // begin() for the replay of what was recorded as a whole.
  void begin_whole(const Batch& batch) { write(batch, batch.n_rows()); }
  // Where what best_tokens() found is, recorded or not.
  const int32_t* best() const { return host_.results.best; }

 private:
  void lay_out(const BatchSize& size);
  void write_rows(const Batch& batch, const GpuBatch& to);
  void write(const Batch& batch, uint32_t n_rows);
  void send();
  void pad_rows(const Batch& batch, uint32_t n_rows, const GpuBatch& to);
  void make_input(uint32_t k);
  bool watch();
  void change(kernels::Elementwise kind, const float* x, const float* y, float* out, uint64_t count, float factor);

  const Gpu& gpu_;
  const gpu::Backend& table_;
  gpu::Stream& stream_;
  const GpuLimits limits_;
  GpuMemory memory_, host_memory_;
  const GpuLayout own_;
  const GpuHostLayout host_;
  gpu::Batch view_{};          // of the batch in own_
  const uint32_t* logit_rows_ = nullptr;
  uint64_t bytes_ = 0;          // of all that
  GpuBatch::Turns turns_[kernels::most_ropes] = {};
  Input wanted_{};              // what prepare() was given
  gpu::Input input_{};         // what products read
  bool made_ = false;           // the one is the other
  gpu::AppendKvArgs append_{}; // what the attention that follows begins with
  bool one_row_each_ = false;   // every sequence has one
  uint32_t rows_ = 0;
  bool written_ = false;        // the host's block may still be on its way
  std::pmr::unordered_map<uint32_t, gpu::Graph*> graphs_;
  std::bitset<recorded_rows_max + 1> recorded_;  // numbers of rows
};

}  // namespace gptq::device
