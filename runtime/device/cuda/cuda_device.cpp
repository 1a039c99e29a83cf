// SPDX-License-Identifier: Apache-2.0
#include "device/cuda/cuda_device.h"

#include <algorithm>

#include "base/failure.h"

namespace gptq::device {
namespace {

uint32_t group_of(const cuda::Shape& shape) { return shape.n_heads / shape.n_kv_heads; }
uint32_t tiles_of(uint32_t n_rows, uint32_t group) { return (n_rows * group + cuda::tile_pairs - 1) / cuda::tile_pairs; }

template <class Layout, class... Args>
uint64_t measure(const Args&... args) {
  base::Arena arena;
  Layout(args..., arena);
  return arena.used();
}
template <class Layout, class... Args>
Layout place(std::byte* base, const Args&... args) {
  base::Arena arena(base);
  return Layout(args..., arena);
}

// The largest's.
uint64_t batch_bytes(const CudaLimits& limits) {
  return measure<CudaBatch>(limits, BatchSize{limits.shape.rows, tiles_of(limits.shape.rows, group_of(limits.shape)) + limits.max_sessions, limits.max_sessions});
}

cuda::Workspace take_workspace(const Gpu& gpu, const CudaLimits& limits, base::Arena& arena) {
  const cuda::Backend& table = gpu.table();
  const uint64_t bytes = std::max(table.matmul_workspace(limits.shape, gpu.stream()), table.attention_workspace(limits.shape, gpu.stream()));
  return {arena.take<uint8_t>(bytes), bytes};
}

}  // namespace

CudaBatch::CudaBatch(const CudaLimits& limits, const BatchSize& size, base::Arena& arena)
    : tokens(arena.take<int32_t>(size.rows)),
      rows(arena.take<cuda::Row>(size.rows)),
      tiles(arena.take<cuda::Tile>(size.tiles)),
      logit_rows(arena.take<uint32_t>(size.rows)),
      cos(arena.take<float>(uint64_t{size.rows} * (limits.rope_dim / 2))),
      sin(arena.take<float>(uint64_t{size.rows} * (limits.rope_dim / 2))),
      pages(arena.take<uint32_t>(uint64_t{size.sequences} * limits.pages_per_session)),
      bytes(arena.used()) {}

CudaResults::CudaResults(const CudaLimits& limits, base::Arena& arena)
    : best(arena.take<int32_t>(limits.max_logits)), candidates(arena.take<Candidate>(uint64_t{limits.max_logits} * cuda::candidates_max)) {}

CudaLayout::CudaLayout(const Gpu& gpu, const CudaLimits& limits, base::Arena& arena)
    : workspace(take_workspace(gpu, limits, arena)), batch(arena.take<std::byte>(batch_bytes(limits))), results(limits, arena) {}

CudaHostLayout::CudaHostLayout(const CudaLimits& limits, base::Arena& arena)
    : batch(arena.take<std::byte>(batch_bytes(limits))), results(limits, arena), logits(arena.take<float>(uint64_t{limits.max_logits} * limits.n_vocab)) {}

uint64_t CudaDevice::device_bytes(const Gpu& gpu, const CudaLimits& limits) { return measure<CudaLayout>(gpu, limits); }

CudaDevice::CudaDevice(const Gpu& gpu, const CudaLimits& limits, std::pmr::memory_resource* memory)
    : gpu_(gpu),
      table_(gpu.table()),
      stream_(gpu.stream()),
      limits_(limits),
      memory_(gpu, device_bytes(gpu, limits)),
      host_memory_(gpu, measure<CudaHostLayout>(limits), GpuMemory::host),
      own_(place<CudaLayout>(memory_.data(), gpu, limits)),
      host_(place<CudaHostLayout>(host_memory_.data(), limits)),
      graphs_(memory) {}

CudaDevice::~CudaDevice() {
  cuda::Failure ignored;
  table_.finish(&stream_, UINT32_MAX, &ignored);
  for (const auto& [key, graph] : graphs_) table_.release_graph(graph);
}

void CudaDevice::lay_out(const BatchSize& size) {
  const auto b = place<CudaBatch>(own_.batch, limits_, size);
  view_ = {b.tokens, b.rows, b.cos, b.sin, b.tiles, b.pages, size.rows, size.tiles, 0};
  logit_rows_ = b.logit_rows;
}

void CudaDevice::write_rows(const Batch& batch, const CudaBatch& to) {
  const uint32_t group = group_of(limits_.shape);
  cuda::Tile* next_tile = to.tiles;
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const Sequence& s = batch.sequences[i];
    const auto first_page = static_cast<uint32_t>(i) * limits_.pages_per_session;
    for (uint32_t row = 0; row < s.n_rows; ++row) to.rows[s.first_row + row] = {s.first_position + row, first_page};
    for (uint32_t tile = 0; tile < tiles_of(s.n_rows, group); ++tile) *next_tile++ = {s.first_row, s.n_rows, tile * cuda::tile_pairs};
    const uint32_t n_positions = s.first_position + s.n_rows;
    std::copy_n(s.pages, (n_positions + limits_.page_tokens - 1) / limits_.page_tokens, to.pages + first_page);
    view_.n_positions = std::max(view_.n_positions, n_positions);
  }
}

void CudaDevice::begin(const Batch& batch) {
  if (written_) finish(UINT32_MAX);
  BatchSize size{batch.n_rows(), 0, static_cast<uint32_t>(batch.sequences.size())};
  for (const Sequence& s : batch.sequences) size.tiles += tiles_of(s.n_rows, group_of(limits_.shape));
  lay_out(size);
  const auto to = place<CudaBatch>(host_.batch, limits_, size);
  write_rows(batch, to);
  std::copy(batch.tokens.begin(), batch.tokens.end(), to.tokens);
  std::copy(batch.logit_rows.begin(), batch.logit_rows.end(), to.logit_rows);
  const uint64_t angles = uint64_t{size.rows} * (limits_.rope_dim / 2);
  std::copy_n(batch.ropes[0].cos, angles, to.cos);
  std::copy_n(batch.ropes[0].sin, angles, to.sin);
  table_.copy_in(&stream_, own_.batch, host_.batch, to.bytes);
  written_ = true;
}

void CudaDevice::embed(const kernels::Matrix& table, float* x) { table_.embed({table, view_, x}, stream_); }
void CudaDevice::upload(const float* host, uint64_t count, float* x) { table_.copy_in(&stream_, x, host, count * sizeof(float)); }

void CudaDevice::prepare(const Input& input, uint32_t rows) {
  input_ = {input.x, input.norm ? input.norm->weight : nullptr, input.up, input.norm ? input.norm->eps : 0};
  rows_ = rows;
}

void CudaDevice::matmul(std::span<const Product> products, bool accumulate) {
  cuda::MatmulArgs args{};
  for (const Product& p : products) args.products[args.n_products++] = {*p.w, p.bias, p.y};
  args.rows = rows_;
  args.input = input_;
  args.accumulate = accumulate;
  args.exact = limits_.shape.exact;
  args.workspace = own_.workspace;
  table_.matmul(args, stream_);
}

namespace {
cuda::KvCache kv_of(const KvCache& kv) {
  return {.base = reinterpret_cast<uint8_t*>(kv.base),
          .page_stride = kv.page_stride,
          .layer_stride = 0,
          .value_offset = kv.value_offset,
          .page_tokens = kv.page_tokens,
          .n_kv_heads = kv.n_kv_heads,
          .head_dim = kv.key_dim,
          .int8 = kv.kind == kernels::KvKind::i8};
}
}  // namespace

void CudaDevice::append_kv(const KvCache& kv, const Heads& h) {
  table_.append_kv({.batch = view_,
                    .kv = kv_of(kv),
                    .q = h.q,
                    .k = h.k,
                    .v = h.v,
                    .q_norm = h.norms.q.weight,
                    .k_norm = h.norms.k.weight,
                    .eps = h.norms.q.eps,
                    .n_heads = h.n_heads,
                    .rope_dim = limits_.rope_dim,
                    .layer = 0},
                   stream_);
}

void CudaDevice::attention(const KvCache& kv, const float* q, float* out, const AttentionShape& shape) {
  table_.attention({view_, kv_of(kv), q, out, shape.n_heads, 0, shape.window, shape.scale, own_.workspace}, stream_);
}

void CudaDevice::select_rows(const float* x, uint32_t n, uint32_t first, uint32_t count, float* out) {
  table_.select_rows({x, logit_rows_ + first, out, count, n}, stream_);
}

const float* CudaDevice::download(const float* y, uint64_t count) {
  table_.copy_out(&stream_, host_.logits, y, count * sizeof(float));
  return host_.logits;
}

const int32_t* CudaDevice::best_tokens(const float* logits, uint32_t rows, uint32_t n) {
  table_.best_token({logits, own_.results.best, rows, n}, stream_);
  table_.copy_out(&stream_, host_.results.best, own_.results.best, rows * sizeof(int32_t));
  return host_.results.best;
}

const Candidate* CudaDevice::candidates(const float* logits, uint32_t rows, uint32_t n, uint32_t count) {
  static_assert(sizeof(Candidate) == sizeof(cuda::Candidate));
  if (count > cuda::candidates_max) return nullptr;
  table_.candidates({logits, reinterpret_cast<cuda::Candidate*>(own_.results.candidates), rows, n, count}, stream_);
  table_.copy_out(&stream_, host_.results.candidates, own_.results.candidates, uint64_t{rows} * count * sizeof(Candidate));
  return host_.results.candidates;
}

bool CudaDevice::finish(uint32_t wait_us) {
  if (!gpu_.finish(wait_us)) return false;
  written_ = false;
  return true;
}

bool CudaDevice::replay(uint32_t key) {
  const auto at = graphs_.find(key);
  if (at == graphs_.end()) return false;
  table_.replay(&stream_, at->second);
  return true;
}

void CudaDevice::record(uint32_t key, uint32_t n_rows, const std::function<void()>& work) {
  lay_out({n_rows, n_rows * tiles_of(1, group_of(limits_.shape)), n_rows});
  view_.n_positions = limits_.shape.positions;
  table_.record_begin(&stream_);
  work();
  cuda::Graph* graph = nullptr;
  cuda::Failure failure{};
  check_gpu(table_.record_end(&stream_, &graph, &failure), failure, "a CUDA graph cannot be made");
  graphs_.emplace(key, graph);
}

}  // namespace gptq::device
