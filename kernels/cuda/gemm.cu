// SPDX-License-Identifier: Apache-2.0
// cuBLASLt by its functions' addresses. For it a matrix of rows is one of columns, its transpose: weights are k x n and are to be transposed
// back, activations k x tokens, results n x tokens.
#include "kernels/cuda/gemm.h"

#include <dlfcn.h>

#include <initializer_list>

#if defined(__CUDACC__) && __has_include(<cublasLt.h>)
#include <cublasLt.h>

namespace gptq::cuda::lt {
static_assert(f32 == CUDA_R_32F && f16 == CUDA_R_16F && compute_f32 == CUBLAS_COMPUTE_32F && transposed == CUBLAS_OP_T);
static_assert(transpose_a == CUBLASLT_MATMUL_DESC_TRANSA && layout_rows == CUBLASLT_MATRIX_LAYOUT_ROWS);
static_assert(layout_columns == CUBLASLT_MATRIX_LAYOUT_COLS && layout_stride == CUBLASLT_MATRIX_LAYOUT_LD);
static_assert(layout_batches == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT && layout_batch_stride == CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET);
static_assert(workspace_max == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES && reductions == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK);
static_assert(alignment_a == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES && alignment_d == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);
static_assert(reduction_in_workspace == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE && sizeof(Algorithm) == sizeof(cublasLtMatmulAlgo_t));
static_assert(sizeof(Heuristic) == sizeof(cublasLtMatmulHeuristicResult_t));
static_assert(offsetof(Heuristic, workspace_bytes) == offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize));
static_assert(offsetof(Heuristic, status) == offsetof(cublasLtMatmulHeuristicResult_t, state));
}  // namespace gptq::cuda::lt
#endif

namespace gptq::cuda {
namespace {

constexpr uint32_t alignment = 16;
constexpr int nothing_found = 15;  // the library's own status for what it cannot do

}  // namespace

bool find_cublaslt(lt::Library* library) {
  void* object = nullptr;
  for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so.11", "libcublasLt.so"})
    if (!object) object = dlopen(name, RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE);
  if (!object) return false;
  bool all = true;
#define X(Result, name, arguments) all = (library->name = reinterpret_cast<decltype(library->name)>(dlsym(object, "cublasLt" #name))) && all;
  GPTQ_CUBLASLT(X)
#undef X
  return all;
}

Gemm::~Gemm() {
  if (preference_) lt_.MatmulPreferenceDestroy(preference_);
  for (lt::Layout* layout : {weights_, x_, d_})
    if (layout) lt_.MatrixLayoutDestroy(layout);
  if (operation_) lt_.MatmulDescDestroy(operation_);
  if (context_) lt_.Destroy(context_);
}

bool Gemm::open(const lt::Library& library, uint32_t capability) {
  if (context_) return open_;
  lt_ = library;
  workspace_bytes_ = capability >= 90 ? 32u << 20 : 4u << 20;  // what NVIDIA recommends
  bool ok = !lt_.Create(&context_) && !lt_.MatmulDescCreate(&operation_, lt::compute_f32, lt::f32) && !lt_.MatmulPreferenceCreate(&preference_);
  ok = ok && !lt_.MatmulDescSetAttribute(operation_, lt::transpose_a, &lt::transposed, sizeof lt::transposed);
  ok = ok && !lt_.MatmulPreferenceSetAttribute(preference_, lt::workspace_max, &workspace_bytes_, sizeof workspace_bytes_);
  // Parts of K are added up by a kernel of its own, in their order.
  ok = ok && !lt_.MatmulPreferenceSetAttribute(preference_, lt::reductions, &lt::reduction_in_workspace, sizeof lt::reduction_in_workspace);
  for (const int attribute : {lt::alignment_a, lt::alignment_b, lt::alignment_c, lt::alignment_d})
    ok = ok && !lt_.MatmulPreferenceSetAttribute(preference_, attribute, &alignment, sizeof alignment);
  ok = ok && !lt_.MatrixLayoutCreate(&weights_, lt::f16, 64, 64, 64) && !lt_.MatrixLayoutCreate(&x_, lt::f16, 64, 64, 64);
  ok = ok && !lt_.MatrixLayoutCreate(&d_, lt::f32, 64, 64, 64);
  open_ = ok && find({256, 256, 256, 256, 256, 256});  // it may be too new or too old for the GPU
  status_ = 0;
  return open_;
}

void Gemm::describe(const GemmShape& shape) {
  const auto set = [&](lt::Layout* layout, uint64_t rows, uint64_t columns, uint64_t stride, uint64_t step) {
    note(lt_.MatrixLayoutSetAttribute(layout, lt::layout_rows, &rows, sizeof rows));
    note(lt_.MatrixLayoutSetAttribute(layout, lt::layout_columns, &columns, sizeof columns));
    note(lt_.MatrixLayoutSetAttribute(layout, lt::layout_stride, &stride, sizeof stride));
    note(lt_.MatrixLayoutSetAttribute(layout, lt::layout_batches, &shape.batches, sizeof shape.batches));
    note(lt_.MatrixLayoutSetAttribute(layout, lt::layout_batch_stride, &step, sizeof step));
  };
  set(weights_, shape.depth, shape.n, shape.weights_stride, shape.weights_step);
  set(x_, shape.depth, shape.tokens, shape.x_stride, 0);
  set(d_, shape.n, shape.tokens, shape.d_stride, shape.d_step);
}

// How the library would do it; NULL: not at all.
const lt::Heuristic* Gemm::find(const GemmShape& shape) {
  describe(shape);
  for (const Known& known : known_)
    if (known.shape == shape) return &known.found;
  Known& next = known_[n_known_ % known_max];
  int n = 0;
  lt::Heuristic found;
  note(lt_.MatmulAlgoGetHeuristic(context_, operation_, weights_, x_, d_, d_, preference_, 1, &found, &n));
  if (!status_ && (n < 1 || found.workspace_bytes > workspace_bytes_)) note(nothing_found);
  if (status_) return nullptr;
  ++n_known_;
  next = {shape, found};
  return &next.found;
}

void Gemm::multiply(const GemmArgs& args, uint8_t* workspace, void* stream) {
  const lt::Heuristic* const found = find(args.shape);
  if (!found) return;
  const float one = 1, times = args.accumulate ? 1 : 0;
  note(lt_.Matmul(context_, operation_, &one, args.weights, weights_, args.x, x_, &times, args.d, d_, args.d, d_, &found->algorithm, workspace,
                  workspace_bytes_, stream));
}

void Gemm::note(int status) {
  if (!status_) status_ = status;
}

int Gemm::take_status() {
  const int status = status_;
  status_ = 0;
  return status;
}

}  // namespace gptq::cuda
