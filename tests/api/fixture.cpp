// SPDX-License-Identifier: Apache-2.0
#include "tests/api/fixture.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>

#include "converter/convert.h"
#include "converter/json.h"
#include "converter/safetensors/file.h"
#include "converter/tokenizer/description.h"
#include "converter/synth.h"
#include "tests/unit/tiny_model.h"

namespace gptq::test {
namespace {

namespace fs = std::filesystem;

std::string golden(const std::string& name) {
  const char* folder = std::getenv("GPTQ_GOLDEN");
  return std::string(folder ? folder : "tests/golden") + name;
}
std::string own_checkpoints() { return golden("/checkpoints"); }

// Those with a reference.
std::vector<std::string> folders_in(const std::string& parent) {
  std::vector<std::string> folders;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(parent, error))
    if (fs::exists(entry.path() / "reference.json")) folders.push_back(entry.path().string());
  std::sort(folders.begin(), folders.end());
  return folders;
}

// A folder of this run, removed at its end.
class Scratch {
 public:
  Scratch() : path_(fs::temp_directory_path() / ("gptq-api-" + std::to_string(getpid()))) { fs::create_directories(path_); }
  ~Scratch() {
    std::error_code error;
    fs::remove_all(path_, error);
  }
  std::string file(const std::string& name) const { return (path_ / name).string(); }

 private:
  fs::path path_;
};
const Scratch& scratch() {
  static const Scratch folder;
  return folder;
}

// <unk> <s> </s>, 256 bytes, a space and letters, then pairs of letters that merge.
convert::TokenizerDescription small_tokenizer() {
  convert::TokenizerDescription t;
  t.alphabet = text::fb::Alphabet::characters;
  for (const char* name : {"<unk>", "<s>", "</s>"}) t.tokens.push_back({name, false, false, true});
  for (int byte = 0; byte < 256; ++byte) t.tokens.push_back({std::string(1, static_cast<char>(byte)), false, true});
  const std::string letters = " abcdefghijklmnopqrstuvwxyz";
  for (const char c : letters) t.tokens.push_back({std::string(1, c), true});
  constexpr uint32_t first = 259;
  for (uint32_t left = 0; left < letters.size() && t.tokens.size() < 512; ++left)
    for (const char vowel : std::string("aeiouhnrt")) {
      if (t.tokens.size() == 512) break;
      t.merges.push_back({first + left, first + static_cast<uint32_t>(letters.find(vowel)), static_cast<uint32_t>(t.tokens.size())});
      t.tokens.push_back({std::string(1, letters[left]) + vowel});
    }
  t.added = {{0, "<unk>"}, {1, "<s>"}, {2, "</s>"}};
  t.prefix = text::fb::Prefix::always;
  t.byte_fallback = t.strips_leading_space = true;
  t.unknown = 0;
  t.before = {1};
  t.bos = {1, "<s>"};
  t.eos = {2, "</s>"};
  return t;
}

std::string own_mistral() { return own_checkpoints() + "/random-mistral-window-w4-g64"; }

using Change = void (*)(const model::Slot& slot, convert::Weight& weight);

// The random Mistral with a tokenizer, a layer without its window, and changed weights.
class FixtureSource final : public convert::ModelSource {
 public:
  FixtureSource(std::unique_ptr<convert::ModelSource> inner, Change change)
      : inner_(std::move(inner)), description_(inner_->description()), change_(change) {
    description_.spec.windowed_layers = {1, 0, 1};
    description_.tokenizer = std::make_shared<convert::TokenizerDescription>(small_tokenizer());
    description_.meta.emplace_back(
        "chat_template",
        "{% for m in messages %}<s>{{ m['role'] }} {{ m['content'] }}</s>{% endfor %}{% if add_generation_prompt %}<s>bot{% endif %}");
  }
  const convert::ModelDescription& description() const override { return description_; }
  convert::Weight load(const model::Slot& slot) override {
    convert::Weight weight = inner_->load(slot);
    if (change_) change_(slot, weight);
    return weight;
  }

 private:
  std::unique_ptr<convert::ModelSource> inner_;
  convert::ModelDescription description_;
  Change change_;
};

// The same with many more layers that change nothing: what they add to the sequence of vectors is 0.
class DeepSource final : public convert::ModelSource {
 public:
  DeepSource(std::unique_ptr<convert::ModelSource> inner, uint32_t more) : inner_(std::move(inner)), description_(inner_->description()) {
    n_inner_ = description_.spec.n_layers;
    description_.spec.n_layers += more;
    description_.spec.windowed_layers.resize(description_.spec.n_layers, 0);
  }
  const convert::ModelDescription& description() const override { return description_; }
  convert::Weight load(const model::Slot& slot) override {
    if (!slot.in_layer() || slot.id.layer < n_inner_) return inner_->load(slot);
    if (slot.id.role == model::Role::o || slot.id.role == model::Role::down)
      return convert::DenseWeight{kernels::Kind::f16, std::vector<std::byte>(uint64_t{slot.n} * slot.k * 2)};
    model::Slot other = slot;
    other.id.layer %= n_inner_;
    other.name = model::name_of(other.id, std::pmr::get_default_resource());
    return inner_->load(other);
  }

 private:
  std::unique_ptr<convert::ModelSource> inner_;
  convert::ModelDescription description_;
  uint32_t n_inner_;
};

convert::Weight vector_of(uint32_t n, float first) {
  std::vector<float> values(n, 1.0f);
  values[0] = first;
  const auto bytes = std::as_bytes(std::span(values));
  return convert::DenseWeight{kernels::Kind::f32, {bytes.begin(), bytes.end()}};
}

// A huge norm weight meets an input that only the sick token has.
void make_sick(const model::Slot& slot, convert::Weight& weight) {
  if (slot.name == "layers.0.attn_norm") weight = vector_of(slot.n, 3e38f);
  if (slot.name != "embed") return;
  constexpr uint16_t hundred = 0x5640;  // as float16; the first column of all other rows becomes 0
  for (gptq_token row = 0; row < 512; ++row) {
    const uint16_t value = row == sick_token ? hundred : 0;
    std::memcpy(std::get<convert::DenseWeight>(weight).bytes.data() + static_cast<size_t>(row) * slot.k * 2, &value, 2);
  }
}

// Finite itself, but not what it leads to.
void overflow_norm(const model::Slot& slot, convert::Weight& weight) {
  if (slot.name == "layers.1.mlp_norm") weight = vector_of(slot.n, 3e38f);
}

std::string convert_fixture(const std::string& name, std::unique_ptr<convert::ModelSource> inner, Change change = nullptr) {
  const std::string path = scratch().file(name);
  FixtureSource source(std::move(inner), change);
  convert::convert(source, path, {});
  return path;
}

std::string dense_fixture(const std::string& name, Change change = nullptr) {
  return convert_fixture(name, convert::make_synth(own_mistral() + "/config.json", {.bits = 16}), change);
}

Tokens tokens_of(const convert::JsonObject& object, std::string_view key) {
  Tokens tokens;
  const auto array = object.array(key).value();
  for (const auto element : array) tokens.push_back(static_cast<gptq_token>(int64_t(element)));
  return tokens;
}

}  // namespace

std::vector<std::string> checkpoint_folders() {
  const char* data = std::getenv("GPTQ_TEST_DATA");
  return folders_in(data ? std::string(data) + "/checkpoints" : own_checkpoints());
}
std::vector<std::string> family_folders() {
  const char* data = std::getenv("GPTQ_TEST_DATA");
  std::vector<std::string> folders = folders_in(golden("/families"));
  if (!data) return folders;
  // Our own ones that are not among the data's too.
  std::vector<std::string> all = folders_in(std::string(data) + "/families");
  std::erase_if(folders, [&](const std::string& folder) {
    return std::any_of(all.begin(), all.end(), [&](const std::string& other) { return name_of(other) == name_of(folder); });
  });
  all.insert(all.end(), folders.begin(), folders.end());
  return all;
}

std::string name_of(const std::string& folder) { return fs::path(folder).filename().string(); }

const std::string& converted(const std::string& folder) {
  static std::map<std::string, std::string> files;
  std::string& path = files[folder];
  if (path.empty()) {
    path = scratch().file(name_of(folder) + ".gptq");
    convert::convert(*convert::open_source(folder, {}), path, {});
  }
  return path;
}

const std::string& text_model() {
  static const std::string path = convert_fixture("text.gptq", convert::open_source(own_mistral(), {}));
  return path;
}
const std::string& deep_model() {
  static const std::string path = [] {
    DeepSource source(std::make_unique<FixtureSource>(convert::open_source(own_mistral(), {}), nullptr), 30);
    convert::convert(source, scratch().file("deep.gptq"), {});
    return scratch().file("deep.gptq");
  }();
  return path;
}
const std::string& dense_model() {
  static const std::string path = dense_fixture("dense.gptq");
  return path;
}
const std::string& overflowing_model() {
  static const std::string path = dense_fixture("overflow.gptq", overflow_norm);
  return path;
}
const std::string& sick_model() {
  static const std::string path = convert_fixture("sick.gptq", convert::open_source(own_mistral(), {}), make_sick);
  return path;
}
const std::string& tiny_model() {
  static const std::string path = [] {
    write_file(scratch().file("tiny.gptq"), TinyModel().build(format::Compression::zstd));
    return scratch().file("tiny.gptq");
  }();
  return path;
}

Bytes read_bytes(const std::string& path) { return read_file(path); }

std::vector<Prompt> prompts_of(const std::string& folder) {
  // The parser wants an object at the root.
  const convert::JsonDocument document("reference.json", "{\"prompts\":" + convert::read_text(folder + "/reference.json", 1 << 20) + "}");
  const base::FileSource file(folder + "/reference.safetensors");
  const auto tensors = convert::read_safetensors_header(file, "reference.safetensors");
  std::vector<Prompt> prompts;
  const auto array = document.root().array("prompts").value();
  for (const auto element : array) {
    const convert::JsonObject object("prompt", element);
    Prompt prompt{tokens_of(object, "ids"), tokens_of(object, "greedy"), std::string(object.string("text").value_or("")), {},
                  object.number("smallest_gap", 0)};
    const std::string name = "prompt" + std::to_string(prompts.size()) + ".logits";
    const auto tensor = std::find_if(tensors.begin(), tensors.end(), [&](const auto& t) { return t.name == name; });
    prompt.logits.resize(tensor->bytes / sizeof(float));
    file.read_at(tensor->offset, std::as_writable_bytes(std::span(prompt.logits)));
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

gptq_runtime_desc Host::desc(uint32_t threads) {
  auto desc = with_threads(threads);
  desc.alloc = allocate;
  desc.free = release;
  desc.alloc_user = this;
  return desc;
}

void* Host::allocate(void* user, size_t size, size_t align, uint32_t, uint32_t) {
  Host& host = *static_cast<Host*>(user);
  ++host.calls;
  const uint64_t number = host.allocations++;
  if (number == host.fail_at || (host.fail_on && number > host.fail_at)) return nullptr;
  const int64_t live = host.live += static_cast<int64_t>(size);
  for (int64_t seen = host.peak; seen < live && !host.peak.compare_exchange_weak(seen, live);) {
  }
  return ::operator new(size, std::align_val_t(align), std::nothrow);
}
void Host::release(void* user, void* p, size_t size, size_t align, uint32_t, uint32_t) {
  Host& host = *static_cast<Host*>(user);
  ++host.calls;
  host.live -= static_cast<int64_t>(size);
  ::operator delete(p, std::align_val_t(align));
}

int finish(const Engine& engine, uint32_t budget_us) {
  for (int steps = 1;; ++steps) {
    const gptq_status status = gptq_engine_step(engine.get(), budget_us, nullptr);
    check(status);
    if (status == GPTQ_IDLE) return steps;
  }
}

Tokens continue_with(const Engine& engine, Session& session, uint32_t n) {
  session.start(generation(n));
  finish(engine);
  return session.read_tokens();
}
Tokens greedy(const Engine& engine, Session& session, const Tokens& prompt, uint32_t n) {
  session.append(prompt);
  return continue_with(engine, session, n);
}

Tokens generate_together(const Model& model, uint32_t n, uint32_t n_tokens, int32_t top_k, uint32_t budget_us) {
  Engine engine(model, engine_of(0, n));
  std::vector<Session> sessions;
  for (uint32_t i = 0; i < n; ++i) {
    sessions.emplace_back(engine);
    sessions.back().append(some_tokens(1 + i, i + 1));
    auto sampling = make<gptq_sampling>();
    sampling.temperature = top_k == 1 ? 0 : 1;
    sampling.top_k = top_k;
    sampling.seed = i + 1;
    auto how = generation(n_tokens);
    how.sampling = &sampling;
    sessions.back().start(how);
  }
  while (engine.step(budget_us) == GPTQ_MORE) continue;
  Tokens all;
  for (Session& session : sessions) {
    EXPECT_EQ(session.info().status, GPTQ_OK);
    for (const int32_t token : session.read_tokens()) all.push_back(token);
  }
  EXPECT_EQ(all.size(), n * n_tokens);
  return all;
}

std::vector<float> all_logits(const Model& model, const Engine& engine, Session& session, const Tokens& ids, uint32_t budget_us) {
  const size_t n_vocab = model.info().n_vocab;
  std::vector<float> logits(ids.size() * n_vocab);
  session.append(ids);
  session.start(generation(0, GPTQ_GEN_LOGITS | GPTQ_GEN_PREFILL_ONLY));
  for (size_t rows = 0; rows < ids.size();) {
    check(gptq_engine_step(engine.get(), budget_us, nullptr));
    uint32_t first = 0, n = 0;
    check(gptq_session_read_logits(session.get(), logits.data() + rows * n_vocab, logits.size() - rows * n_vocab, &first, &n));
    if (n && first != rows) throw std::logic_error("logits of another position");
    rows += n;
  }
  finish(engine);
  return logits;
}

Tokens some_tokens(uint32_t n, uint32_t seed) {
  Tokens tokens(n);
  for (gptq_token& token : tokens) {
    seed = seed * 1664525u + 1013904223u;
    token = static_cast<gptq_token>(3 + (seed >> 8) % 509);
    if (token == sick_token) token = 3;
  }
  return tokens;
}

double kl(const float* p, const float* q, size_t n) {
  const auto log_sum = [n](const float* x) {
    const double most = *std::max_element(x, x + n);
    double sum = 0;
    for (size_t i = 0; i < n; ++i) sum += std::exp(x[i] - most);
    return most + std::log(sum);
  };
  const double log_p = log_sum(p), log_q = log_sum(q);
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += std::exp(p[i] - log_p) * ((p[i] - log_p) - (q[i] - log_q));
  return sum;
}

size_t top(const float* logits, size_t n) { return static_cast<size_t>(std::max_element(logits, logits + n) - logits); }

}  // namespace gptq::test
