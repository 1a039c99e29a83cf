// SPDX-License-Identifier: Apache-2.0
#include "converter/dialects/linear.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/checked.h"
#include "converter/dialects/bit_fields.h"
#include "converter/dialects/zeros.h"
#include "converter/floats.h"
#include "converter/safetensors/files.h"

namespace gptq::convert {
namespace {

using base::fail;

bool is_signed(Dtype type) { return type == Dtype::i8 || type == Dtype::i16 || type == Dtype::i32 || type == Dtype::i64; }
bool is_integer(Dtype type) {
  return is_signed(type) || type == Dtype::u8 || type == Dtype::u16 || type == Dtype::u32 || type == Dtype::u64;
}

int64_t integer_at(const std::byte* at, uint32_t size, bool is_signed) {
  uint64_t value = is_signed && std::to_integer<uint8_t>(at[size - 1]) & 0x80 ? ~uint64_t{0} : 0;
  for (uint32_t b = size; b > 0; --b) value = value << 8 | std::to_integer<uint64_t>(at[b - 1]);
  return static_cast<int64_t>(value);
}

class LinearReader {
 public:
  LinearReader(const TensorFolder& tensors, const std::string& module, uint32_t n, uint32_t k, const QuantConfig& config,
               const Options& options)
      : tensors_(tensors), module_(module), n_(n), k_(k), config_(config), options_(options), settings_(config.settings) {
    const auto ruled = config.rules.apply(module, config.settings);
    if (ruled) settings_ = *ruled;
    else warn("the config's 'dynamic' skips it, but its tensors are quantized");
  }

  QuantizedWeight read() {
    read_scales();
    read_bits();
    read_group_index();
    decide_group_size();
    read_zeros();
    read_codes();
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(std::string_view text, base::Code code = {GPTQ_E_FORMAT, __builtin_FILE(), __builtin_LINE()}) const {
    fail(code, "'", module_, "': ", text);
  }
  void warn(const std::string& text) const { options_.warn_of ? options_.warn_of(module_, text) : options_.warn(module_ + ": " + text); }

  const TensorEntry& matrix(const char* suffix, std::initializer_list<Dtype> dtypes, uint64_t rows, uint64_t columns) const {
    const TensorEntry& entry = tensors_.get(module_ + suffix);
    if (std::find(dtypes.begin(), dtypes.end(), entry.dtype) == dtypes.end() || entry.shape.size() != 2)
      fail(GPTQ_E_UNSUPPORTED, "'", tensors_.file_of(entry), "': tensor '", entry.name, "' is ", describe(entry),
           ": not a matrix of the type that GPTQ has there");
    if ((rows && entry.shape[0] != rows) || entry.shape[1] != columns)
      fail(GPTQ_E_FORMAT, "'", tensors_.file_of(entry), "': tensor '", entry.name, "' is ", describe(entry), " where [", rows ? rows : entry.shape[0], ", ",
           columns, "] belongs by config.json");
    return entry;
  }

  void read_scales() {
    const TensorEntry& entry = matrix(".scales", {Dtype::f16, Dtype::bf16, Dtype::f32}, 0, n_);
    const uint64_t groups = entry.shape[0];
    if (groups < 1 || groups > k_) refuse("the number of groups in 'scales' does not fit its inputs");
    out_.n_groups = static_cast<uint32_t>(groups);
    const std::vector<float> by_group = to_floats(entry.dtype, tensors_.read(entry));
    if (!std::all_of(by_group.begin(), by_group.end(), [](float f) { return std::isfinite(f); })) refuse("'scales' holds NaN or infinity");
    out_.scales.resize(by_group.size());
    for (uint64_t g = 0; g < groups; ++g)
      for (uint64_t row = 0; row < n_; ++row) out_.scales[row * groups + g] = by_group[g * n_ + row];
  }

  // The shape of qweight says how many bits; the config decides only between those that fit.
  void read_bits() {
    const TensorEntry& entry = matrix(".qweight", {Dtype::i32, Dtype::u32}, 0, n_);
    const auto fits = [&](uint32_t bits) { return packed_words(k_, bits) == entry.shape[0]; };
    out_.bits = settings_.bits;
    if (out_.bits && fits(out_.bits)) return;
    for (uint32_t bits : {4u, 8u, 3u, 2u}) {
      if (!fits(bits)) continue;
      if (out_.bits) warn("the config says " + std::to_string(out_.bits) + " bits, its shape says " + std::to_string(bits));
      out_.bits = bits;
      return;
    }
    fail(GPTQ_E_FORMAT, "'", tensors_.file_of(entry), "': tensor '", entry.name, "' is ", describe(entry),
         ", which fits no number of bits for ", k_, " inputs");
  }

  // Where inputs are in the order of their groups there may be none, or an empty one, or one of zeros.
  void read_group_index() {
    const TensorEntry* entry = tensors_.find(module_ + ".g_idx");
    if (entry && entry->bytes) read_group_index(*entry);
    const auto is_first = [](int32_t g) { return g == 0; };
    if (out_.n_groups > 1 && std::all_of(out_.g_idx.begin(), out_.g_idx.end(), is_first)) out_.g_idx.clear();
    if (out_.g_idx.empty() && config_.activation_order && out_.n_groups > 1)
      warn("the config says desc_act, but there is no g_idx: inputs are taken in the order of their groups");
  }

  // Integers of any type, as one row.
  void read_group_index(const TensorEntry& entry) {
    uint64_t count = 1;
    for (const uint64_t size : entry.shape) count = base::mul(count, size);
    if (count != k_ || !is_integer(entry.dtype))
      fail(GPTQ_E_FORMAT, "'", tensors_.file_of(entry), "': tensor '", entry.name, "' is ", describe(entry), " where I32 [", k_,
           "] belongs");
    const std::vector<std::byte> bytes = tensors_.read(entry);
    const uint32_t size = dtype_bytes(entry.dtype);
    for (uint32_t i = 0; i < k_; ++i) {
      const int64_t group = integer_at(bytes.data() + uint64_t{i} * size, size, is_signed(entry.dtype));
      if (group < 0 || group >= int64_t{out_.n_groups})
        fail(GPTQ_E_FORMAT, "'", tensors_.file_of(entry), "': tensor '", entry.name, "' holds group ", group, ", there are ",
             out_.n_groups);
      out_.g_idx.push_back(static_cast<int32_t>(group));
    }
  }

  bool makes_groups(int64_t size) const { return size == -1 ? out_.n_groups == 1 : size > 0 && (k_ + size - 1) / size == out_.n_groups; }

  void decide_group_size() {
    out_.group_size = settings_.group_size;
    if (makes_groups(out_.group_size)) return;
    const int64_t found = group_size_of_shapes();
    if (out_.group_size)
      warn("the config says group size " + std::to_string(out_.group_size) + ", its shapes say " + std::to_string(found));
    out_.group_size = static_cast<int32_t>(found);
  }

  // The biggest group of g_idx; without it a size that divides the inputs, or the only power of two that makes so many groups.
  int64_t group_size_of_shapes() const {
    if (out_.n_groups == 1) return -1;
    if (!out_.g_idx.empty()) {
      std::vector<uint32_t> members(out_.n_groups);
      for (const int32_t g : out_.g_idx) ++members[static_cast<size_t>(g)];
      return *std::max_element(members.begin(), members.end());
    }
    if (k_ % out_.n_groups == 0) return k_ / out_.n_groups;
    int64_t found = 0;
    for (int64_t size = 1; size <= k_; size *= 2)
      if (makes_groups(size)) found = size;
    if (!found) fail(GPTQ_E_FORMAT, "'", module_, "': ", out_.n_groups, " groups over ", k_, " inputs: no group size is given that fits");
    return found;
  }

  // Symmetric zeros are the middle by definition, so that they may be left out.
  void read_zeros() {
    if (const TensorEntry* found = tensors_.find(module_ + ".qzeros"); settings_.symmetric && (!found || !found->bytes)) return;
    const TensorEntry& entry = matrix(".qzeros", {Dtype::i32, Dtype::u32}, out_.n_groups, packed_words(n_, out_.bits));
    std::vector<uint32_t> words(base::to_size(entry.bytes / 4));
    tensors_.read(entry, std::as_writable_bytes(std::span(words)));
    const ZerosChoice choice = choose_zeros(words, n_, out_.bits, settings_.symmetric, config_);
    if (choice.warning) warn(choice.warning);
    if (choice.damaged_words)
      warn("zero points of " + std::to_string(choice.damaged_words) +
           " words were damaged by the program that wrote them; answers may be poor");
    if (choice.symmetric) return;
    const std::vector<uint8_t> zeros = unpack_zeros(words, n_, out_.n_groups, out_.bits, choice.dialect);
    out_.zeros.assign(zeros.begin(), zeros.end());
  }

  void read_codes() {
    const TensorEntry& entry = tensors_.get(module_ + ".qweight");
    std::vector<uint32_t> words(base::to_size(entry.bytes / 4));
    tensors_.read(entry, std::as_writable_bytes(std::span(words)));
    out_.codes.resize(base::to_size(base::mul(n_, k_)));
    const auto rows = static_cast<uint32_t>(entry.shape[0]);
    constexpr uint32_t columns_at_once = 64;  // their codes stay in the cache while the words are walked in order
    for (uint32_t n0 = 0; n0 < n_; n0 += columns_at_once)
      for (uint32_t row = 0, k0 = 0; row < rows; row += out_.bits, k0 += 32)
        for (uint32_t n = n0; n < std::min(n_, n0 + columns_at_once); ++n) {
          uint8_t codes[32];
          unpack_32(&words[uint64_t{row} * n_ + n], n_, rows - row, out_.bits, codes);
          std::memcpy(&out_.codes[uint64_t{n} * k_ + k0], codes, std::min(32u, k_ - k0));
        }
  }

  const TensorFolder& tensors_;
  const std::string& module_;
  uint32_t n_, k_;
  const QuantConfig& config_;
  const Options& options_;
  QuantSettings settings_;
  QuantizedWeight out_;
};

}  // namespace

bool is_quantized_module(const TensorFolder& tensors, const std::string& module) {
  if (tensors.find(module + ".qweight")) return true;
  struct Foreign {
    const char *suffix, *format;
  };
  for (const auto& [suffix, format] : {Foreign{".weight_packed", "compressed-tensors"},
                                       {".B", "Marlin"},
                                       {".SCB", "bitsandbytes"},
                                       {".weight_scale", "FP8 or compressed-tensors"},
                                       {".weight_scale_inv", "FP8"}})
    if (tensors.find(module + suffix))
      fail(GPTQ_E_UNSUPPORTED, "tensor '", module, suffix, "' belongs to the format ", format,
           ", which is not supported; save the model in GPTQ format");
  return false;
}

void warn_of_no_quantized(const TensorFolder& tensors, const std::string& folder, const QuantConfig& config, const Options& options) {
  for (const std::string_view name : tensors.names())
    if (name.ends_with(".qweight")) return;
  std::string text = config.file + " says GPTQ";
  if (config.settings.bits) text += " with " + std::to_string(config.settings.bits) + " bits";
  text += ", but no tensor in '" + std::string(tensors.files()[0]) + "' is quantized: the weights are taken as they are";
  for (const std::string& name : files_in(folder)) {
    const auto files = tensors.files();
    if (name.ends_with(".safetensors") && std::find(files.begin(), files.end(), name) == files.end())
      text += "; '" + name + "' is another file of weights in the folder";
  }
  options.warn(text);
}

QuantizedWeight read_gptq_linear(const TensorFolder& tensors, const std::string& module, uint32_t n, uint32_t k, const QuantConfig& config,
                                 const Options& options) {
  return LinearReader(tensors, module, n, k, config, options).read();
}

}  // namespace gptq::convert
