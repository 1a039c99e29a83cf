// SPDX-License-Identifier: Apache-2.0
#include "converter/source.h"

#include <span>

#include "base/failure.h"
#include "base/io.h"
#include "base/os.h"
#include "converter/gguf/gguf_source.h"
#include "converter/hf/hf_source.h"

namespace gptq::convert {
namespace {

// By its first bytes, whatever it is called.
bool is_gguf(const std::string& path) {
  const base::FileSource file(path);
  char magic[4] = {};
  if (file.size() >= sizeof magic) file.read_at(0, std::as_writable_bytes(std::span(magic)));
  return std::string_view(magic, sizeof magic) == "GGUF";
}

}  // namespace

model::ModelSpec checked_spec(const format::fb::SpecT& spec, uint64_t bytes) {
  flatbuffers::FlatBufferBuilder builder;
  builder.Finish(format::fb::Spec::Pack(builder, &spec));
  model::ModelSpec out = model::check_spec(*flatbuffers::GetRoot<format::fb::Spec>(builder.GetBufferPointer()), std::pmr::get_default_resource());
  constexpr uint64_t least = 64;  // bytes of a layer's or an expert's weights
  if (const uint64_t parts = model::count_parts(out); parts > bytes / least)
    base::fail(GPTQ_E_FORMAT, "the checkpoint's ", bytes, " bytes cannot hold ", parts, " layers and experts");
  return out;
}

std::unique_ptr<ModelSource> open_source(std::string_view path, const Options& options) {
  using base::fail;
  const std::string place(path);
  const base::os::Kind kind = base::os::kind_of(place);
  if (kind == base::os::Kind::nothing) fail(GPTQ_E_NOT_FOUND, "there is no '", path, "'");
  if (kind == base::os::Kind::folder) return open_hf_folder(place, options);
  if (place.ends_with(".gguf")) return open_gguf(path, options);
  if (place.ends_with(".safetensors") || place.ends_with(".json"))
    fail(GPTQ_E_UNSUPPORTED, "'", path, "' is one file of a checkpoint; name the folder that holds it and its config.json");
  if (kind == base::os::Kind::file && is_gguf(place)) return open_gguf(path, options);
  fail(GPTQ_E_UNSUPPORTED, "'", path, "' is neither a folder with a Hugging Face checkpoint nor a .gguf file");
}

}  // namespace gptq::convert
