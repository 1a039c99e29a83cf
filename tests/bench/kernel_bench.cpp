// SPDX-License-Identifier: Apache-2.0
// Kernel speed, one thread, in the shapes of SmolLM2-135M and a 1.1B model. Decode (m 1) reports GB/s and its share of the read
// bandwidth, prefill Gop/s and its share of the vpmaddubsw or FMA peak; both roofs are measured at the start of the same run.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/half.h"
#include "kernels/kernels.h"
#include "tests/thread_time.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace gptq::kernels {
namespace {

constexpr size_t beyond_cache = size_t{96} << 20;  // weights are rotated through this much

struct Roofs {
  double read_bytes = 0, int8_ops = 0, float_ops = 0;  // a second
};
Roofs roofs;

double cpu_seconds() { return test::thread_us() / 1e6; }

template <class F>
double best_seconds(int repeats, F f) {
  double best = 1e9;
  for (int i = 0; i < repeats; ++i) {
    const double start = cpu_seconds();
    f();
    best = std::min(best, cpu_seconds() - start);
  }
  return best;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) void read_all(const std::vector<uint8_t>& data) {
  __m256i sums[4] = {};
  for (size_t i = 0; i + 128 <= data.size(); i += 128) {
    _mm_prefetch(reinterpret_cast<const char*>(data.data() + i + 4096), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(data.data() + i + 4160), _MM_HINT_T0);
    const auto* line = reinterpret_cast<const __m256i*>(data.data() + i);
    for (size_t j = 0; j < 4; ++j) sums[j] = _mm256_xor_si256(sums[j], _mm256_loadu_si256(line + j));
  }
  benchmark::DoNotOptimize(sums);
}

constexpr int peak_rounds = 1000000;
#define TEN(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9)

__attribute__((target("avx2"))) void multiply_bytes() {
#define X(i) "vpmaddubsw %%ymm10, %%ymm11, %%ymm" #i "\n"
  for (int i = 0; i < peak_rounds; ++i)
    asm volatile(TEN(X)::: "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9");
#undef X
}

__attribute__((target("avx2,fma"))) void multiply_floats() {
#define X(i) "vfmadd231ps %%ymm10, %%ymm11, %%ymm" #i "\n"
  asm volatile("vxorps %%ymm10, %%ymm10, %%ymm10\nvxorps %%ymm11, %%ymm11, %%ymm11\n" ::: "xmm10", "xmm11");
  for (int i = 0; i < peak_rounds; ++i)
    asm volatile(TEN(X)::: "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9");
#undef X
}

void measure_roofs() {
  if (!cpu_has(Level::avx2)) return;
  const std::vector<uint8_t> data(beyond_cache, 1);
  roofs.read_bytes = static_cast<double>(data.size()) / best_seconds(7, [&] { read_all(data); });
  roofs.int8_ops = 10.0 * 64 * peak_rounds / best_seconds(7, multiply_bytes);
  roofs.float_ops = 10.0 * 16 * peak_rounds / best_seconds(7, multiply_floats);
}
#else
void measure_roofs() {}
#endif

// Runs f as the benchmark; bytes or ops (or neither) say what one run takes.
template <class F>
void measure(benchmark::State& state, double bytes, double ops, double ops_roof, F f) {
  const double start = cpu_seconds();
  for (auto _ : state) f();
  const double seconds = (cpu_seconds() - start) / static_cast<double>(state.iterations());
  if (bytes > 0) state.counters["GB/s"] = bytes / seconds / 1e9;
  if (bytes > 0 && roofs.read_bytes > 0) state.counters["%read"] = 100 * bytes / seconds / roofs.read_bytes;
  if (ops > 0) state.counters["Gop/s"] = ops / seconds / 1e9;
  if (ops > 0 && ops_roof > 0) state.counters["%peak"] = 100 * ops / seconds / ops_roof;
}

std::vector<float> random_floats(size_t count) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> number(-1, 1);
  std::vector<float> v(count);
  for (float& f : v) f = number(random);
  return v;
}

struct Shape {
  Kind kind;
  uint32_t n, k, group;
};

// Copies of one matrix, more than the caches hold if it is for decoding.
struct Weights {
  std::vector<uint8_t> codes;
  std::vector<uint16_t> scales;
  std::vector<Matrix> copies;
  double bytes;

  Weights(const Shape& s, bool many) {
    const bool quantized = is_quantized(s.kind);
    Matrix w = {s.kind, false, s.n, s.k, quantized ? (s.k + 63) / 64 * 64 : s.k, s.group, nullptr, nullptr, nullptr, nullptr};
    const size_t rows = quantized ? n_blocks(s.n) * 16 : s.n, code_bytes = rows * w.k_padded * bits_of(s.kind) / 8;
    const size_t n_scales = quantized ? rows * n_groups(w) : 0, count = many ? beyond_cache / code_bytes + 1 : 1;
    codes.assign(code_bytes * count, 0x35);  // a small number for every floating kind as well
    scales.assign(n_scales, half_from_float(0.01f));
    w.scales = scales.data();
    for (size_t i = 0; i < count; ++i) {
      w.codes = codes.data() + i * code_bytes;
      copies.push_back(w);
    }
    bytes = static_cast<double>(code_bytes + n_scales * 2);
  }
};

void bench_matmul(benchmark::State& state, const Variant& variant, const Shape& shape, uint32_t m) {
  const auto function = reinterpret_cast<void (*)(const MatmulArgs&)>(variant.function);
  const Weights weights(shape, m == 1);
  const Matrix& w = weights.copies[0];
  const uint32_t sum_block = activation_sum_block(shape.group);
  std::vector<Record> records(size_t{m} * (w.k_padded / record_columns));
  memset(records.data(), 3, records.size() * sizeof(Record));
  std::vector<float> scale(m, 0.1f), sum(size_t{m} * (w.k_padded / sum_block), 1);
  const std::vector<float> x = random_floats(size_t{m} * w.k_padded);
  std::vector<float> y(size_t{m} * shape.n);
  const Int8Activations x8 = {records.data(), scale.data(), sum.data(), m, w.k_padded, sum_block};
  const std::vector<uint16_t> x16(x.size(), 0x3f80);
  MatmulArgs args = {&w, x8, x.data(), x16.data(), y.data(), m, shape.n, 0, n_blocks(shape.n), nullptr, false};
  const double ops = 2.0 * m * shape.n * shape.k, roof = strcmp(variant.op, "matmul_int8") == 0 ? roofs.int8_ops : roofs.float_ops;
  size_t i = 0;
  measure(state, m == 1 ? weights.bytes : 0, m == 1 ? 0 : ops, roof, [&] {
    args.w = &weights.copies[i++ % weights.copies.size()];
    function(args);
  });
}

// Decoding at a depth, as many copies of the cache one after another as are more than the caches hold, or a chunk of prefill that ends there.
struct AttentionShape {
  uint32_t n_heads, n_kv_heads, head_dim, m, depth;
  KvKind kind;
  bool bent = false;  // with a soft cap, ALiBi and sinks
};

void bench_attention(benchmark::State& state, const Variant& variant, const AttentionShape& s) {
  constexpr uint32_t page_tokens = 64;
  const uint32_t pages = s.depth / page_tokens;
  const uint64_t half = uint64_t{s.n_kv_heads} * page_tokens * kv_row_bytes(s.kind, s.head_dim);
  const size_t bytes = pages * half * 2, copies = s.m == 1 ? beyond_cache / bytes + 1 : 1;
  std::vector<uint32_t> zeros(bytes * copies / 4);  // of any kind
  std::vector<uint32_t> order(pages);
  for (uint32_t p = 0; p < pages; ++p) order[p] = p * 7 % pages;
  const std::vector<float> q = random_floats(size_t{s.m} * s.n_heads * s.head_dim);
  std::vector<float> out(q.size());
  KvView kv = {.base = nullptr,
               .pages = order.data(),
               .page_stride = half * 2,
               .value_offset = half,
               .page_tokens = page_tokens,
               .n_kv_heads = s.n_kv_heads,
               .key_dim = s.head_dim,
               .value_dim = s.head_dim,
               .kinds = alike(s.kind)};
  const double ops = 4.0 * s.m * s.n_heads * s.head_dim * (s.depth - s.m / 2.0);
  const std::vector<float> slopes(s.n_heads, 0.1f);
  AttentionArgs args = {.q = q.data(),
                        .out = out.data(),
                        .m = s.m,
                        .first_position = s.depth - s.m,
                        .n_heads = s.n_heads,
                        .first_kv_head = 0,
                        .last_kv_head = s.n_kv_heads,
                        .scale = 0.125f,
                        .window = 0,
                        .kv = kv,
                        .partials = nullptr,
                        .block_stride = 0,
                        .first_block = 0,
                        .last_block = 0,
                        .chunk = 0,
                        .softcap = s.bent ? 50.0f : 0,
                        .alibi_slopes = s.bent ? slopes.data() : nullptr,
                        .sinks = s.bent ? slopes.data() : nullptr};
  size_t i = 0;
  measure(state, s.m == 1 ? static_cast<double>(bytes) : 0, ops, roofs.float_ops, [&] {
    args.kv.base = reinterpret_cast<std::byte*>(zeros.data()) + i++ % copies * bytes;
    reinterpret_cast<void (*)(const AttentionArgs&)>(variant.function)(args);
  });
}

// Latent attention in DeepSeek's sizes.
struct LatentShape {
  uint32_t n_heads, m, depth;
  KvKind kind;
};

void bench_latent_attention(benchmark::State& state, const Variant& variant, const LatentShape& s) {
  constexpr uint32_t page_tokens = 64, width = 576, rank = 512;
  const uint64_t page = uint64_t{page_tokens} * kv_row_bytes(s.kind, width);
  std::vector<uint32_t> order(s.depth / page_tokens);
  for (uint32_t p = 0; p < order.size(); ++p) order[p] = p * 7 % static_cast<uint32_t>(order.size());
  const size_t bytes = page * order.size(), copies = s.m == 1 ? beyond_cache / bytes + 1 : 1;
  std::vector<uint32_t> zeros(bytes * copies / 4);  // of any kind
  const std::vector<float> q = random_floats(size_t{s.m} * s.n_heads * width);
  std::vector<float> out(size_t{s.m} * s.n_heads * rank);
  LatentAttentionArgs args = {.q = q.data(),
                              .out = out.data(),
                              .m = s.m,
                              .first_position = s.depth - s.m,
                              .n_heads = s.n_heads,
                              .first_head = 0,
                              .last_head = s.n_heads,
                              .scale = 0.1f,
                              .kv = {.base = nullptr,
                                     .pages = order.data(),
                                     .page_stride = page,
                                     .page_tokens = page_tokens,
                                     .width = width,
                                     .rank = rank,
                                     .kind = s.kind},
                              .partials = nullptr,
                              .block_stride = 0,
                              .first_block = 0,
                              .last_block = 0};
  const double ops = 2.0 * s.m * s.n_heads * (width + rank) * (s.depth - s.m / 2.0);
  size_t i = 0;
  measure(state, s.m == 1 ? static_cast<double>(bytes) : 0, ops, roofs.float_ops, [&] {
    args.kv.base = reinterpret_cast<std::byte*>(zeros.data()) + i++ % copies * bytes;
    reinterpret_cast<void (*)(const LatentAttentionArgs&)>(variant.function)(args);
  });
}

struct HeadShape {
  uint32_t heads, n, k, m;
};

void bench_head_matmul(benchmark::State& state, const Variant& variant, const HeadShape& s) {
  const size_t weights = size_t{s.heads} * s.n * s.k, copies = s.m == 1 ? beyond_cache / (weights * 2) + 1 : 1;
  const std::vector<uint16_t> w(weights * copies, half_from_float(0.01f));
  const std::vector<float> x = random_floats(size_t{s.m} * s.heads * s.k);
  std::vector<float> y(size_t{s.m} * s.heads * s.n);
  HeadMatmulArgs args = {.kind = Kind::f16,
                         .w = nullptr,
                         .x = x.data(),
                         .y = y.data(),
                         .x_stride = uint64_t{s.heads} * s.k,
                         .x_head_stride = s.k,
                         .y_stride = uint64_t{s.heads} * s.n,
                         .y_head_stride = s.n,
                         .m = s.m,
                         .n = s.n,
                         .k = s.k,
                         .first_head = 0,
                         .last_head = s.heads};
  const double products = static_cast<double>(weights);
  size_t i = 0;
  measure(state, s.m == 1 ? 2 * products : 0, s.m == 1 ? 0 : 2 * products * s.m, roofs.float_ops, [&] {
    args.w = w.data() + i++ % copies * weights;
    reinterpret_cast<void (*)(const HeadMatmulArgs&)>(variant.function)(args);
  });
}

void bench_merge(benchmark::State& state, const Variant& variant) {
  constexpr uint32_t n_heads = 32, head_dim = 64, blocks = 8;
  const std::vector<float> partials = random_floats(size_t{blocks} * n_heads * (head_dim + 2));
  std::vector<float> out(n_heads * head_dim);
  const MergeAttentionArgs args = {.partials = partials.data(),
                                   .block_stride = n_heads * (head_dim + 2),
                                   .first_block = 0,
                                   .out = out.data(),
                                   .first_position = blocks * attention_block - 1,
                                   .n_heads = n_heads,
                                   .value_dim = head_dim,
                                   .window = 0,
                                   .first_query = 0,
                                   .last_query = n_heads,
                                   .chunk = 0,
                                   .sinks = nullptr};
  measure(state, 0, 0, 0, [&] { reinterpret_cast<void (*)(const MergeAttentionArgs&)>(variant.function)(args); });
}

// The quantizer's products.
struct ProductShape {
  uint32_t m, n, k;
};

void bench_add_product(benchmark::State& state, const Variant& variant, const ProductShape& s) {
  const std::vector<float> a = random_floats(size_t{s.m} * s.k), b = random_floats(size_t{s.k} * (s.n + panel_columns));
  std::vector<float> c(size_t{s.m} * s.n);
  const AddProductArgs args = {a.data(), b.data(), c.data(), s.k, 1, s.n, s.m, s.n, s.k};
  measure(state, 0, 2.0 * s.m * s.n * s.k, roofs.float_ops, [&] { reinterpret_cast<void (*)(const AddProductArgs&)>(variant.function)(args); });
}

void bench_subtract_product(benchmark::State& state, const Variant& variant, const ProductShape& s) {
  const std::vector<double> a(size_t{s.m} * s.k), b(size_t{s.k} * s.n);
  std::vector<double> c(size_t{s.m} * s.n);
  const SubtractProductArgs args = {a.data(), b.data(), c.data(), s.k, s.n, s.n, s.m, s.n, s.k};
  measure(state, 0, 2.0 * s.m * s.n * s.k, roofs.float_ops / 2, [&] { reinterpret_cast<void (*)(const SubtractProductArgs&)>(variant.function)(args); });
}

void bench_small(benchmark::State& state, const Variant& variant) {
  constexpr uint32_t n = 2048;
  std::vector<float> x = random_floats(n), y(n), weight = random_floats(n);
  std::vector<Record> records(n / record_columns);
  std::vector<float> scale(1), sum(n / 64);
  const Weights weights({Kind::q4, 16, n, 128}, false);
  std::vector<uint16_t> cache(2 * n * 16);
  const uint32_t page = 0;
  const KvView kv = {.base = reinterpret_cast<std::byte*>(cache.data()),
                     .pages = &page,
                     .page_stride = 4 * n * 16,
                     .value_offset = 2 * n * 16,
                     .page_tokens = 16,
                     .n_kv_heads = 32,
                     .key_dim = 64,
                     .value_dim = 64,
                     .kinds = alike(KvKind::f16)};
  const std::string op = variant.op;
  const auto call = [&](const auto& args) {
    measure(state, 0, 0, 0, [&] { reinterpret_cast<void (*)(decltype(args))>(variant.function)(args); });
  };
  if (op == "pack_int8") call(PackInt8Args{x.data(), 1, n, nullptr, {records.data(), scale.data(), sum.data(), 1, n, 64}});
  if (op == "dequantize_row") call(DequantizeRowArgs{&weights.copies[0], 3, y.data()});
  if (op == "rms_norm") call(RmsNormArgs{x.data(), weight.data(), y.data(), 1, n, 1e-5f});
  if (op == "rope") call(RopeArgs{x.data(), weight.data(), weight.data(), 1, n, 32, 64, 64});
  if (op == "hadamard") call(HadamardArgs{x.data(), 1, n, 32, 64});
  if (op == "layer_norm") call(LayerNormArgs{x.data(), weight.data(), x.data(), y.data(), 1, n, 1e-5f});
  const LatentView latent = {.base = reinterpret_cast<std::byte*>(cache.data()),
                             .pages = &page,
                             .page_stride = 0,
                             .page_tokens = 16,
                             .width = 576,
                             .rank = 512,
                             .kind = KvKind::f16};
  if (op == "store_latent")
    call(StoreLatentArgs{.latent = x.data(), .rope = y.data(), .m = 1, .latent_stride = n, .rope_stride = n, .first_position = 5, .kv = latent});
  if (op == "store_kv") call(StoreKvArgs{.k = x.data(), .v = weight.data(), .m = 1, .k_stride = n, .v_stride = n, .first_position = 5, .kv = kv});
}

void bench_activate(benchmark::State& state, const Variant& variant, Activation act) {
  constexpr uint32_t n = 2048;
  const std::vector<float> x = random_floats(n);
  std::vector<float> y(n);
  const bool gated = act == Activation::silu || act == Activation::swiglu_clamped;
  const ActivateArgs args = {act, gated ? x.data() : nullptr, x.data(), y.data(), n, {0.8f, 0.8f, 0.5f, -1e-6f}};
  measure(state, 0, 0, 0, [&] { reinterpret_cast<void (*)(const ActivateArgs&)>(variant.function)(args); });
}

void bench_elementwise(benchmark::State& state, const Variant& variant, Elementwise kind, uint64_t count) {
  const std::vector<float> x = random_floats(count);
  std::vector<float> y(count);
  const ElementwiseArgs args = {kind, x.data(), x.data(), y.data(), count, 30};
  measure(state, 0, 0, 0, [&] { reinterpret_cast<void (*)(const ElementwiseArgs&)>(variant.function)(args); });
}

void bench_convolve(benchmark::State& state, const Variant& variant, uint32_t m) {
  constexpr uint32_t n = 8192, kernel = 4;
  std::vector<float> x = random_floats(size_t{m} * n), y(x.size()), weight = random_floats(n * kernel), past(n * kernel);
  const ConvolveArgs args = {.x = x.data(),
                             .before = nullptr,
                             .after = nullptr,
                             .weight = weight.data(),
                             .state = past.data(),
                             .next_state = past.data(),
                             .out = y.data(),
                             .m = m,
                             .n = n,
                             .kernel = kernel,
                             .stride = n,
                             .out_stride = n,
                             .first_channel = 0,
                             .last_channel = n,
                             .silu = true};
  measure(state, 0, 2.0 * m * n * kernel, roofs.float_ops, [&] { reinterpret_cast<void (*)(const ConvolveArgs&)>(variant.function)(args); });
}

// Qwen3-Next's layer; with one row as many layers' states as are more than the caches hold.
void bench_delta(benchmark::State& state, const Variant& variant, uint32_t m) {
  constexpr uint32_t key_heads = 16, value_heads = 32, dim = 128, size = value_heads * dim * dim, stride = (2 * key_heads + value_heads) * dim;
  const size_t layers = m == 1 ? beyond_cache / (size * sizeof(float)) + 1 : 1;
  const std::vector<float> x = random_floats(size_t{m} * stride);
  std::vector<float> y(size_t{m} * value_heads * dim), states(layers * size);
  DeltaArgs args = {.q = x.data(),
                    .k = x.data() + key_heads * dim,
                    .v = x.data() + 2 * key_heads * dim,
                    .a = x.data(),
                    .b = x.data(),
                    .rate = x.data(),
                    .dt_bias = x.data(),
                    .z = x.data(),
                    .weight = x.data(),
                    .state = nullptr,
                    .next_state = nullptr,
                    .y = y.data(),
                    .m = m,
                    .stride = stride,
                    .gate_stride = stride,
                    .z_stride = stride,
                    .n_key_heads = key_heads,
                    .n_value_heads = value_heads,
                    .key_dim = dim,
                    .value_dim = dim,
                    .first_head = 0,
                    .last_head = value_heads,
                    .eps = 1e-6f};
  size_t i = 0;
  measure(state, m == 1 ? 2.0 * size * sizeof(float) : 0, 7.0 * m * size, roofs.float_ops, [&] {
    args.next_state = states.data() + i++ % layers * size;
    args.state = args.next_state;
    reinterpret_cast<void (*)(const DeltaArgs&)>(variant.function)(args);
  });
}

const char* name_of(Kind kind) {
  static const char* const names[] = {"f32", "f16", "bf16", "q2", "q3", "q4", "q8"};
  return names[static_cast<int>(kind)];
}

template <class F>
void add(const std::string& name, F run) {
  benchmark::RegisterBenchmark(name.c_str(), run)->Unit(benchmark::kMicrosecond);
}

std::string name_of(const Variant& variant) { return std::string(variant.op) + "/" + level_name(variant.level); }

void add_matmul(const Variant& variant, const Shape& s, uint32_t m) {
  char text[64];
  snprintf(text, sizeof text, "/%ux%u/%s_g%u/m:%u", s.n, s.k, name_of(s.kind), s.group, m);
  add(name_of(variant) + text, [=](benchmark::State& state) { bench_matmul(state, variant, s, m); });
}

void add_attention(const Variant& variant, const AttentionShape& s) {
  static const char* const kinds[] = {"f16", "f32", "i8", "i4"};
  char text[96];
  snprintf(text, sizeof text, "/heads:%u/kv:%u/dim:%u/%s/m:%u/depth:%u%s", s.n_heads, s.n_kv_heads, s.head_dim, kinds[static_cast<int>(s.kind)],
           s.m, s.depth, s.bent ? "/bent" : "");
  add(name_of(variant) + text, [=](benchmark::State& state) { bench_attention(state, variant, s); });
}

void add_attentions(const Variant& variant) {
  if (variant.level == Level::ref) return add_attention(variant, {9, 3, 64, 1, 512, KvKind::f16});
  for (const KvKind kind : {KvKind::f16, KvKind::f32, KvKind::i8, KvKind::i4})
    for (const uint32_t m : {1u, 128u}) {
      for (const auto& [heads, kv_heads, head_dim] : {std::tuple{9u, 3u, 64u}, {32u, 4u, 64u}, {32u, 8u, 128u}, {32u, 32u, 128u}})
        add_attention(variant, {heads, kv_heads, head_dim, m, 2048, kind});
    }
  add_attention(variant, {32, 4, 64, 1, 8192, KvKind::f16});
  for (const uint32_t m : {1u, 128u}) add_attention(variant, {32, 8, 128, m, 2048, KvKind::f16, true});
}

void add_latent_attentions(const Variant& variant) {
  static const char* const kinds[] = {"f16", "f32", "i8"};
  for (const KvKind kind : {KvKind::f16, KvKind::f32, KvKind::i8})
    for (const uint32_t n_heads : {16u, 128u})
      for (const uint32_t m : {1u, 16u}) {
        if (variant.level == Level::ref && (n_heads > 16 || m > 1 || kind != KvKind::f16)) continue;
        const LatentShape s = {n_heads, m, variant.level == Level::ref ? 256u : 2048u, kind};
        char text[64];
        snprintf(text, sizeof text, "/heads:%u/%s/m:%u/depth:%u", n_heads, kinds[static_cast<int>(kind)], m, s.depth);
        add(name_of(variant) + text, [=](benchmark::State& state) { bench_latent_attention(state, variant, s); });
      }
}

void add_head_matmuls(const Variant& variant) {
  for (const uint32_t m : {1u, 4u, 128u})
    for (const auto& [n, k] : {std::pair{512u, 128u}, {128u, 512u}}) {
      if (variant.level == Level::ref && m > 1) continue;
      const HeadShape s = {16, n, k, m};
      const std::string shape = "/heads:16/" + std::to_string(n) + "x" + std::to_string(k) + "/m:" + std::to_string(m);
      add(name_of(variant) + shape, [=](benchmark::State& state) { bench_head_matmul(state, variant, s); });
    }
}

void add_matmuls(const Variant& variant, bool int8) {
  if (variant.level == Level::ref) return add_matmul(variant, {Kind::q4, 576, 576, 64}, 1);
  std::vector<Shape> shapes;
  if (int8) {
    shapes = {{Kind::q4, 576, 576, 64}, {Kind::q4, 192, 576, 64}, {Kind::q4, 1536, 576, 64}, {Kind::q4, 576, 1536, 64},
              {Kind::q4, 2048, 2048, 128}, {Kind::q4, 256, 2048, 128}, {Kind::q4, 5632, 2048, 128}, {Kind::q4, 2048, 5632, 128},
              {Kind::q2, 2048, 2048, 128}, {Kind::q3, 2048, 2048, 128}, {Kind::q8, 2048, 2048, 128}, {Kind::q4, 2048, 2048, 32}};
  } else {
    shapes = {{Kind::f16, 49152, 576, 0}, {Kind::f16, 2048, 2048, 0}, {Kind::bf16, 2048, 2048, 0}, {Kind::f32, 2048, 2048, 0},
              {Kind::q4, 2048, 2048, 128}};
  }
  for (const Shape& shape : shapes)
    for (const uint32_t m : {1u, 2u, 4u, 8u, 128u, 512u})
      if (shape.n < 10000 || m == 1) add_matmul(variant, shape, m);
}

void add_products(const Variant& variant, const std::vector<ProductShape>& shapes, void (*bench)(benchmark::State&, const Variant&, const ProductShape&)) {
  for (const ProductShape& s : shapes)
    add(name_of(variant) + "/m:" + std::to_string(s.m) + "/n:" + std::to_string(s.n) + "/k:" + std::to_string(s.k),
        [=](benchmark::State& state) { bench(state, variant, s); });
}

void add_activations(const Variant& variant) {
  static const char* const names[] = {"silu", "gelu", "gelu_tanh", "relu", "relu2", "swiglu_clamped", "xielu"};
  for (int act = 0; act <= static_cast<int>(Activation::xielu); ++act)
    add(name_of(variant) + "/" + names[act] + "/2048",
        [=](benchmark::State& state) { bench_activate(state, variant, static_cast<Activation>(act)); });
}

void add_elementwise(const Variant& variant) {
  static const char* const names[] = {"scale", "clamp", "softcap", "gate", "add_scaled"};
  for (int kind = 0; kind <= static_cast<int>(Elementwise::add_scaled); ++kind)
    for (const uint64_t count : {uint64_t{2048}, uint64_t{262144}})
      add(name_of(variant) + "/" + names[kind] + "/" + std::to_string(count),
          [=](benchmark::State& state) { bench_elementwise(state, variant, static_cast<Elementwise>(kind), count); });
}

void add_rows(const Variant& variant, void (*bench)(benchmark::State&, const Variant&, uint32_t)) {
  for (const uint32_t m : {1u, 128u})
    add(name_of(variant) + "/m:" + std::to_string(m), [=](benchmark::State& state) { bench(state, variant, m); });
}

void add_all() {
  size_t count;
  const Variant* all = variants(&count);
  for (size_t i = 0; i < count; ++i) {
    const Variant variant = all[i];
    if (!cpu_has(variant.level)) continue;
    const std::string op = variant.op;
    if (op == "latent_attention") {
      add_latent_attentions(variant);
    } else if (op == "head_matmul") {
      add_head_matmuls(variant);
    } else if (op == "activate") {
      add_activations(variant);
    } else if (op == "elementwise") {
      add_elementwise(variant);
    } else if (op == "convolve") {
      add_rows(variant, bench_convolve);
    } else if (op == "delta") {
      add_rows(variant, bench_delta);
    } else if (op.starts_with("matmul")) {
      add_matmuls(variant, op != "matmul_float");
    } else if (op == "attention") {
      add_attentions(variant);
    } else if (op == "merge_attention") {
      add(name_of(variant) + "/heads:32/dim:64/blocks:8", [=](benchmark::State& state) { bench_merge(state, variant); });
    } else if (op == "add_product") {
      add_products(variant, {{192, 192, 512}, {1024, 1536, 576}, {1024, 576, 1536}, {1024, 192, 576}}, bench_add_product);
    } else if (op == "subtract_product") {
      add_products(variant, {{32, 576, 576}, {32, 1536, 1536}}, bench_subtract_product);
    } else {
      add(name_of(variant) + "/2048", [=](benchmark::State& state) { bench_small(state, variant); });
    }
  }
}

}  // namespace
}  // namespace gptq::kernels

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  gptq::kernels::measure_roofs();
  const gptq::kernels::Roofs& roofs = gptq::kernels::roofs;
  if (roofs.read_bytes > 0)
    fprintf(stderr, "one thread: read %.1f GB/s, vpmaddubsw %.0f Gop/s, FMA %.0f GFLOP/s\n", roofs.read_bytes / 1e9, roofs.int8_ops / 1e9,
            roofs.float_ops / 1e9);
  gptq::kernels::add_all();
  benchmark::RunSpecifiedBenchmarks();
}
