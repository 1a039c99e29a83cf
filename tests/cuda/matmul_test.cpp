// SPDX-License-Identifier: Apache-2.0
// Products against float64 for every kind of matrix and number of rows.
#include <limits>
#include <memory>

#include "gpu.h"
#include "kernels/cuda/stream.h"
#include "tests/sanitized.h"
#include "tests/seed.h"

namespace gptq::cuda {
namespace {

using kernels::Kind;
using kernels::MatrixShape;
using kernels::TestMatrix;

enum class Source { plain, norm, silu };

struct Case {
  std::vector<MatrixShape> shapes;
  uint32_t rows;
  Source source = Source::plain;
  bool bias = false, accumulate = false, exact = false;
  float size = 1.0f;  // of activations
  bool one_perm = false;
  uint32_t n_processors = 3;   // 0: those of the GPU
  uint32_t checked_rows = 0;   // of a matrix, about; 0: all
  Way way = Way::by_rule;
};

// Activations that differ much in size within a row.
std::vector<float> random_values(size_t n, std::mt19937& random, float size) {
  std::vector<float> x(n);
  std::normal_distribution<float> normal;
  for (float& v : x) v = normal(random) * size * (random() % 16 ? 1.0f : random() % 2 ? 30.0f : 0.001f);
  return x;
}

// What the products read, in float64 and as given.
struct Inputs {
  std::vector<float> x, norm, up;
  std::vector<double> values;  // [rows][k]

  Inputs(const Case& c, uint32_t k, std::mt19937& random) {
    x = random_values(size_t{c.rows} * k, random, c.size);
    if (c.source == Source::norm) norm = random_values(k, random, 1.0f);
    if (c.source == Source::silu) up = random_values(x.size(), random, 1.0f);
    values.assign(x.begin(), x.end());
    for (uint32_t r = 0; r < c.rows; ++r) {
      double squares = 0;
      for (uint32_t i = 0; i < k; ++i) squares += values[r * k + i] * values[r * k + i];
      for (uint32_t i = 0; i < k; ++i) {
        double& v = values[r * k + i];
        if (norm.size()) v *= norm[i] / std::sqrt(squares / k + double{1e-5f});
        if (up.size()) v = v / (1 + std::exp(-v)) * up[r * k + i];
      }
    }
  }
  Input on(Gpu& gpu) const { return {gpu.in(x), gpu.in(norm), gpu.in(up), 1e-5f}; }
};

struct Trial {
  Gpu& gpu;
  Case c;
  std::vector<std::unique_ptr<TestMatrix>> matrices;
  std::vector<std::vector<float>> bias, before, y;
  std::unique_ptr<Inputs> inputs;

  Trial(Gpu& on, const Case& of, uint32_t seed) : gpu(on), c(of) {
    std::mt19937 random(seed);
    for (const MatrixShape& s : c.shapes) {
      matrices.push_back(std::make_unique<TestMatrix>(s, random));
      if (c.one_perm) matrices.back()->w.perm = matrices[0]->w.perm;
    }
    multiply(c.rows, random);
  }

  // Anything anew but the matrices.
  void multiply(uint32_t rows, std::mt19937& random) {
    c.rows = rows;
    bias.clear();
    before.clear();
    for (const MatrixShape& s : c.shapes) {
      bias.push_back(random_values(s.n, random, c.size));
      before.push_back(random_values(size_t{c.rows} * s.n, random, c.size));
    }
    inputs = std::make_unique<Inputs>(c, c.shapes[0].k, random);
    multiply();
  }

  void multiply() {
    y = before;
    MatmulArgs args{};
    args.n_products = static_cast<uint32_t>(matrices.size());
    uint32_t n = 0;
    for (uint32_t i = 0; i < args.n_products; ++i) {
      if (!c.accumulate) y[i].assign(y[i].size(), std::numeric_limits<float>::quiet_NaN());
      args.products[i] = {gpu.in(*matrices[i]), c.bias ? gpu.in(bias[i]) : nullptr, gpu.out(y[i])};
      if (c.one_perm) args.products[i].w.perm = args.products[0].w.perm;
      n += matrices[i]->w.n;
    }
    args.rows = c.rows;
    args.input = inputs->on(gpu);
    args.accumulate = c.accumulate;
    args.exact = c.exact;
    args.way = c.way;
    gpu.pretend(c.n_processors);
    std::vector<uint8_t> workspace(gpu.table->matmul_workspace({c.rows, c.shapes[0].k, n, 0, 0, 0, 0, c.exact, true, c.way}, *gpu.stream), 0xff);
    args.workspace = {gpu.out(workspace), workspace.size()};
    gpu.table->matmul(args, *gpu.stream);
    gpu.finish();
  }

  // Errors relative to what they grow with, the largest.
  void check() const {
    const bool pairs = c.exact || (c.rows <= 4 && c.way != Way::library);
    for (size_t i = 0; i < matrices.size(); ++i) {
      const kernels::Matrix& w = matrices[i]->w;
      const uint32_t step = c.checked_rows ? w.n / c.checked_rows | 1 : 1;  // odd: every row of a block
      for (uint32_t r = 0; r < c.rows; ++r)
        for (uint32_t row = 0; row < w.n; row += step) {
          double expected = (c.bias ? bias[i][row] : 0.0) + (c.accumulate ? before[i][size_t{r} * w.n + row] : 0.0);
          double terms = 0, codes = std::fabs(expected);
          for (uint32_t column = 0; column < w.k_padded; ++column) {
            const uint32_t from = w.perm ? static_cast<uint32_t>(w.perm[column]) : column;
            if (from >= w.k) continue;
            const double v = inputs->values[size_t{r} * w.k + from], weight = matrices[i]->weight[size_t{row} * w.k_padded + column];
            expected += v * weight;
            terms += std::fabs(v * weight);
            codes += std::fabs(v) * matrices[i]->magnitude[size_t{row} * w.k_padded + column];
          }
          // One float16 is right to 2^-11 of each term; two are to 2^-22. Sums in float32 add their own; a GPU's more: codes are
          // subnormal numbers, whose exponent tensor cores take for 2^-14, and they cut off what lies 24 binary digits below the largest
          // product that way (an H200: up to 2.7e-5 of the codes' terms, where one activation is 30 times as large as others; codes of two
          // and three bits are smaller still).
          const double allowed = (pairs ? 0 : terms * (c.way == Way::library ? 0x1.01p-10 : 0x1p-11)) + codes * (!gpu.real ? 1e-6 : kernels::bits_of(w.kind) < 4 ? 2.5e-4 : 6e-5);
          ASSERT_NEAR(y[i][size_t{r} * w.n + row], expected, allowed)
              << "product " << i << ' ' << c.shapes[i] << ", " << c.rows << " rows, row " << row << " of token " << r;
        }
    }
  }
};

class CudaMatmul : public GpuTest {
 protected:
  void check(const Case& c, uint32_t seed = 1) {
    if (!test::is_left_out(cases++, 4)) Trial(gpu, c, seed).check();
  }
  void check_in_some_way(Case c, std::mt19937& random) {
    c.source = static_cast<Source>(random() % 3);
    c.bias = random() % 2;
    c.accumulate = random() % 2;
    c.exact = random() % 2;
    check(c, random());
  }
  void every_shape(Kind kind);
  uint32_t cases = 0;
};

constexpr uint32_t row_counts[] = {1, 2, 4, 5, 8, 9, 16, 17, 33, 130, 70};

// Every kind meets every group with several numbers of rows, and every number of rows with several groups.
void CudaMatmul::every_shape(Kind kind) {
  std::mt19937 random(static_cast<uint32_t>(kind));
  uint32_t turn = 0;
  const uint32_t ks[] = {100, 576, 1088, 64};
  for (const uint32_t group : {16u, 32u, 48u, 64u, 128u, 0u})
    for (const bool zeros : {false, true})
      for (uint32_t i = 0; i < 3; ++i) {
        const uint32_t rows = row_counts[turn++ * 3 % 11], k = rows > 33 ? ks[random() % 2] : ks[random() % 4];
        const uint32_t n = rows > 33 ? 40 : random() % 2 ? 40 : 192;
        const MatrixShape shape{kind, n, k, group ? group : (k + 63) / 64 * 64, zeros, random() % 4 == 0, random() % 3 == 0};
        check_in_some_way({{shape}, rows}, random);
        if (HasFatalFailure()) return;
      }
}

TEST_F(CudaMatmul, Q2) { every_shape(Kind::q2); }
TEST_F(CudaMatmul, Q3) { every_shape(Kind::q3); }
TEST_F(CudaMatmul, Q4) { every_shape(Kind::q4); }
TEST_F(CudaMatmul, Q8) { every_shape(Kind::q8); }

TEST_F(CudaMatmul, FloatingKinds) {
  std::mt19937 random(test::seed(7));
  for (const Kind kind : {Kind::f32, Kind::f16, Kind::bf16})
    for (const uint32_t rows : row_counts)
      for (const uint32_t k : {64u, 131u, 324u}) {
        check_in_some_way({{{kind, random() % 2 ? 40u : 77u, k}}, rows}, random);
        if (HasFatalFailure()) return;
      }
}

// Of one launch and of several.
TEST_F(CudaMatmul, ProductsTogether) {
  for (const uint32_t rows : {1u, 6u, 12u, 20u}) {
    for (const bool one_perm : {false, true}) {
      Case c{{{Kind::q4, 40, 320, 128, false, false, one_perm}, {Kind::q4, 17, 320, 128}, {Kind::q4, 96, 320, 128}}, rows, Source::norm};
      c.one_perm = one_perm;
      check(c);
    }
    const MatrixShape permuted{Kind::q4, 40, 320, 128, false, false, true};
    check({{permuted, {Kind::q4, 33, 320, 128}, {Kind::q8, 16, 320, 64}, {Kind::f16, 20, 320}}, rows, Source::norm, true});
    check({{{Kind::q4, 40, 320, 128}, {Kind::q4, 33, 320, 128, true}, {Kind::q4, 16, 320, 32, true}}, rows, Source::silu, false, true});
  }
}

// So many columns that K is split and the parts are added up.
TEST_F(CudaMatmul, LongRows) {
  for (const uint32_t rows : {1u, 2u, 5u, 8u, 12u})
    for (const uint32_t group : {128u, 48u}) {
      const MatrixShape first{Kind::q4, 24, 8448, group, true}, second{Kind::q4, 20, 8448, group, true};
      check({{first, second}, rows, rows % 3 ? Source::norm : Source::silu, true, rows % 4 == 0});
    }
  for (const Source source : {Source::plain, Source::norm, Source::silu}) {  // longer than what is packed at once
    check({{{Kind::q4, 16, 16448, 64, true}}, 9, source});
    check({{{Kind::q4, 16, 32832, 64, true, false, true}}, 9, source});
  }
}

TEST_F(CudaMatmul, LargeAndSmallActivations) {
  for (const float size : {1e5f, 1e-6f, 1e-30f})
    for (const uint32_t rows : {3u, 7u, 18u}) {
      Case c{{{Kind::q4, 40, 320, 128, true}}, rows};
      c.size = size;
      check(c);
      c.exact = true;
      check(c);
      c.shapes = {{Kind::f16, 40, 320}};
      check(c);
    }
}

TEST_F(CudaMatmul, TwoRunsAreEqual) {
  for (const uint32_t rows : {1u, 8u, 40u}) {
    Trial run(gpu, {{{Kind::q4, 24, 2112, 128, true}}, rows, Source::norm}, 3);
    const auto first = run.y;
    run.multiply();
    ASSERT_EQ(memcmp(first[0].data(), run.y[0].data(), first[0].size() * 4), 0);
  }
}

TEST_F(CudaMatmul, TokensDoNotMix) {
  for (const uint32_t rows : {4u, 8u, 20u}) {
    Trial run(gpu, {{{Kind::q4, 40, 320, 128, true}}, rows}, 3);
    const auto first = run.y;
    run.inputs->x[320 + 5] = std::numeric_limits<float>::quiet_NaN();
    run.multiply();
    for (uint32_t r = 0; r < rows; ++r)
      for (uint32_t row = 0; row < 40; ++row)
        if (r == 1) ASSERT_TRUE(std::isnan(run.y[0][r * 40 + row])); else ASSERT_EQ(run.y[0][r * 40 + row], first[0][r * 40 + row]);
  }
}

class CudaLibrary : public CudaMatmul {
 protected:
  void SetUp() override {
    CudaMatmul::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    gpu.table->matmul_workspace({64, 64, 64, 0, 0, 0, 0, false, true, Way::library}, *gpu.stream);
    if (!gpu.table->library_version(*gpu.stream)) GTEST_SKIP() << "there is no cuBLASLt";
  }
};

TEST_F(CudaLibrary, MultipliesEveryKind) {
  std::mt19937 random(test::seed(9));
  for (const Kind kind : {Kind::q2, Kind::q3, Kind::q4, Kind::q8, Kind::f32, Kind::f16, Kind::bf16})
    for (const uint32_t rows : {1u, 9u, 70u})
      for (const uint32_t k : {64u, 131u, 328u}) {
        const bool quantized = kernels::is_quantized(kind);
        Case c{{{kind, random() % 2 ? 40u : 76u, k, quantized ? 48u : 0, quantized && random() % 2, false, quantized && random() % 2}}, rows};
        c.way = Way::library;
        c.source = static_cast<Source>(random() % 3);
        c.bias = random() % 2;
        c.accumulate = random() % 2;
        check(c, random());
        if (HasFatalFailure()) return;
      }
}

TEST_F(CudaLibrary, TakesProductsTogetherAndInPieces) {
  const MatrixShape permuted{Kind::q4, 40, 320, 128, false, false, true};
  Case c{{permuted, {Kind::q4, 36, 320, 128}, {Kind::q8, 16, 320, 64, true}, {Kind::f16, 20, 320}}, 20, Source::norm, true};
  c.way = Way::library;
  check(c);
  c.shapes = {{Kind::q4, 64, 320, 128}, {Kind::q4, 32, 320, 128}, {Kind::q4, 32, 320, 128}, {Kind::q4, 20, 320, 128}};
  check(c);
#ifndef GPTQ_SANITIZED
  c.shapes = {{Kind::q4, 140, 1u << 19, 128}, {Kind::q4, 20, 1u << 19, 128}};  // more than 64 million weights
  c.rows = 1;
  c.accumulate = true;
  check(c);
#endif
}

// What float16 has no room for as it is, also where it is added to something.
TEST_F(CudaLibrary, LargeAndSmallActivations) {
  for (const float size : {3e6f, 1e5f, 1e-3f, 1e-6f, 1e-30f})
    for (const Source source : {Source::plain, Source::silu, Source::norm})
      for (const bool accumulate : {false, true}) {
        if (source == Source::silu && size < 1e-6f) continue;  // their product is below float32's smallest
        Case c{{{Kind::q4, 40, 320, 128, true}}, 5, source, accumulate, accumulate && size > 1e-12f};
        c.size = size;
        c.way = Way::library;
        check(c);
      }
}

TEST_F(CudaLibrary, TokensDoNotMix) {
  for (const float other : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 1e30f}) {
    Case c{{{Kind::q4, 40, 320, 128, true}}, 4, Source::plain, false, true};
    c.way = Way::library;
    Trial run(gpu, c, 3);
    const auto first = run.y;
    run.inputs->x[320 + 5] = other;
    run.multiply();
    for (const uint32_t r : {0u, 2u, 3u}) ASSERT_TRUE(std::equal(&run.y[0][r * 40], &run.y[0][r * 40 + 40], &first[0][r * 40])) << other << ' ' << r;
  }
}

// With float32 scales float16 would not hold the weights, and with --exact not the activations.
TEST_F(CudaLibrary, LeavesToOthersWhatItCannotDo) {
  Case c{{{Kind::q4, 40, 320, 128, true, true}}, 20};
  c.way = Way::library;
  Trial scales(gpu, c, 1);
  c.way = Way::own;
  EXPECT_EQ(scales.y, Trial(gpu, c, 1).y);
  c = {{{Kind::q4, 40, 320, 128, true}}, 20};
  c.exact = true;
  c.way = Way::library;
  Trial exact(gpu, c, 1);
  c.way = Way::own;
  EXPECT_EQ(exact.y, Trial(gpu, c, 1).y);
  c = {{{Kind::q4, 42, 320, 128, true}}, 20};  // rows of outputs do not begin at 16 bytes
  c.way = Way::library;
  Trial odd(gpu, c, 1);
  c.way = Way::own;
  EXPECT_EQ(odd.y, Trial(gpu, c, 1).y);
}

// As Llama-3-8B's: too much for the emulator.
// The emulator looks at what a launch asks for, and the kernels ask for what such a GPU has.
TEST_F(CudaMatmul, EveryGenerationHasTheSharedMemory) {
  if (gpu.real) GTEST_SKIP() << "a real GPU is of one generation";
  const uint32_t own = gpu.stream->capability;
  for (const uint32_t capability : {75u, 80u, 86u, 89u, 90u, 100u, 120u})
    for (const Kind kind : {Kind::q3, Kind::q4, Kind::q8, Kind::f16})
      for (const uint32_t rows : {1u, 4u, 8u, 16u, 24u}) {
        gpu.stream->capability = capability;
        Trial(gpu, {.shapes = {{kind, 40, 8192, 128}}, .rows = rows, .checked_rows = 4}, rows).check();
      }
  gpu.stream->capability = own;
}

TEST_F(CudaMatmul, RealShapes) {
  if (!gpu.real) GTEST_SKIP() << "for a real GPU";
  std::mt19937 random(test::seed(5));
  for (const uint32_t n : {4096u, 14336u}) {
    Case c{{{Kind::q4, n, 4096, 128, true}}, 1, Source::norm};
    c.n_processors = 0;
    c.checked_rows = 64;
    Trial run(gpu, c, n);
    for (const uint32_t rows : {1u, 4u, 16u, 64u, 512u}) {
      run.multiply(rows, random);
      run.check();
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(CudaMatmul, WeightsPastFloat16) {
  for (const Kind kind : {Kind::f32, Kind::bf16})
    for (const uint32_t rows : {1u, 10u}) {
      Trial run(gpu, {{{kind, 16, 64}}, rows}, 3);
      const float large = -3e9f;
      uint32_t bits;
      memcpy(&bits, &large, 4);
      if (kind == Kind::bf16) bits >>= 16;
      memcpy(run.matrices[0]->codes.data(), &bits, kind == Kind::f32 ? 4 : 2);
      run.matrices[0]->weight[0] = -65504.0f;
      run.matrices[0]->magnitude[0] = 65504.0f;
      run.multiply();
      run.check();
    }
}

}  // namespace
}  // namespace gptq::cuda
