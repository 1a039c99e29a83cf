// SPDX-License-Identifier: Apache-2.0
#include "converter/gguf/gguf_reader.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "base/file_kind.h"

namespace gptq::convert {
namespace {

using base::fail;
using base::fail_at;
constexpr uint64_t string_bytes_max = 16u << 20, name_bytes_max = 512;
constexpr uint64_t keys_max = 65536, tensors_max = 262144, items_max = 4u << 20, dims_max = 4;
constexpr uint64_t default_alignment = 32, alignment_max = 1u << 20;

enum class ValueType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

// Reads forward through the file; nothing is allocated for bytes that are not there.
class Cursor {
 public:
  explicit Cursor(const base::Source& source) : source_(source) {}
  uint64_t position() const { return at_; }
  uint64_t left() const { return source_.size() - at_; }

  template <class T>
  T take() {
    T value;
    take(std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }

  std::string text(uint64_t bytes_max, std::string_view what) {
    const uint64_t size = take<uint64_t>();
    if (size > bytes_max) fail_at(GPTQ_E_FORMAT, at_, "GGUF: ", what, " of ", size, " bytes, more than ", bytes_max);
    need(size);
    std::string out(size, 0);
    take(std::as_writable_bytes(std::span(out)));
    return out;
  }

  void need(uint64_t bytes) const {
    if (bytes > left())
      fail_at(GPTQ_E_FORMAT, at_, "GGUF: the file ends at byte ", source_.size(), " in the middle of its header: download it again");
  }

 private:
  void take(std::span<std::byte> dst) {
    need(dst.size());
    while (!dst.empty()) {
      if (at_ < begin_ || at_ >= begin_ + window_.size()) refill();
      const std::span<const std::byte> ready = std::span<const std::byte>(window_).subspan(at_ - begin_);
      const size_t n = std::min(ready.size(), dst.size());
      std::memcpy(dst.data(), ready.data(), n);
      dst = dst.subspan(n);
      at_ += n;
    }
  }
  void refill() {
    begin_ = at_;
    window_.resize(std::min<uint64_t>(64 << 10, left()));
    source_.read_at(begin_, window_);
  }

  const base::Source& source_;
  std::vector<std::byte> window_;
  uint64_t at_ = 0, begin_ = 0;
};

int64_t checked_u64(uint64_t value) {
  if (value > INT64_MAX) fail(GPTQ_E_FORMAT, "GGUF: the number ", value, " is out of range");
  return static_cast<int64_t>(value);
}

int64_t take_integer(Cursor& in, ValueType type) {
  switch (type) {
    case ValueType::u8: return in.take<uint8_t>();
    case ValueType::i8: return in.take<int8_t>();
    case ValueType::u16: return in.take<uint16_t>();
    case ValueType::i16: return in.take<int16_t>();
    case ValueType::u32: return in.take<uint32_t>();
    case ValueType::i32: return in.take<int32_t>();
    case ValueType::boolean: return in.take<uint8_t>() != 0;
    case ValueType::i64: return in.take<int64_t>();
    default: return checked_u64(in.take<uint64_t>());
  }
}

uint64_t smallest_size(ValueType type) {
  constexpr uint8_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 0, 8, 8, 8};
  return sizes[static_cast<uint32_t>(type)];
}

ValueType take_type(Cursor& in, std::string_view key) {
  const uint32_t type = in.take<uint32_t>();
  if (type > static_cast<uint32_t>(ValueType::f64))
    fail_at(GPTQ_E_FORMAT, in.position(), "GGUF: key '", key, "' has the unknown value type ", type);
  return static_cast<ValueType>(type);
}

template <class T, class Take>
std::vector<T> take_items(uint64_t count, Take&& take) {
  std::vector<T> out;
  out.reserve(count);
  for (uint64_t i = 0; i < count; ++i) out.push_back(take());
  return out;
}

GgufValue take_array(Cursor& in, std::string_view key) {
  const ValueType type = take_type(in, key);
  const uint64_t count = in.take<uint64_t>();
  if (type == ValueType::array) fail(GPTQ_E_UNSUPPORTED, "GGUF: key '", key, "' is an array of arrays");
  if (count > items_max) fail_at(GPTQ_E_FORMAT, in.position(), "GGUF: key '", key, "' has ", count, " items, more than ", items_max);
  in.need(count * smallest_size(type));
  if (type == ValueType::string) return take_items<std::string>(count, [&] { return in.text(string_bytes_max, key); });
  if (type == ValueType::f32) return take_items<float>(count, [&] { return in.take<float>(); });
  if (type == ValueType::f64) return take_items<float>(count, [&] { return static_cast<float>(in.take<double>()); });
  return take_items<int64_t>(count, [&] { return take_integer(in, type); });
}

GgufValue take_value(Cursor& in, std::string_view key) {
  const ValueType type = take_type(in, key);
  if (type == ValueType::string) return in.text(string_bytes_max, key);
  if (type == ValueType::array) return take_array(in, key);
  if (type == ValueType::f32) return static_cast<double>(in.take<float>());
  if (type == ValueType::f64) return in.take<double>();
  return take_integer(in, type);
}

GgufTensor take_tensor(Cursor& in, std::string_view name) {
  GgufTensor tensor;
  const uint32_t n_dims = in.take<uint32_t>();
  if (n_dims < 1 || n_dims > dims_max) fail_at(GPTQ_E_FORMAT, in.position(), "GGUF: tensor '", name, "' has ", n_dims, " dimensions");
  uint64_t rows = 1;
  for (uint32_t i = 0; i < n_dims; ++i) {
    tensor.dims.push_back(in.take<uint64_t>());
    if (tensor.dims[i] == 0) fail_at(GPTQ_E_FORMAT, in.position(), "GGUF: tensor '", name, "' has a dimension of 0");
    if (i > 0) rows = base::mul(rows, tensor.dims[i]);
  }
  tensor.type = &find_gguf_type(in.take<uint32_t>(), name);
  if (tensor.dims[0] % tensor.type->block != 0)
    fail(GPTQ_E_FORMAT, "GGUF: tensor '", name, "' has rows of ", tensor.dims[0], ", no multiple of the ", tensor.type->block,
        " weights in a block of ", tensor.type->name);
  tensor.bytes = base::mul(rows, tensor.dims[0] / tensor.type->block, tensor.type->block_bytes);
  tensor.offset = in.take<uint64_t>();
  return tensor;
}

void check_version(Cursor& in, const base::Source& source) {
  if (in.left() < 24) fail(GPTQ_E_FORMAT, "not a GGUF file: it is too short");
  if (in.take<uint32_t>() != 0x46554747) {
    if (const std::string_view kind = base::kind_of_file(source); !kind.empty()) fail(GPTQ_E_FORMAT, "not a GGUF file, but ", kind);
    fail(GPTQ_E_FORMAT, "not a GGUF file: its first bytes differ");
  }
  const uint32_t version = in.take<uint32_t>();
  if (version != 0 && (version & 0xFFFF) == 0) fail(GPTQ_E_UNSUPPORTED, "a big-endian GGUF file; use the little-endian one");
  if (version != 2 && version != 3) fail(GPTQ_E_UNSUPPORTED, "GGUF version ", version, "; 2 and 3 are supported: convert the model anew");
}

}  // namespace

GgufFile::GgufFile(const base::Source& source, std::string_view name) : source_(source), name_(name) {
  Cursor in(source);
  check_version(in, source);
  const uint64_t n_tensors = in.take<uint64_t>(), n_keys = in.take<uint64_t>();
  if (n_tensors > tensors_max) fail(GPTQ_E_FORMAT, "GGUF: ", n_tensors, " tensors, more than ", tensors_max);
  if (n_keys > keys_max) fail(GPTQ_E_FORMAT, "GGUF: ", n_keys, " keys, more than ", keys_max);
  for (uint64_t i = 0; i < n_keys; ++i) {
    std::string key = in.text(name_bytes_max, "a key");
    GgufValue found = take_value(in, key);
    if (const auto [at, is_new] = values_.try_emplace(std::move(key), std::move(found)); !is_new) refuse(at->first, "is there twice");
  }
  for (uint64_t i = 0; i < n_tensors; ++i) {
    std::string tensor = in.text(name_bytes_max, "a tensor name");
    GgufTensor found = take_tensor(in, tensor);
    if (const auto [at, is_new] = tensors_.try_emplace(std::move(tensor), std::move(found)); !is_new)
      fail(GPTQ_E_FORMAT, "GGUF: tensor '", at->first, "' is there twice");
  }
  const uint64_t alignment = count("general.alignment", default_alignment);
  if (alignment < 8 || alignment > alignment_max || (alignment & (alignment - 1)) != 0)
    refuse("general.alignment", "must be a power of two from 8");
  for (auto& [tensor, facts] : tensors_)
    if (facts.offset % alignment != 0)
      fail(GPTQ_E_FORMAT, "GGUF: tensor '", tensor, "' is at ", facts.offset, ", no multiple of ", alignment);
  check_split();
  check_tensors(base::round_up(in.position(), alignment));
}

// The parts behind the first hold tensors and nothing of what the model is.
void GgufFile::check_split() const {
  const int64_t n_parts = integer("split.count").value_or(1), part = integer("split.no").value_or(0) + 1;
  if (n_parts > 1)
    fail(GPTQ_E_UNSUPPORTED, "GGUF: '", std::string_view(name_), "' is part ", part, " of ", n_parts,
         " of a split model: join the parts first (llama-gguf-split --merge FIRST_PART WHOLE.gguf)");
}

// Makes offsets absolute.
void GgufFile::check_tensors(uint64_t data_begin) {
  std::vector<std::pair<uint64_t, uint64_t>> places;
  for (auto& [tensor, facts] : tensors_) {
    facts.offset = base::add(data_begin, facts.offset);
    const uint64_t end = base::add(facts.offset, facts.bytes);
    if (end > source_.size())
      fail(GPTQ_E_FORMAT, "GGUF: tensor '", tensor, "' ends at byte ", end, " of a file of ", source_.size(),
          ": the file is cut off, download it again");
    places.emplace_back(facts.offset, end);
  }
  std::sort(places.begin(), places.end());
  for (size_t i = 1; i < places.size(); ++i)
    if (places[i].first < places[i - 1].second)
      fail_at(GPTQ_E_FORMAT, places[i].first, "GGUF: two tensors overlap at byte ", places[i].first);
}

void GgufFile::refuse(std::string_view key, std::string_view rule, base::Code code) const { fail(code, "GGUF: key '", key, "' ", rule); }

const GgufValue* GgufFile::value(std::string_view key) const {
  const auto at = values_.find(key);
  return at == values_.end() ? nullptr : &at->second;
}

std::optional<int64_t> GgufFile::integer(std::string_view key) const {
  const GgufValue* found = value(key);
  if (!found) return {};
  if (const auto* number = std::get_if<int64_t>(found)) return *number;
  refuse(key, "must be a whole number");
}

std::optional<double> GgufFile::number(std::string_view key) const {
  const GgufValue* found = value(key);
  if (!found) return {};
  if (const auto* real = std::get_if<double>(found)) return *real;
  if (const auto* whole = std::get_if<int64_t>(found)) return static_cast<double>(*whole);
  refuse(key, "must be a number");
}

std::optional<std::string_view> GgufFile::string(std::string_view key) const {
  const GgufValue* found = value(key);
  if (!found) return {};
  if (const auto* text = std::get_if<std::string>(found)) return *text;
  refuse(key, "must be a string");
}

std::optional<bool> GgufFile::boolean(std::string_view key) const {
  const auto found = integer(key);
  return found ? std::optional(*found != 0) : std::nullopt;
}

uint32_t GgufFile::count(std::string_view key) const {
  const auto found = integer(key);
  if (!found) refuse(key, "is missing");
  if (*found < 0 || *found > INT32_MAX) refuse(key, "is out of range");
  return static_cast<uint32_t>(*found);
}

uint32_t GgufFile::count(std::string_view key, uint32_t otherwise) const { return value(key) ? count(key) : otherwise; }

template <class T>
const std::vector<T>* GgufFile::array(std::string_view key) const {
  const GgufValue* found = value(key);
  if (!found) return nullptr;
  if (const auto* items = std::get_if<std::vector<T>>(found)) return items;
  refuse(key, "must be an array of another type");
}
template const std::vector<int64_t>* GgufFile::array(std::string_view) const;
template const std::vector<float>* GgufFile::array(std::string_view) const;
template const std::vector<std::string>* GgufFile::array(std::string_view) const;

const GgufTensor* GgufFile::find(std::string_view tensor) const {
  const auto at = tensors_.find(tensor);
  return at == tensors_.end() ? nullptr : &at->second;
}

std::vector<std::byte> GgufFile::read(const GgufTensor& tensor, uint64_t first, uint64_t bytes) const {
  std::vector<std::byte> out(base::to_size(bytes));
  source_.read_at(tensor.offset + first, out);
  return out;
}

}  // namespace gptq::convert
