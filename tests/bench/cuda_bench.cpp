// SPDX-License-Identifier: Apache-2.0
// The CUDA backend's products alone: microseconds, GB/s of weights, and percent of what copying reaches on the same GPU in the same run. A graph of
// products with different weights is replayed many times without waiting, so that neither launches nor waking up nor the L2 cache count. With --by own,library our kernels and cuBLASLt
// take turns at the same product: from how many rows on each is faster is what the rule in kernels/cuda/matmul_library.cu is to be set by.
#include <algorithm>
#include <chrono>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "api/handles.h"
#include "inside.h"
#include "peer.h"
#include "tool.h"

namespace {

using namespace gptq;
using kernels::Kind;

struct Options {
  std::string backend = "libgptq_cuda.so";
  std::vector<uint32_t> rows{1, 4, 8, 16, 32, 64, 256, 2048};
  std::vector<std::string> shapes{"4096x4096", "14336x4096", "4096x14336", "128256x4096"}, kinds{"q4"}, by{"rule"};
  std::string input = "plain";
  uint32_t group = 128, repetitions = 7;
  bool exact = false;
};

struct Shape {
  uint32_t n, k;
};

Shape parse(const std::string& text) {
  const size_t x = text.find('x');
  const auto number = [&](const std::string& part) {
    if (part.empty() || part.size() > 7 || part.find_first_not_of("0123456789") != part.npos || std::stoul(part) == 0)
      throw Error(GPTQ_E_INVALID_ARGUMENT, "a shape is OUTPUTSxINPUTS, as 4096x4096, not '" + text + "'");
    return static_cast<uint32_t>(std::stoul(part));
  };
  return {number(text.substr(0, x)), number(x == text.npos ? "" : text.substr(x + 1))};
}

Kind kind_of(const std::string& name) {
  for (const auto& [known, kind] : {std::pair{"q2", Kind::q2}, {"q3", Kind::q3}, {"q4", Kind::q4}, {"q8", Kind::q8}, {"f16", Kind::f16}, {"bf16", Kind::bf16}})
    if (name == known) return kind;
  throw Error(GPTQ_E_INVALID_ARGUMENT, "kinds are q2, q3, q4, q8, f16 and bf16, not '" + name + "'");
}

gpu::Way way_of(const std::string& name) {
  for (const auto& [known, way] : {std::pair{"rule", gpu::Way::by_rule}, {"own", gpu::Way::own}, {"library", gpu::Way::library}})
    if (name == known) return way;
  throw Error(GPTQ_E_INVALID_ARGUMENT, "products are made by rule, own or library, not '" + name + "'");
}

// Bytes of a matrix's parts on the device: codes, then scales.
struct Parts {
  uint64_t codes, scales;
};
Parts parts_of(const kernels::Matrix& w) {
  if (!kernels::is_quantized(w.kind)) return {uint64_t{w.n} * w.k * 2, 0};
  return {uint64_t{kernels::n_blocks(w.n)} * (w.k_padded / 64) * kernels::tile_bytes(w.kind), uint64_t{kernels::n_blocks(w.n)} * kernels::n_groups(w) * 32};
}

class Bench {
 public:
  Bench(const device::Gpu& gpu, const Options& o) : gpu_(gpu), table_(gpu.table()), o_(o) {}

  // Median seconds of one product, for every number of rows.
  std::vector<double> seconds(Kind kind, Shape shape, gpu::Way way) {
    const kernels::Matrix w = matrix_of(kind, shape, o_);
    const Parts parts = parts_of(w);
    const uint32_t copies = static_cast<uint32_t>(std::clamp<uint64_t>((512u << 20) / (parts.codes + parts.scales), 2, 64));
    const device::GpuMemory weights(gpu_, copies * (parts.codes + parts.scales));
    for (uint32_t i = 0; i < copies; ++i) fill(weights.data() + i * (parts.codes + parts.scales), parts, kind);
    std::vector<double> all;
    for (const uint32_t rows : o_.rows) all.push_back(seconds(w, parts, copies, weights.data(), rows, way));
    return all;
  }

  double seconds(const kernels::Matrix& w, const Parts& parts, uint32_t copies, std::byte* weights, uint32_t rows, gpu::Way way) {
    const device::GpuMemory x(gpu_, uint64_t{rows} * w.k * 4), up(gpu_, uint64_t{rows} * w.k * 4), y(gpu_, uint64_t{rows} * w.n * 4);
    fill_floats(x);
    fill_floats(up);
    const auto floats = [](const device::GpuMemory& m) { return reinterpret_cast<float*>(m.data()); };
    const gpu::Shape limits{rows, w.k_padded, w.n, 1, 1, 64, 1, o_.exact, true, way};
    const device::GpuMemory workspace(gpu_, table_.matmul_workspace(limits, gpu_.stream()));
    gpu::Graph* graph = nullptr;
    const auto multiply = [&](uint32_t i) {
      gpu::MatmulArgs args{};
      args.products[0] = {w, nullptr, floats(y)};
      args.products[0].w.codes = weights + i * (parts.codes + parts.scales);
      args.products[0].w.scales = weights + i * (parts.codes + parts.scales) + parts.codes;
      args.n_products = 1;
      args.rows = rows;
      args.input = {floats(x), o_.input == "norm" ? floats(up) : nullptr, o_.input == "silu" ? floats(up) : nullptr, 1e-5f};
      args.exact = o_.exact;
      args.way = way;
      args.workspace = {reinterpret_cast<uint8_t*>(workspace.data()), workspace.bytes()};
      table_.matmul(args, gpu_.stream());
    };
    multiply(0);  // cuBLASLt loads its kernels when they are first used
    gpu_.finish(UINT32_MAX);
    gpu::Failure failure{};
    gpu_.check(table_.record_begin(&gpu_.stream(), &failure), failure, "cannot begin to record");
    for (uint32_t i = 0; i < copies; ++i) multiply(i);
    gpu_.check(table_.record_end(&gpu_.stream(), &graph, &failure), failure, "cannot record");
    const std::unique_ptr<gpu::Graph, void (*)(gpu::Graph*)> held(graph, table_.release_graph);
    return timed(graph) / copies;
  }

  // 0: there is none.
  uint64_t library_version() const {
    table_.matmul_workspace({1, 64, 64, 1, 1, 64, 1, false, true, gpu::Way::library}, gpu_.stream());
    return table_.library_version(gpu_.stream());
  }

  static uint64_t bytes(Kind kind, Shape shape, uint32_t group) {
    Options o;
    o.group = group;
    const Parts parts = parts_of(matrix_of(kind, shape, o));
    return parts.codes + parts.scales;
  }

 private:
  static kernels::Matrix matrix_of(Kind kind, Shape shape, const Options& o) {
    const bool quantized = kernels::is_quantized(kind);
    return {kind, false, shape.n, shape.k, quantized ? (shape.k + 63) / 64 * 64 : shape.k, quantized ? o.group : 0, nullptr, nullptr, nullptr, nullptr};
  }

  double timed(gpu::Graph* graph) {
    const auto once = [&](uint32_t replays) {
      const auto begin = std::chrono::steady_clock::now();
      for (uint32_t i = 0; i < replays; ++i) table_.replay(&gpu_.stream(), graph);
      gpu_.finish(UINT32_MAX);
      return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    };
    once(1);
    const uint32_t replays = static_cast<uint32_t>(std::clamp(10e-3 / once(1), 1.0, 50.0));  // 10 ms, beside which waking up is nothing
    std::vector<double> seconds;
    for (uint32_t i = 0; i < o_.repetitions; ++i) seconds.push_back(once(replays) / replays);
    return bench::median(seconds);
  }

  // Bytes of one filling serve all: 16 MiB, cut at another place each time.
  void fill(std::byte* to, const Parts& parts, Kind kind) {
    static const std::vector<uint16_t> codes = random_words([this] { return random_(); });
    // Scales and 16-bit weights around 0.01, of either sign for weights.
    static const std::vector<uint16_t> weights = random_words([this] { return 0x2000 + random_() % 0x400 + (random_() % 2 << 15); });
    static const std::vector<uint16_t> scales = random_words([this] { return 0x2000 + random_() % 0x400; });
    copy(to, kernels::is_quantized(kind) ? codes : weights, parts.codes);
    copy(to + parts.codes, scales, parts.scales);
    gpu_.finish(UINT32_MAX);
  }
  template <class F>
  static std::vector<uint16_t> random_words(F f) {
    std::vector<uint16_t> words(8 << 20);
    for (uint16_t& w : words) w = static_cast<uint16_t>(f());
    return words;
  }
  void copy(std::byte* to, const std::vector<uint16_t>& from, uint64_t bytes) {
    for (uint64_t n; bytes; to += n, bytes -= n) {
      const size_t begin = random_() % (from.size() / 2) / 8 * 8;
      n = std::min<uint64_t>(bytes, (from.size() - begin) * 2);
      table_.copy_in(&gpu_.stream(), to, from.data() + begin, n);
    }
  }
  void fill_floats(const device::GpuMemory& memory) {
    std::vector<float> host(memory.bytes() / 4);
    std::normal_distribution<float> normal;
    for (float& v : host) v = normal(random_);
    table_.copy_in(&gpu_.stream(), memory.data(), host.data(), memory.bytes());
    gpu_.finish(UINT32_MAX);
  }

  const device::Gpu& gpu_;
  const gpu::Backend& table_;
  const Options& o_;
  std::mt19937 random_{1};
};

void run(const Options& o) {
  const device::Library library(o.backend);
  device::Account account;
  const gpu::Processor processor = device::describe_gpu(library.table(), 0);
  const device::Gpu gpu(library.table(), 0, account);
  const double copy = library.table().copy_bandwidth(&gpu.stream());
  Bench bench(gpu, o);
  std::printf("%s, %u multiprocessors, copies %.0f GB/s, cuBLASLt %llu\n| kind | outputs x inputs | rows | by | us | GB/s | of copying | TFLOP/s |\n",
              processor.name, processor.n_processors, copy / 1e9, static_cast<unsigned long long>(bench.library_version()));
  std::printf("|---|---|---|---|---|---|---|---|\n");
  for (const std::string& kind : o.kinds)
    for (const std::string& text : o.shapes)
      for (const std::string& by : o.by) {
        if (way_of(by) == gpu::Way::library && !bench.library_version()) continue;
        const Shape shape = parse(text);
        const std::vector<double> all = bench.seconds(kind_of(kind), shape, way_of(by));
        for (size_t i = 0; i < all.size(); ++i) {
          const double seconds = all[i];
          const uint32_t rows = o.rows[i];
          const double speed = static_cast<double>(Bench::bytes(kind_of(kind), shape, o.group)) / seconds;
          std::printf("| %s | %s | %u | %s | %.1f | %.0f | %.0f %% | %.1f |\n", kind.c_str(), text.c_str(), rows, by.c_str(), seconds * 1e6, speed / 1e9,
                      100 * speed / copy, 2.0 * rows * shape.n * shape.k / seconds / 1e12);
        }
        std::fflush(stdout);
      }
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  CLI::App app("Measures the CUDA backend's matrix products.", "gptq-cuda-bench");
  app.add_option("--backend", o.backend, "the backend's shared object (default libgptq_cuda.so)");
  app.add_option("-m,--rows", o.rows, "tokens computed together (default 1,4,8,16,32,64,256,2048)")->delimiter(',');
  app.add_option("--shapes", o.shapes, "OUTPUTSxINPUTS (default: those of Llama-3-8B)")->delimiter(',');
  app.add_option("--kinds", o.kinds, "q2, q3, q4 (default), q8, f16, bf16")->delimiter(',');
  app.add_option("--input", o.input, "what is multiplied: plain (default), norm or silu, which are computed with the product, as in a layer")
      ->check(CLI::IsMember({"plain", "norm", "silu"}));
  app.add_option("--by", o.by, "rule (default), own and library: which kernels multiply many rows")->delimiter(',');
  app.add_option("--group-size", o.group, "inputs that share a scale (default 128)");
  app.add_option("-r,--repetitions", o.repetitions, "timed runs (default 7), after one that is not counted");
  app.add_flag("--exact", o.exact, "activations in 22 bits for any number of rows");
  return tool::run(app, argc, argv, [&] { inside([&] { run(o); }); });
}
