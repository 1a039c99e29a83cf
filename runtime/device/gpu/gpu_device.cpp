// SPDX-License-Identifier: Apache-2.0
#include "device/gpu/gpu_device.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/failure.h"

namespace gptq::device {
namespace {

uint32_t group_of(const gpu::Shape& shape) { return shape.n_heads / shape.n_kv_heads; }
uint32_t tiles_of(uint32_t n_rows, uint32_t group) { return (n_rows * group + gpu::tile_pairs - 1) / gpu::tile_pairs; }

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

uint32_t most_tiles(const GpuLimits& limits) { return tiles_of(limits.shape.rows, group_of(limits.shape)) + limits.max_sessions; }
uint64_t n_counters(const GpuLimits& limits) {
  return std::max<uint64_t>(gpu::attention_counters(most_tiles(limits), limits.shape.n_kv_heads), limits.max_logits);
}

// The largest's.
uint64_t batch_bytes(const GpuLimits& limits) {
  return measure<GpuBatch>(limits, BatchSize{limits.shape.rows, most_tiles(limits), limits.max_sessions});
}

gpu::Workspace take_workspace(const Gpu& gpu, const GpuLimits& limits, base::Arena& arena) {
  const gpu::Backend& table = gpu.table();
  const uint64_t bytes = std::max({table.matmul_workspace(limits.shape, gpu.stream()), table.attention_workspace(limits.shape, gpu.stream()),
                                   gpu::sampling_workspace(limits.max_logits)});
  uint8_t* data = arena.take<uint8_t>(bytes);
  return {data, bytes, arena.take<uint32_t>(n_counters(limits))};
}

}  // namespace

GpuBatch::GpuBatch(const GpuLimits& limits, const BatchSize& size, base::Arena& arena)
    : tokens(arena.take<int32_t>(size.rows)),
      rows(arena.take<gpu::Row>(size.rows)),
      tiles(arena.take<gpu::Tile>(size.tiles)),
      logit_rows(arena.take<uint32_t>(size.rows)),
      ropes{} {
  for (uint32_t i = 0; i < limits.n_ropes; ++i) {
    const uint64_t angles = uint64_t{size.rows} * limits.rope_pairs[i];
    ropes[i].cos = arena.take<float>(angles);
    ropes[i].sin = arena.take<float>(angles);
  }
  pages = arena.take<uint32_t>(uint64_t{size.sequences} * limits.pages_per_session);
  bytes = arena.used();
}

GpuResults::GpuResults(const GpuLimits& limits, base::Arena& arena)
    : best(arena.take<int32_t>(limits.max_logits)), candidates(arena.take<Candidate>(uint64_t{limits.max_logits} * gpu::candidates_max)) {}

GpuLayout::GpuLayout(const Gpu& gpu, const GpuLimits& limits, base::Arena& arena)
    : workspace(take_workspace(gpu, limits, arena)), batch(arena.take<std::byte>(batch_bytes(limits))), results(limits, arena),
      alibi_slopes(limits.alibi_slopes.empty() ? nullptr : arena.take<float>(limits.alibi_slopes.size())),
      prepared(limits.prepares ? arena.take<float>(uint64_t{limits.shape.rows} * limits.shape.k) : nullptr) {}

GpuHostLayout::GpuHostLayout(const GpuLimits& limits, base::Arena& arena)
    : batches{}, results(limits, arena), logits(arena.take<float>(uint64_t{limits.max_logits} * limits.logits_width)),
      uploaded(arena.take<float>(limits.uploaded)) {
  for (std::byte*& batch : batches) batch = arena.take<std::byte>(batch_bytes(limits));
}

uint64_t GpuDevice::device_bytes(const Gpu& gpu, const GpuLimits& limits) { return measure<GpuLayout>(gpu, limits); }

GpuDevice::GpuDevice(const Gpu& gpu, const GpuLimits& limits, std::pmr::memory_resource* memory)
    : gpu_(gpu),
      table_(gpu.table()),
      stream_(gpu.stream()),
      limits_(limits),
      memory_(gpu, device_bytes(gpu, limits)),
      host_memory_(gpu, measure<GpuHostLayout>(limits), GpuMemory::host),
      own_(place<GpuLayout>(memory_.data(), gpu, limits)),
      host_(place<GpuHostLayout>(host_memory_.data(), limits)),
      graphs_(memory) {
  table_.clear(&stream_, own_.workspace.counters, n_counters(limits) * sizeof(uint32_t));
  const std::span<const float> slopes = limits.alibi_slopes;
  if (!slopes.empty()) table_.copy_in(&stream_, own_.alibi_slopes, slopes.data(), slopes.size_bytes());
}

GpuDevice::~GpuDevice() {
  gpu::Failure ignored;
  table_.finish(&stream_, UINT32_MAX, &ignored);
  for (const auto& [key, graph] : graphs_) table_.release_graph(graph);
}

void GpuDevice::lay_out(const BatchSize& size) {
  const auto b = place<GpuBatch>(own_.batch, limits_, size);
  view_ = {b.tokens, b.rows, nullptr, nullptr, b.tiles, b.pages, size.rows, size.tiles, 0};
  std::copy(std::begin(b.ropes), std::end(b.ropes), turns_);
  logit_rows_ = b.logit_rows;
  bytes_ = b.bytes;
  one_row_each_ = size.rows == size.sequences;
}

void GpuDevice::write_rows(const Batch& batch, const GpuBatch& to) {
  const uint32_t group = group_of(limits_.shape);
  gpu::Tile* next_tile = to.tiles;
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const Sequence& s = batch.sequences[i];
    const auto first_page = static_cast<uint32_t>(i) * limits_.pages_per_session;
    for (uint32_t row = 0; row < s.n_rows; ++row) to.rows[s.first_row + row] = {s.first_position + row, first_page};
    for (uint32_t tile = 0; tile < tiles_of(s.n_rows, group); ++tile) *next_tile++ = {s.first_row, s.n_rows, tile * gpu::tile_pairs};
    const uint32_t n_positions = s.first_position + s.n_rows;
    std::copy_n(s.pages, (n_positions + limits_.page_tokens - 1) / limits_.page_tokens, to.pages + first_page);
    view_.n_positions = std::max(view_.n_positions, n_positions);
  }
}

uint32_t GpuDevice::padded_rows(uint32_t n_rows) const {
  for (uint32_t rows = n_rows; rows <= recorded_rows_max; ++rows)
    if (recorded_[rows]) return rows;
  return n_rows;
}

// Of the sequence with the fewest positions.
void GpuDevice::pad_rows(const Batch& batch, uint32_t n_rows, const GpuBatch& to) {
  const auto shortest = std::min_element(batch.sequences.begin(), batch.sequences.end(),
                                         [](const Sequence& a, const Sequence& b) { return a.first_position < b.first_position; });
  const auto from = static_cast<uint32_t>(shortest - batch.sequences.begin());
  const uint32_t tiles_each = tiles_of(1, group_of(limits_.shape));
  for (uint32_t row = batch.n_rows(); row < n_rows; ++row) {
    to.tokens[row] = to.tokens[from];
    to.rows[row] = to.rows[from];
    for (uint32_t tile = 0; tile < tiles_each; ++tile) to.tiles[row * tiles_each + tile] = {row, 1, tile * gpu::tile_pairs};
    for (uint32_t i = 0; i < limits_.n_ropes; ++i) {
      const uint32_t pairs = limits_.rope_pairs[i];
      std::copy_n(to.ropes[i].cos + uint64_t{from} * pairs, pairs, to.ropes[i].cos + uint64_t{row} * pairs);
      std::copy_n(to.ropes[i].sin + uint64_t{from} * pairs, pairs, to.ropes[i].sin + uint64_t{row} * pairs);
    }
  }
}

void GpuDevice::begin(const Batch& batch) {
  const bool one_row_each = batch.sequences.size() == batch.n_rows();
  take_block((block_ + 1) % gpu::marks_max);
  write(batch, one_row_each ? padded_rows(batch.n_rows()) : batch.n_rows());
  send();
  table_.mark(&stream_, block_);
}

void GpuDevice::replay_whole(uint32_t key) {
  table_.replay(&stream_, graphs_.at(key));
  table_.mark(&stream_, block_);
}

void GpuDevice::send() { table_.copy_in(&stream_, own_.batch, host_.batches[block_], bytes_); }

// A block of the host's, once what it had is on the device.
void GpuDevice::take_block(uint32_t number) {
  block_ = number;
  gpu::Failure failure{};
  if (std::exchange(sent_[number], true)) gpu_.check(table_.wait_for_mark(&stream_, number, &failure), failure, "failed");
}

void GpuDevice::write(const Batch& batch, uint32_t n_rows) {
  BatchSize size{n_rows, 0, static_cast<uint32_t>(batch.sequences.size())};
  if (batch.sequences.size() == batch.n_rows()) {  // one row each
    size.sequences = n_rows;
    size.tiles = n_rows * tiles_of(1, group_of(limits_.shape));
  } else {
    for (const Sequence& s : batch.sequences) size.tiles += tiles_of(s.n_rows, group_of(limits_.shape));
  }
  lay_out(size);
  const auto to = place<GpuBatch>(host_.batches[block_], limits_, size);
  write_rows(batch, to);
  std::copy(batch.tokens.begin(), batch.tokens.end(), to.tokens);
  std::copy(batch.logit_rows.begin(), batch.logit_rows.end(), to.logit_rows);
  for (uint32_t i = 0; i < limits_.n_ropes; ++i) {
    const uint64_t angles = uint64_t{batch.n_rows()} * limits_.rope_pairs[i];
    std::copy_n(batch.ropes[i].cos, angles, to.ropes[i].cos);
    std::copy_n(batch.ropes[i].sin, angles, to.ropes[i].sin);
  }
  if (size.rows > batch.n_rows()) pad_rows(batch, size.rows, to);
  written_ = true;
}

void GpuDevice::embed(const kernels::Matrix& table, float* x) { table_.embed({table, view_, x}, stream_); }
void GpuDevice::upload(const float* host, uint64_t count, float* x) {
  if (uploading_) finish(UINT32_MAX);
  uploading_ = true;
  std::copy_n(host, count, host_.uploaded);
  table_.copy_in(&stream_, x, host_.uploaded, count * sizeof(float));
}

void GpuDevice::take(GpuDevice& other, const float* from, const float* by, uint64_t count, float* x) {
  table_.wait_for(&stream_, &other.stream_);
  if (by) table_.copy_in(&stream_, x, by, count * sizeof(float));
  else table_.copy_across(&stream_, x, &other.stream_, from, count * sizeof(float));
  table_.wait_for(&other.stream_, &stream_);  // before it writes there again
}

void GpuDevice::prepare(const Input& input, uint32_t rows) {
  wanted_ = input;
  made_ = false;
  rows_ = rows;
}

// Products take RMS norms and silu(x) * up along; whatever else they are to read is written first.
void GpuDevice::make_input(uint32_t k) {
  if (made_) return;
  made_ = true;
  const Norm* n = wanted_.norm;
  const bool own_norm = n && (n->kind != kernels::NormKind::rms || n->bias || !n->weight);
  const bool own_activation = wanted_.activated && (wanted_.activation != kernels::Activation::silu || !wanted_.up);
  input_ = {wanted_.x, n ? n->weight : nullptr, wanted_.up, n ? n->eps : 0};
  if (own_norm) norm(wanted_.x, *n, own_.prepared, rows_, k);
  if (own_activation)
    table_.activate({.act = wanted_.activation,
                     .gate = wanted_.up ? wanted_.x : nullptr,
                     .up = wanted_.up ? wanted_.up : wanted_.x,
                     .out = own_.prepared,
                     .count = uint64_t{rows_} * k,
                     .xielu = wanted_.act_params},
                    stream_);
  if (own_norm || own_activation) input_ = {.x = own_.prepared, .norm = nullptr, .up = nullptr, .eps = 0};
}

void GpuDevice::matmul(std::span<const Product> products, bool accumulate) {
  make_input(products[0].w->k);
  gpu::MatmulArgs args{};
  for (const Product& p : products) args.products[args.n_products++] = {*p.w, p.bias, p.y};
  args.rows = rows_;
  args.input = input_;
  args.accumulate = accumulate;
  args.exact = limits_.shape.exact;
  args.workspace = own_.workspace;
  table_.matmul(args, stream_);
}

namespace {
gpu::KvCache kv_of(const KvCache& kv) {
  return {.base = reinterpret_cast<uint8_t*>(kv.base),
          .page_stride = kv.page_stride,
          .layer_stride = 0,
          .value_offset = kv.value_offset,
          .page_tokens = kv.page_tokens,
          .n_kv_heads = kv.n_kv_heads,
          .head_dim = kv.key_dim,
          .int8 = kv.kinds.keys == kernels::KvKind::i8};
}
}  // namespace

// Attention follows, with the same queries: together where they can be.
void GpuDevice::append_kv(const KvCache& kv, const Heads& h) {
  using kernels::Span;
  const bool all = h.norms.any && h.norms.span == Span::all, in_kernel = h.norms.any && !all;
  if (all) {  // of all heads at once: rows' norms as any other; the model was refused if it is behind the rotation
    norm(h.q, h.norms.q, h.q, view_.n_rows, h.n_heads * kv.key_dim);
    norm(h.k, h.norms.k, h.k, view_.n_rows, kv.n_kv_heads * kv.key_dim);
  }
  gpu::Batch batch = view_;
  const uint32_t rope = h.rope < 0 ? 0 : static_cast<uint32_t>(h.rope);
  batch.cos = turns_[rope].cos;
  batch.sin = turns_[rope].sin;
  append_ = {.batch = batch,
             .kv = kv_of(kv),
             .q = h.q,
             .k = h.k,
             .v = h.v,
             .q_norm = in_kernel ? h.norms.q.weight : nullptr,
             .k_norm = in_kernel ? h.norms.k.weight : nullptr,
             .eps = h.norms.q.eps,
             .n_heads = h.n_heads,
             .rope_dim = h.rope < 0 ? 0 : 2 * limits_.rope_pairs[rope],
             .layer = 0,
             .q_bias = in_kernel ? h.norms.q.bias : nullptr,
             .k_bias = in_kernel ? h.norms.k.bias : nullptr,
             .unit = in_kernel && h.norms.span == Span::unit,
             .centered = h.norms.q.kind == kernels::NormKind::layer,
             .each_head = h.norms.span == Span::each_head,
             .norm_last = h.norms.after_rope,
             .clip = h.clip,
             .query_floor = h.query_scale.floor,
             .query_factor = h.query_scale.factor,
             .query_offset = h.query_scale.offset};
}

void GpuDevice::attention(const KvCache& kv, const float* q, float* out, const AttentionShape& shape) {
  const gpu::AttentionArgs args{.batch = view_,
                                 .kv = kv_of(kv),
                                 .q = q,
                                 .out = out,
                                 .n_heads = shape.n_heads,
                                 .layer = 0,
                                 .window = shape.window,
                                 .scale = shape.scale,
                                 .workspace = own_.workspace,
                                 .chunk = shape.chunk,
                                 .softcap = shape.softcap,
                                 .alibi_slopes = shape.alibi_slopes ? own_.alibi_slopes : nullptr,
                                 .sinks = shape.sinks};
  if (one_row_each_) return table_.append_attention({append_, args}, stream_);
  table_.append_kv(append_, stream_);
  table_.attention(args, stream_);
}

void GpuDevice::norm(const float* x, const Norm& norm, float* y, uint32_t rows, uint32_t n) {
  table_.norm({.x = x,
               .weight = norm.weight,
               .bias = norm.bias,
               .y = y,
               .rows = rows,
               .n = n,
               .eps = norm.eps,
               .centered = norm.kind == kernels::NormKind::layer},
              stream_);
}

void GpuDevice::change(kernels::Elementwise kind, const float* x, const float* y, float* out, uint64_t count, float factor) {
  table_.elementwise({.kind = kind, .x = x, .y = y, .out = out, .count = count, .factor = factor}, stream_);
}
void GpuDevice::scale(float* x, uint64_t count, float factor) { change(kernels::Elementwise::scale, x, nullptr, x, count, factor); }
void GpuDevice::add(float* y, const float* x, uint64_t count, float factor) { change(kernels::Elementwise::add_scaled, y, x, y, count, factor); }
void GpuDevice::gate(float* x, const float* gate, uint64_t count) { change(kernels::Elementwise::gate, x, gate, x, count, 0); }
void GpuDevice::softcap(float* x, uint64_t count, float cap) { change(kernels::Elementwise::softcap, x, nullptr, x, count, cap); }

void GpuDevice::add_positions(const kernels::Matrix& table, uint32_t offset, float* x) {
  table_.add_positions({.table = table, .batch = view_, .offset = offset, .x = x}, stream_);
}

void GpuDevice::select_rows(const float* x, uint32_t n, uint32_t first, uint32_t count, float* out) {
  table_.select_rows({x, logit_rows_ + first, out, count, n}, stream_);
}

const float* GpuDevice::download(const float* y, uint64_t count) {
  table_.copy_out(&stream_, host_.logits, y, count * sizeof(float));
  return host_.logits;
}

const int32_t* GpuDevice::best_tokens(const float* logits, uint32_t rows, uint32_t n) {
  table_.best_token({logits, own_.results.best, rows, n, own_.workspace}, stream_);
  table_.copy_out(&stream_, host_.results.best, own_.results.best, rows * sizeof(int32_t));
  return host_.results.best;
}

const Candidate* GpuDevice::candidates(const float* logits, uint32_t rows, uint32_t n, uint32_t count) {
  static_assert(sizeof(Candidate) == sizeof(gpu::Candidate));
  if (count > gpu::candidates_max) return nullptr;
  table_.candidates({logits, reinterpret_cast<gpu::Candidate*>(own_.results.candidates), rows, n, count, own_.workspace}, stream_);
  table_.copy_out(&stream_, host_.results.candidates, own_.results.candidates, uint64_t{rows} * count * sizeof(Candidate));
  return host_.results.candidates;
}

bool GpuDevice::finish(uint32_t wait_us) {
  const bool watched = wait_us == UINT32_MAX && written_ && watch();
  if (!watched && !gpu_.finish(wait_us)) return false;
  written_ = uploading_ = false;
  std::fill(std::begin(sent_), std::end(sent_), false);
  return true;
}

// To be woken takes some 50 us, so a while is spent looking.
bool GpuDevice::watch() {
  using namespace std::chrono;
  for (const auto end = steady_clock::now() + milliseconds(3); steady_clock::now() < end;)
    if (gpu_.finish(0)) return true;
  return false;
}

bool GpuDevice::replay(uint32_t key) {
  const auto at = graphs_.find(key);
  if (at == graphs_.end()) return false;
  table_.replay(&stream_, at->second);
  return true;
}

void GpuDevice::record(uint32_t key, uint32_t n_rows, bool whole, const std::function<void()>& work) {
  lay_out({n_rows, n_rows * tiles_of(1, group_of(limits_.shape)), n_rows});
  view_.n_positions = limits_.shape.positions;
  gpu::Graph* graph = nullptr;
  gpu::Failure failure{};
  gpu_.check(table_.record_begin(&stream_, &failure), failure, "cannot begin to record");
  if (whole) send();
  work();
  gpu_.check(table_.record_end(&stream_, &graph, &failure), failure, "cannot record");
  graphs_.emplace(key, graph);
  if (!whole) recorded_[n_rows] = true;
}

}  // namespace gptq::device
