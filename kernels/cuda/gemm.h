// SPDX-License-Identifier: Apache-2.0
// float16 products by cuBLASLt, a library of NVIDIA's that is looked for at run time and need not be there: it is neither linked nor shipped.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace gptq::cuda {

// What is used of it, declared here so that neither the build nor the tests need it; gemm.cu compares with its header where that is.
namespace lt {

struct Context;
struct Operation;
struct Layout;
struct Preference;
struct Algorithm {
  uint64_t data[8];
};
struct Heuristic {
  Algorithm algorithm;
  size_t workspace_bytes;
  int status;
  float waves;
  int reserved[4];
};
constexpr int f32 = 0, f16 = 2, compute_f32 = 68, transposed = 1;
// Attributes of operations, of layouts, of preferences.
constexpr int transpose_a = 3;
constexpr int layout_rows = 2, layout_columns = 3, layout_stride = 4, layout_batches = 5, layout_batch_stride = 6;
constexpr int workspace_max = 1, reductions = 3, alignment_a = 5, alignment_b = 6, alignment_c = 7, alignment_d = 8;
constexpr uint32_t reduction_in_workspace = 2;

#define GPTQ_CUBLASLT(X)                                                                                                               \
  X(size_t, GetVersion, ())                                                                                                            \
  X(int, Create, (Context**))                                                                                                          \
  X(int, Destroy, (Context*))                                                                                                          \
  X(int, MatmulDescCreate, (Operation**, int compute, int scale))                                                                      \
  X(int, MatmulDescDestroy, (Operation*))                                                                                              \
  X(int, MatmulDescSetAttribute, (Operation*, int attribute, const void* value, size_t bytes))                                         \
  X(int, MatrixLayoutCreate, (Layout**, int type, uint64_t rows, uint64_t columns, int64_t stride))                                    \
  X(int, MatrixLayoutDestroy, (Layout*))                                                                                               \
  X(int, MatrixLayoutSetAttribute, (Layout*, int attribute, const void* value, size_t bytes))                                          \
  X(int, MatmulPreferenceCreate, (Preference**))                                                                                       \
  X(int, MatmulPreferenceDestroy, (Preference*))                                                                                       \
  X(int, MatmulPreferenceSetAttribute, (Preference*, int attribute, const void* value, size_t bytes))                                  \
  X(int, MatmulAlgoGetHeuristic,                                                                                                       \
    (Context*, Operation*, Layout* a, Layout* b, Layout* c, Layout* d, Preference*, int wanted, Heuristic* results, int* found))       \
  X(int, Matmul,                                                                                                                       \
    (Context*, Operation*, const void* alpha, const void* a, Layout*, const void* b, Layout*, const void* beta, const void* c, Layout*, \
     void* d, Layout*, const Algorithm*, void* workspace, size_t workspace_bytes, void* stream))

struct Library {
#define X(Result, name, arguments) Result(*name) arguments;
  GPTQ_CUBLASLT(X)
#undef X
};

}  // namespace lt

// Whether it is there, and its functions. It stays loaded.
bool find_cublaslt(lt::Library* library);

// What a product is but for its numbers: so many elements from one row to the next, and from one matrix of a batch to the next.
struct GemmShape {
  uint32_t n, tokens, depth;
  uint64_t weights_stride, x_stride, d_stride;
  uint32_t batches = 1;
  uint64_t weights_step = 0, d_step = 0;
  bool operator==(const GemmShape&) const = default;
};

// d [tokens][n] (+)= x [tokens][depth] times weights [n][depth] transposed, float16 to float32. A batch has one x.
struct GemmArgs {
  const uint16_t* weights;
  const uint16_t* x;
  float* d;
  bool accumulate;
  GemmShape shape;
};

// The library on one stream. Descriptors are made once and changed for every product; rows begin at multiples of 16 bytes.
class Gemm {
 public:
  Gemm() = default;
  Gemm(const Gemm&) = delete;
  ~Gemm();
  // Whether it works on the current device, which has this compute capability.
  bool open(const lt::Library& library, uint32_t capability);
  bool is_open() const { return open_; }
  size_t version() const { return open_ ? lt_.GetVersion() : 0; }
  uint64_t workspace_bytes() const { return workspace_bytes_; }
  // What goes wrong stays in status().
  void multiply(const GemmArgs& args, uint8_t* workspace, void* stream);
  // The library's first status that was not 0 since the last time.
  int take_status();

 private:
  static constexpr uint32_t known_max = 16;
  struct Known {
    GemmShape shape;
    lt::Heuristic found;
  };
  void describe(const GemmShape& shape);
  const lt::Heuristic* find(const GemmShape& shape);
  void note(int status);
  lt::Library lt_{};
  lt::Context* context_ = nullptr;
  lt::Operation* operation_ = nullptr;
  lt::Layout *weights_ = nullptr, *x_ = nullptr, *d_ = nullptr;
  lt::Preference* preference_ = nullptr;
  uint64_t workspace_bytes_ = 0;
  Known known_[known_max] = {};  // asking the library takes longer than starting a kernel
  uint32_t n_known_ = 0;         // ever: the oldest gives way
  int status_ = 0;
  bool open_ = false;
};

}  // namespace gptq::cuda
