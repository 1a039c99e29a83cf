// SPDX-License-Identifier: Apache-2.0
#include "converter/safetensors/file.h"

#include <simdjson.h>

#include <algorithm>
#include <array>

#include "base/checked.h"
#include "base/file_kind.h"

namespace gptq::convert {
namespace {

using base::fail;
using base::fail_at;
using simdjson::dom::element;
constexpr uint64_t header_bytes_max = 16u << 20, tensors_max = 262144, name_bytes_max = 512, rank_max = 8;
constexpr size_t depth_max = 16;

struct DtypeFacts {
  std::string_view name;
  uint32_t bytes;
};
constexpr std::array<DtypeFacts, 15> dtypes{{{"BOOL", 1},
                                             {"U8", 1},
                                             {"I8", 1},
                                             {"F8_E5M2", 1},
                                             {"F8_E4M3", 1},
                                             {"I16", 2},
                                             {"U16", 2},
                                             {"F16", 2},
                                             {"BF16", 2},
                                             {"I32", 4},
                                             {"U32", 4},
                                             {"F32", 4},
                                             {"I64", 8},
                                             {"U64", 8},
                                             {"F64", 8}}};

uint64_t header_size(const base::Source& source, std::string_view file) {
  std::array<std::byte, 8> bytes;
  if (source.size() < 8) fail(GPTQ_E_FORMAT, "'", file, "' has ", source.size(), " bytes: too short for a safetensors file");
  source.read_at(0, bytes);
  uint64_t size = 0;
  for (int i = 7; i >= 0; --i) size = size << 8 | static_cast<uint64_t>(bytes[static_cast<size_t>(i)]);
  if (size > header_bytes_max) {
    if (const std::string_view kind = base::kind_of_file(source); !kind.empty()) fail(GPTQ_E_FORMAT, "'", file, "' is ", kind);
    fail(GPTQ_E_FORMAT, "'", file, "': a header of ", size, " bytes, at most ", header_bytes_max,
         " are allowed: is it a safetensors file?");
  }
  if (size > source.size() - 8)
    fail(GPTQ_E_FORMAT, "'", file, "': the header of ", size, " bytes passes the end of the file: the download is not complete");
  return size;
}

// Reads the fields of one tensor.
class EntryReader {
 public:
  EntryReader(std::string_view file, std::string_view name, uint64_t data_offset) : file_(file), data_offset_(data_offset) {
    entry_.name = name;
  }

  TensorEntry read(element value) {
    simdjson::dom::object fields;
    if (value.get_object().get(fields)) refuse("must be an object");
    rule(fields.size() == 3, "must have dtype, shape and data_offsets, each once");
    read_dtype(fields);
    read_shape(fields);
    read_offsets(fields);
    return std::move(entry_);
  }

 private:
  [[noreturn]] void refuse(std::string_view text, base::Code code = {GPTQ_E_FORMAT, __builtin_FILE(), __builtin_LINE()}) const {
    fail(code, "'", file_, "': tensor '", std::string_view(entry_.name), "' ", text);
  }
  void rule(bool holds, std::string_view text, base::Code code = {GPTQ_E_FORMAT, __builtin_FILE(), __builtin_LINE()}) const {
    if (!holds) refuse(text, code);
  }

  void read_dtype(simdjson::dom::object fields) {
    std::string_view name;
    if (fields.at_key("dtype").get_string().get(name)) refuse("has no dtype");
    const auto known = std::find_if(dtypes.begin(), dtypes.end(), [&](const DtypeFacts& d) { return d.name == name; });
    if (known == dtypes.end())
      fail(GPTQ_E_UNSUPPORTED, "'", file_, "': tensor '", std::string_view(entry_.name), "' has the unknown dtype '", name, "'");
    entry_.dtype = static_cast<Dtype>(known - dtypes.begin());
  }

  void read_shape(simdjson::dom::object fields) {
    simdjson::dom::array shape;
    if (fields.at_key("shape").get_array().get(shape)) refuse("has no shape");
    rule(shape.size() <= rank_max, "has more than 8 dimensions");
    for (const element dimension : shape) {
      uint64_t size;
      if (dimension.get_uint64().get(size)) refuse("has a shape that is not made of whole numbers");
      entry_.shape.push_back(size);
    }
  }

  void read_offsets(simdjson::dom::object fields) {
    simdjson::dom::array offsets;
    uint64_t begin, end;
    if (fields.at_key("data_offsets").get_array().get(offsets) || offsets.size() != 2) refuse("has no data_offsets of two numbers");
    if (offsets.at(0).get_uint64().get(begin) || offsets.at(1).get_uint64().get(end)) refuse("has data_offsets that are no whole numbers");
    rule(begin <= end, "ends before it begins");
    uint64_t bytes = dtype_bytes(entry_.dtype);
    for (const uint64_t size : entry_.shape)
      if (__builtin_mul_overflow(bytes, size, &bytes)) refuse("has a shape of more than 2^64 bytes");
    if (bytes != end - begin)
      fail(GPTQ_E_FORMAT, "'", file_, "': tensor '", std::string_view(entry_.name), "' has ", end - begin,
           " bytes where its shape and dtype make ", bytes);
    entry_.offset = base::add(begin, data_offset_);
    entry_.bytes = bytes;
  }

  std::string_view file_;
  uint64_t data_offset_;
  TensorEntry entry_{};
};

// Some writers say null where they have none.
void check_metadata(std::string_view file, element value) {
  simdjson::dom::object fields;
  if (value.is_null()) return;
  if (value.get_object().get(fields)) fail(GPTQ_E_FORMAT, "'", file, "': __metadata__ must be an object");
  for (const auto field : fields)
    if (!field.value.is_string() && !field.value.is_null()) fail(GPTQ_E_FORMAT, "'", file, "': __metadata__ '", field.key, "' must be a string");
}

void check_names(std::string_view file, const std::vector<TensorEntry>& entries) {
  std::vector<std::string_view> names;
  for (const TensorEntry& e : entries) names.push_back(e.name);
  std::sort(names.begin(), names.end());
  if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end())
    fail(GPTQ_E_FORMAT, "'", file, "': tensor '", *twice, "' stands twice in the header");
}

// Data must follow each other without overlap or hole, up to the end of the file.
void check_places(std::string_view file, uint64_t data_offset, uint64_t file_size, std::vector<TensorEntry>& entries) {
  std::sort(entries.begin(), entries.end(),
            [](const auto& a, const auto& b) { return a.offset != b.offset ? a.offset < b.offset : a.bytes < b.bytes; });
  uint64_t at = data_offset;
  for (const TensorEntry& e : entries) {
    if (e.offset < at) fail_at(GPTQ_E_FORMAT, e.offset, "'", file, "': tensor '", std::string_view(e.name), "' overlaps the one before it");
    if (e.offset > at)
      fail_at(GPTQ_E_FORMAT, at, "'", file, "': a hole of ", e.offset - at, " bytes before tensor '", std::string_view(e.name), "'");
    at = base::add(at, e.bytes);
  }
  if (at > file_size)
    fail(GPTQ_E_FORMAT, "'", file, "' has ", file_size, " bytes, its tensors need ", at, ": the download is not complete");
  if (at < file_size) fail(GPTQ_E_FORMAT, "'", file, "': ", file_size - at, " bytes follow the last tensor");
}

}  // namespace

std::string_view dtype_name(Dtype dtype) { return dtypes[static_cast<size_t>(dtype)].name; }
uint32_t dtype_bytes(Dtype dtype) { return dtypes[static_cast<size_t>(dtype)].bytes; }

std::string describe(const TensorEntry& entry) {
  std::string text(dtype_name(entry.dtype));
  text += " [";
  for (size_t i = 0; i < entry.shape.size(); ++i) text += (i ? ", " : "") + std::to_string(entry.shape[i]);
  return text + "]";
}

std::vector<TensorEntry> read_safetensors_header(const base::Source& source, std::string_view file) {
  const uint64_t size = header_size(source, file), data_offset = 8 + size;
  std::string text(base::to_size(size), '\0');
  source.read_at(8, std::as_writable_bytes(std::span(text)));
  simdjson::dom::parser parser;
  simdjson::dom::object root;
  auto error = parser.allocate(std::max<size_t>(text.size(), 64), depth_max);
  if (!error) error = parser.parse(text.data(), text.size()).get_object().get(root);
  if (error) fail(GPTQ_E_FORMAT, "'", file, "': the header is no valid JSON object: ", simdjson::error_message(error));
  std::vector<TensorEntry> entries;
  for (const auto field : root) {
    if (field.key == "__metadata__") {
      check_metadata(file, field.value);
      continue;
    }
    if (field.key.empty() || field.key.size() > name_bytes_max)
      fail(GPTQ_E_FORMAT, "'", file, "': a tensor's name of ", field.key.size(), " bytes; 1 to 512 are allowed");
    if (entries.size() == tensors_max) fail(GPTQ_E_FORMAT, "'", file, "' has more than ", tensors_max, " tensors");
    entries.push_back(EntryReader(file, field.key, data_offset).read(field.value));
  }
  check_names(file, entries);
  check_places(file, data_offset, source.size(), entries);
  return entries;
}

}  // namespace gptq::convert
