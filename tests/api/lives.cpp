// SPDX-License-Identifier: Apache-2.0
#include "tests/api/lives.h"

#include <algorithm>
#include <filesystem>

#include "converter/hf/export.h"
#include "converter/lora/merge.h"
#include "tests/api/lora_fixture.h"
#include "tests/unit/small_checkpoint.h"
#include "tests/unit/tiny_model.h"

namespace gptq::test {
namespace {

namespace fs = std::filesystem;

gptq_source from_file(const std::string& path) {
  auto source = make<gptq_source>();
  source.path = path.c_str(), source.path_size = path.size();
  return source;
}

// The small checkpoint, its model, and a LoRA for it.
struct Made {
  Made() : model_((checkpoint.run(), checkpoint.folder.file("out.gptq"))), lora(model_) {
    other.config.replace(other.config.find("\"num_attention_heads\":2"), 23, "\"num_attention_heads\":4");
    other.run();
  }
  const std::string& model() const { return model_; }
  std::string other_model() const { return other.folder.file("out.gptq"); }
  std::string quantized() const {
    static const std::string path = [this] {
      std::string text;
      quantize(checkpoint.folder.path() + "/q.gptq", 400, 0, text);
      return checkpoint.folder.path() + "/q.gptq";
    }();
    return path;
  }
  gptq_status quantize(const std::string& target, uint32_t n_tokens, uint64_t bytes_max, std::string& text) const {
    Host host;
    auto desc = host.desc(1);
    desc.host_bytes_max = bytes_max;
    gptq_status status = GPTQ_OK;
    {
      const Runtime runtime(desc);
      const auto source = from_file(model_);
      Tokens tokens;
      for (uint32_t i = 0; i < n_tokens; ++i) tokens.push_back(static_cast<gptq_token>(i * i % 7));
      auto params = make<gptq_quantize_params>();
      params.tokens = tokens.data(), params.n_tokens = tokens.size(), params.row_tokens = 40, params.rows = n_tokens / 40, params.defaults.group_size = -1;
      params.head_bits = 8;
      auto error = make<gptq_error>();
      status = gptq_quantize(runtime.get(), &source, target.c_str(), target.size(), &params, &error);
      text = status < 0 ? error.message : "";
    }
    EXPECT_EQ(host.live, 0);
    return status;
  }
  SmallCheckpoint checkpoint, other;
  std::string model_;
  Lora lora;
};
const Made& made() {
  static const Made all;
  return all;
}

// What the converter throws as a status.
gptq_status caught(std::string& text, const std::function<void()>& f) {
  try {
    f();
    return GPTQ_OK;
  } catch (const base::Failure& failure) {
    text = failure.detail.message;
    return failure.detail.status;
  }
}

gptq_status convert_to(const std::string& from, const std::string& folder, bool replace, std::string& text) {
  return caught(text, [&] {
    convert::ConvertOptions how;
    how.replace = replace;
    convert::convert(*convert::open_source(from, {}), folder + "/out", how);
  });
}

gptq_status export_from(const std::string& model, const std::string& folder, bool replace, std::string& text) {
  return caught(text, [&] {
    convert::ExportOptions how;
    how.replace = replace, how.shard_bytes = 1500;
    convert::export_hf(base::FileSource(model), folder + "/out", how);
  });
}

// Load, generate, save, restore, go on, with an adapter: what is generated.
gptq_status use(const std::string& folder, std::string& text) {
  Host host;
  auto error = make<gptq_error>();
  gptq_model* model = nullptr;
  gptq_engine* engine = nullptr;
  gptq_session *session = nullptr, *restored = nullptr;
  gptq_adapter* adapter = nullptr;
  gptq_status status = GPTQ_OK;
  {
    const Runtime runtime(host.desc(1));
    const std::string &path = made().model(), changes = made().lora.path(), full = folder + "/full.save", replay = folder + "/replay.save";
    const auto from_changes = from_file(changes), from_full = from_file(full), from_replay = from_file(replay);
    const auto params = engine_of(0, 4);
    const auto how = generation(4);
    const gptq_token prompt[] = {3, 1, 4, 1, 5};
    const auto run = [&](gptq_session* s) {
      status = gptq_session_start(s, &how, &error);
      while (status == GPTQ_OK && gptq_engine_step(engine, GPTQ_BUDGET_UNLIMITED, nullptr) == GPTQ_MORE) continue;
      gptq_token tokens[8];
      size_t n = 0;
      if (status == GPTQ_OK) status = gptq_session_read_tokens(s, tokens, 8, &n);
      for (size_t i = 0; i < n; ++i) text += std::to_string(tokens[i]) + " ";
      return status == GPTQ_OK;
    };
    const auto restore = [&](const gptq_source& source) {
      status = gptq_session_restore_from(engine, &source, &restored, &error);
      const bool done = status >= 0 && run(restored);
      gptq_session_destroy(std::exchange(restored, nullptr));
      return done;
    };
    const auto done = [&](gptq_status s) { return (status = s) >= 0; };
    done(gptq_model_load(runtime.get(), path.c_str(), path.size(), nullptr, &model, &error)) && done(gptq_engine_create(model, &params, &engine, &error)) &&
        done(gptq_session_create(engine, &session, &error)) && done(gptq_adapter_load(model, &from_changes, &adapter, &error)) &&
        done(gptq_session_append_tokens(session, prompt, 5, &error)) && run(session) && restore(from_full) && restore(from_replay) && done(GPTQ_OK);
    gptq_session_destroy(session);
    gptq_adapter_release(adapter);
    gptq_engine_destroy(engine);
    gptq_model_release(model);
  }
  EXPECT_EQ(host.live, 0);
  if (status < 0) text = error.message;
  return status;
}

// The saves that use() restores.
void save(const std::string& folder) {
  Chain c(made().model(), engine_of(0, 4));
  c.session.append({2, 7, 1});
  for (const auto& [kind, name] : {std::pair{GPTQ_SAVE_FULL, "/full.save"}, {GPTQ_SAVE_REPLAY, "/replay.save"}}) {
    Bytes bytes(1 << 16);
    size_t n = 0;
    check(gptq_session_save(c.session.get(), kind, bytes.data(), bytes.size(), &n, nullptr));
    write_file(folder + name, std::span(bytes).first(n));
  }
}

}  // namespace

const std::vector<Life>& lives() {
  static const std::string gguf = std::string(std::getenv("GPTQ_GOLDEN") ? std::getenv("GPTQ_GOLDEN") : "tests/golden") + "/../fuzz/corpus/gguf/llama-q8_0.gguf";
  const auto old_model = [](const std::string& folder) { fs::copy_file(made().other_model(), folder + "/out"); };
  const auto old_folder = [](const std::string& folder) {
    static const TemporaryFolder first;
    std::string text;
    if (!fs::exists(first.file("out"))) EXPECT_EQ(export_from(made().other_model(), first.path(), false, text), GPTQ_OK) << text;
    fs::copy(first.file("out"), folder + "/out");
  };
  static const std::vector<Life> all = {
      {"use", use, 1, false, save},
      {"convert", [](const std::string& folder, std::string& text) { return convert_to(made().checkpoint.folder.path(), folder, false, text); }},
      {"convert anew", [](const std::string& folder, std::string& text) { return convert_to(made().checkpoint.folder.path(), folder, true, text); }, 2, true, old_model},
      {"convert GGUF", [](const std::string& folder, std::string& text) { return convert_to(gguf, folder, false, text); }, 2},
      {"export", [](const std::string& folder, std::string& text) { return export_from(made().model(), folder, false, text); }},
      {"export quantized", [](const std::string& folder, std::string& text) { return export_from(made().quantized(), folder, false, text); }, 4},
      {"export anew", [](const std::string& folder, std::string& text) { return export_from(made().model(), folder, true, text); }, 3, true, old_folder},
      {"lora", [](const std::string& folder, std::string& text) {
         return caught(text, [&] { convert::convert_lora(made().lora.folder().path(), base::FileSource(made().model()), folder + "/out", {}); });
       }},
      {"merge", [](const std::string& folder, std::string& text) {
         return caught(text, [&] {
           convert::merge_lora(base::FileSource(made().model()), base::FileSource(made().lora.path()), 1, folder + "/out", base::AtomicFile::IfExists::refuse);
         });
       }, 2},
      {"quantize", [](const std::string& folder, std::string& text) { return made().quantize(folder + "/out", 400, 0, text); }, 6},
      {"quantize on disk", [](const std::string& folder, std::string& text) { return made().quantize(folder + "/out", 24000, 2560 << 10, text); }, 100},
  };
  return all;
}

std::string content_of(const std::string& path) {
  if (!fs::exists(path)) return "";
  if (fs::is_regular_file(path)) {
    const Bytes bytes = read_bytes(path);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(path)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  std::string all = "folder";
  for (const std::string& name : names) all += "\n" + name + "\n" + content_of(path + "/" + name);
  return all;
}

std::string left_over_in(const std::string& folder) {
  std::string names;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const std::string name = fs::relative(entry.path(), folder).string();
    const bool work = name == "out.work" || name == "out.work/job" || (name.starts_with("out.work/") && name.ends_with(".gptq"));
    if (name == "out" || name.starts_with("out/") || name.ends_with(".save") || work) continue;
    names += name + " ";
  }
  return names;
}

}  // namespace gptq::test
