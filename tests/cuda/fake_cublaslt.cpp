// SPDX-License-Identifier: Apache-2.0
#include "fake_cublaslt.h"

#include <cstring>
#include <initializer_list>

#include "kernels/half.h"

namespace gptq::cuda {

FakeCublasLt fake_cublaslt;

namespace lt {

struct Context {};
struct Operation {
  int compute, scale, transpose = 0;
};
struct Layout {
  int type;
  uint64_t rows, columns;
  int64_t stride;
  int32_t batches = 1;
  int64_t step = 0;
};
struct Preference {
  uint64_t workspace = 0;
  uint32_t reductions = 7, alignment[4] = {256, 256, 256, 256};
};

namespace {

enum : int { ok = 0, invalid = 7, unsupported = 15 };

template <class T>
int set(T& field, const void* value, size_t bytes) {
  if (bytes != sizeof field) return invalid;
  std::memcpy(&field, value, bytes);
  return ok;
}

int set_operation(Operation* o, int attribute, const void* value, size_t bytes) {
  return attribute == transpose_a ? set(o->transpose, value, bytes) : invalid;
}
int set_layout(Layout* l, int attribute, const void* value, size_t bytes) {
  if (attribute == layout_rows) return set(l->rows, value, bytes);
  if (attribute == layout_columns) return set(l->columns, value, bytes);
  if (attribute == layout_batches) return set(l->batches, value, bytes);
  if (attribute == layout_batch_stride) return set(l->step, value, bytes);
  return attribute == layout_stride ? set(l->stride, value, bytes) : invalid;
}
int set_preference(Preference* p, int attribute, const void* value, size_t bytes) {
  if (attribute == workspace_max) return set(p->workspace, value, bytes);
  if (attribute == reductions) return set(p->reductions, value, bytes);
  return attribute >= alignment_a && attribute <= alignment_d ? set(p->alignment[attribute - alignment_a], value, bytes) : invalid;
}

// Columns lie one behind another and begin where 16-byte loads can.
bool is_good(const Layout& l, int type, uint64_t rows, uint64_t columns) {
  return l.type == type && l.rows == rows && l.columns == columns && rows && columns && l.stride >= static_cast<int64_t>(rows) &&
         l.stride * (type == f16 ? 2 : 4) % 16 == 0 && l.batches > 0 && l.step * (type == f16 ? 2 : 4) % 16 == 0;
}
bool fits(const Operation& o, const Layout& a, const Layout& b, const Layout& d) {
  return o.compute == compute_f32 && o.scale == f32 && o.transpose == transposed && is_good(a, f16, b.rows, d.rows) && is_good(b, f16, a.rows, d.columns) &&
         is_good(d, f32, a.columns, b.columns) && a.batches == d.batches && b.batches == d.batches &&
         (d.batches == 1 || d.step >= static_cast<int64_t>(d.rows));
}
uint64_t mark(const Layout& a, const Layout& b, const Layout& d) {
  uint64_t h = 1;
  for (const Layout* l : {&a, &b, &d})
    h = ((((h * 31 + l->rows) * 31 + l->columns) * 31 + static_cast<uint64_t>(l->stride)) * 31 + static_cast<uint64_t>(l->batches)) * 31 +
        static_cast<uint64_t>(l->step);
  return h;
}

int heuristic(Context* c, Operation* o, Layout* a, Layout* b, Layout* in, Layout* d, Preference* p, int wanted, Heuristic* results, int* found) {
  *found = 0;
  if (!c || wanted < 1 || in != d || !fits(*o, *a, *b, *d)) return invalid;
  for (const uint32_t alignment : p->alignment)
    if (alignment > 16) return unsupported;
  if (p->reductions != reduction_in_workspace || !p->workspace) return unsupported;
  std::memset(results, 0, sizeof *results);
  results->algorithm.data[0] = mark(*a, *b, *d);
  results->workspace_bytes = p->workspace;
  *found = 1;
  return ok;
}

int matmul(Context* c, Operation* o, const void* alpha, const void* a, Layout* la, const void* b, Layout* lb, const void* beta, const void* in, Layout* lin,
           void* d, Layout* ld, const Algorithm* algorithm, void* workspace, size_t bytes, void*) {
  const auto at = [](const void* p) { return reinterpret_cast<uintptr_t>(p); };
  if (!c || in != d || lin != ld || !fits(*o, *la, *lb, *ld) || algorithm->data[0] != mark(*la, *lb, *ld)) return invalid;
  const float times = *static_cast<const float*>(beta);
  if (*static_cast<const float*>(alpha) != 1 || (times != 0 && times != 1)) return invalid;
  if (at(a) % 16 || at(b) % 16 || at(d) % 16 || at(workspace) % 256) return invalid;
  if (fake_cublaslt.status) return fake_cublaslt.status;
  fake_cublaslt.products += static_cast<uint32_t>(ld->batches);
  ++fake_cublaslt.calls;
  std::memset(workspace, 0xff, bytes);
  const auto value = [](const void* p, int64_t i) { return double{kernels::float_from_half(static_cast<const uint16_t*>(p)[i])}; };
  for (int32_t batch = 0; batch < ld->batches; ++batch)
    for (int64_t token = 0; token < static_cast<int64_t>(ld->columns); ++token)
      for (int64_t row = 0; row < static_cast<int64_t>(ld->rows); ++row) {
        float& to = static_cast<float*>(d)[batch * ld->step + token * ld->stride + row];
        double sum = times ? double{to} : 0;
        for (int64_t i = 0; i < static_cast<int64_t>(la->rows); ++i)
          sum += value(a, batch * la->step + row * la->stride + i) * value(b, batch * lb->step + token * lb->stride + i);
        to = static_cast<float>(sum);
      }
  return ok;
}

template <class T>
int destroy(T* t) {
  delete t;
  return ok;
}

}  // namespace
}  // namespace lt

lt::Library fake_library() {
  using namespace lt;
  Library l;
  l.GetVersion = [] { return size_t{1}; };
  l.Create = [](Context** c) { return *c = new Context, 0; };
  l.Destroy = destroy;
  l.MatmulDescCreate = [](Operation** o, int compute, int scale) { return *o = new Operation{compute, scale}, 0; };
  l.MatmulDescDestroy = destroy;
  l.MatmulDescSetAttribute = set_operation;
  l.MatrixLayoutCreate = [](Layout** m, int type, uint64_t rows, uint64_t columns, int64_t stride) { return *m = new Layout{type, rows, columns, stride}, 0; };
  l.MatrixLayoutDestroy = destroy;
  l.MatrixLayoutSetAttribute = set_layout;
  l.MatmulPreferenceCreate = [](Preference** p) { return *p = new Preference, 0; };
  l.MatmulPreferenceDestroy = destroy;
  l.MatmulPreferenceSetAttribute = set_preference;
  l.MatmulAlgoGetHeuristic = heuristic;
  l.Matmul = matmul;
  return l;
}

}  // namespace gptq::cuda
