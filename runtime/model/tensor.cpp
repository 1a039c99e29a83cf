// SPDX-License-Identifier: Apache-2.0
// A tensor's description against its slot, and the values that kernels rely on.
#include "base/checked.h"
#include "model/spec.h"

namespace gptq::model {
namespace {

using base::fail;
using kernels::Kind;
namespace fb = format::fb;

struct Check {
  const fb::Tensor& tensor;
  const Slot& slot;

  template <class... Parts>
  [[noreturn]] void refuse(base::Code code, const Parts&... parts) const {
    fail(code, "tensor '", std::string_view(slot.name), "': ", parts...);
  }
  void rule(bool holds, std::string_view text, base::Code code = base::Code(GPTQ_E_FORMAT)) const {
    if (!holds) refuse(code, text);
  }
};

void check_shape(const Check& check, const kernels::Matrix& w) {
  const fb::Tensor& t = check.tensor;
  if (w.n != check.slot.n || w.k != check.slot.k)
    check.refuse(GPTQ_E_FORMAT, w.n, " x ", w.k, " where ", check.slot.n, " x ", check.slot.k, " belongs");
  check.rule(!check.slot.is_vector || w.kind == Kind::f32, "a vector must be float32");
  check.rule(t.group_size() >= -1, "group_size below -1");
  if (!kernels::is_quantized(w.kind)) {
    check.rule(w.k_padded == w.k && w.group == 0 && !w.scales_f32, "an unquantized matrix has no padding, groups or scales");
    return;
  }
  // Reordered columns may pad every group, so there can be more of them than inputs, but not without limit.
  check.rule(w.k_padded % 64 == 0 && w.k_padded >= w.k && w.k_padded / 16 <= base::round_up(w.k, 64), "k_padded does not fit k");
  check.rule(w.group >= 16 && w.group % 16 == 0 && w.group <= w.k_padded, "group must be a multiple of 16 within k_padded");
}

// Takes the parts in the order of their roles and compares their sizes.
class PartList {
 public:
  explicit PartList(const Check& check) : check_(check), parts_(*check.tensor.parts()) {}
  void must_have(fb::Role role, std::string_view name, uint64_t bytes) {
    if (!take(role, name, bytes)) check_.refuse(GPTQ_E_FORMAT, "its ", name, " are missing or out of order");
  }
  bool take(fb::Role role, std::string_view name, uint64_t bytes) {
    if (next_ == parts_.size() || parts_.Get(next_)->role() != role) return false;
    const uint64_t found = parts_.Get(next_++)->bytes();
    if (found != bytes) check_.refuse(GPTQ_E_FORMAT, found, " bytes of ", name, " where ", bytes, " belong");
    return true;
  }
  void end() const { check_.rule(next_ == parts_.size(), "it has parts that do not belong"); }

 private:
  const Check& check_;
  const flatbuffers::Vector<const fb::Part*>& parts_;
  uint32_t next_ = 0;
};

void check_parts(const Check& check, const kernels::Matrix& w) {
  PartList parts(check);
  if (!kernels::is_quantized(w.kind)) {
    parts.must_have(fb::Role::codes, "values", base::mul(w.n, w.k, kernels::bits_of(w.kind) / 8));
  } else {
    const uint64_t blocks = kernels::n_blocks(w.n), scales = base::mul(blocks, kernels::n_groups(w), 16);
    parts.must_have(fb::Role::codes, "codes", base::mul(blocks, w.k_padded / 64, kernels::tile_bytes(w.kind)));
    parts.must_have(fb::Role::scales, "scales", base::mul(scales, w.scales_f32 ? 4 : 2));
    parts.take(fb::Role::zeros, "zeros", scales);
    const bool reordered = parts.take(fb::Role::perm, "perm", base::mul(w.k_padded, 4));
    check.rule(reordered || w.k_padded == base::round_up(w.k, 64), "k_padded does not fit k");
  }
  parts.end();
}

bool any_not_finite(const uint16_t* values, uint64_t count, uint16_t exponent) {
  bool found = false;
  for (uint64_t i = 0; i < count; ++i) found |= (values[i] & exponent) == exponent;
  return found;
}

bool any_not_finite(const uint32_t* values, uint64_t count) {
  bool found = false;
  for (uint64_t i = 0; i < count; ++i) found |= (values[i] & 0x7F800000u) == 0x7F800000u;
  return found;
}

constexpr uint16_t f16_exponent = 0x7C00, bf16_exponent = 0x7F80;

bool all_finite(const void* values, Kind kind, uint64_t count) {
  if (kind == Kind::f32) return !any_not_finite(static_cast<const uint32_t*>(values), count);
  return !any_not_finite(static_cast<const uint16_t*>(values), count, kind == Kind::f16 ? f16_exponent : bf16_exponent);
}

bool perm_in_range(const kernels::Matrix& w) {
  bool good = true;
  for (uint32_t i = 0; i < w.k_padded; ++i) good &= w.perm[i] >= -1 && w.perm[i] < static_cast<int64_t>(w.k);
  return good;
}

}  // namespace

kernels::Matrix check_tensor(const fb::Tensor& tensor, const Slot& slot) {
  const Check check{tensor, slot};
  if (tensor.kind() > static_cast<uint8_t>(Kind::q8))
    check.refuse(GPTQ_E_UNSUPPORTED, "kind ", tensor.kind(), " is unknown to this build: use a newer version");
  kernels::Matrix w{};
  w.kind = static_cast<Kind>(tensor.kind());
  w.scales_f32 = tensor.scales_f32();
  w.n = tensor.n();
  w.k = tensor.k();
  w.k_padded = tensor.k_padded();
  w.group = tensor.group();
  check_shape(check, w);
  check_parts(check, w);
  return w;
}

void check_values(const kernels::Matrix& w, std::string_view name) {
  const uint64_t scales = uint64_t(kernels::n_blocks(w.n)) * 16 * (kernels::is_quantized(w.kind) ? kernels::n_groups(w) : 0);
  const bool finite = kernels::is_quantized(w.kind) ? all_finite(w.scales, w.scales_f32 ? Kind::f32 : Kind::f16, scales)
                                                    : all_finite(w.codes, w.kind, uint64_t(w.n) * w.k);
  if (!finite) fail(GPTQ_E_FORMAT, "tensor '", name, "': it holds NaN or infinity");
  if (w.perm && !perm_in_range(w)) fail(GPTQ_E_FORMAT, "tensor '", name, "': perm has an index outside the inputs");
}

}  // namespace gptq::model
