// SPDX-License-Identifier: Apache-2.0
// What stands behind the opaque handles, and their reference counts.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <list>
#include <mutex>
#include <optional>
#include <string_view>

#include "api/domain.h"
#include "api/gpu_placer.h"
#include "api/guard.h"
#include "base/failure.h"
#include "base/memory.h"
#include "base/threads.h"
#include "engine/engine.h"
#include "gptq/gptq.h"
#include "model/adapter.h"
#include "model/model.h"
#include "text/constraint/constraint.h"
#include "text/tokenizer.h"

struct gptq_runtime {
  explicit gptq_runtime(const gptq_runtime_desc& d)
      : desc(d), memory(d.alloc, d.free, d.alloc_user, d.host_bytes_max), pool(d.threads, d.parallel, d.parallel_user, &memory),
        kernels(gptq::kernels::select_kernels(d.cpu_features_mask)) {
    gptq::kernels::describe_kernels(d.cpu_features_mask, kernel_text, sizeof kernel_text);
  }
  void log(int32_t level, std::string_view text) const {
    if (desc.log && level <= desc.log_level) desc.log(desc.log_user, level, text.data(), text.size());
  }

  // Of this kind of device. Fails with BACKEND.
  const gptq::gpu::Backend& backend(uint32_t kind) {
    const std::lock_guard lock(backend_guard);
    for (const gptq::device::Library& library : backends)
      if (library.table().kind == kind) return library.table();
    gptq::base::fail(GPTQ_E_BACKEND, "no backend for the device is loaded: call gptq_runtime_load_backend first");
  }

  std::atomic<uint32_t> references{1};
  const gptq_runtime_desc desc;
  mutable gptq::base::HostMemory memory;
  gptq::base::Pool pool;
  const gptq::kernels::Kernels kernels;
  char kernel_text[1024];
  std::mutex backend_guard;
  std::pmr::list<gptq::device::Library> backends{&memory};  // one for a kind of device
};

// A device that the host wants layers of a model on.
struct gptq_device_request {
  const gptq::gpu::Backend* table = nullptr;  // NULL: the CPU
  uint32_t ordinal = 0;
  uint32_t layers = 0;     // gptq::api::Share's
  uint64_t limit = 0;      // what the host set; 0 = nothing
  uint64_t memory = 0;     // the GPU's, or the limit
  uint64_t kind_hash = 0;  // the same for GPUs that compute the same
};

// A GPU that a model has for its weights; an engine has its own stream.
struct gptq_model_gpu {
  gptq_model_gpu(const gptq_device_request& r) : request(r), account{.limit = r.limit}, gpu(*r.table, r.ordinal, account) {}
  gptq::api::Share share(uint32_t number) const {
    const uint64_t free = gpu.bytes_free();
    return {number, request.layers, request.limit ? std::min(request.limit, free) : free};
  }
  const gptq_device_request request;
  gptq::device::Account account;
  const gptq::device::Gpu gpu;
};

// Those of a list of requests, in their order; a placement's number counts them.
class gptq_model_gpus {
 public:
  gptq_model_gpus(std::span<const gptq_device_request> requests, std::pmr::memory_resource* memory);
  std::span<const gptq::device::Gpu* const> gpus() const { return gpus_; }
  std::span<const gptq::api::Share> shares() const { return shares_; }
  bool any() const { return !gpus_.empty(); }
  gptq_model_gpu& operator[](uint32_t number) { return *std::next(list_.begin(), number); }
  const gptq_model_gpu& operator[](uint32_t number) const { return *std::next(list_.begin(), number); }
  auto begin() const { return list_.begin(); }
  auto end() const { return list_.end(); }
  // Of the GPU that has the least, as far as it may be used.
  uint64_t least_memory() const;

 private:
  std::pmr::list<gptq_model_gpu> list_;
  std::pmr::vector<const gptq::device::Gpu*> gpus_;
  std::pmr::vector<gptq::api::Share> shares_;
};

struct gptq_model {
  gptq_model(gptq_runtime& rt, const gptq::base::Source& source, gptq::model::LoadOptions options, std::span<const gptq_device_request> requests)
      : runtime(rt), gpus(requests, &rt.memory) {
    if (gpus.any()) options.placer = &placer.emplace(gpus.gpus(), gpus.shares(), &rt.memory);
    std::pmr::memory_resource* memory = rt.memory.part(GPTQ_TAG_MODEL);
    model.emplace(source, options, rt.pool, memory);
    if (model->tokenizer.size()) tokenizer.emplace(model->tokenizer.bytes(), model->spec.n_vocab, memory);
  }
  const gptq::text::Tokenizer* text() const { return tokenizer ? &*tokenizer : nullptr; }
  // Made when it is first asked for.
  const gptq::text::constraint::TokenTrie& token_trie() {
    const std::lock_guard lock(trie_guard);
    if (!trie)
      trie.emplace(gptq::text::constraint::trie_of(*tokenizer, model->spec.n_vocab, model->generation.end_tokens, runtime.memory.part(GPTQ_TAG_MODEL)));
    return *trie;
  }
  bool on_gpu() const { return !all_on_host(model->placements); }

  std::atomic<uint32_t> references{1};
  gptq_runtime& runtime;
  gptq_model_gpus gpus;
  std::optional<gptq::api::GpuPlacer> placer;
  std::optional<gptq::model::Model> model;
  std::optional<gptq::text::Tokenizer> tokenizer;
  std::mutex trie_guard;
  std::optional<gptq::text::constraint::TokenTrie> trie;
  std::mutex constraints_guard;
  gptq_constraint* constraints = nullptr;  // those alive, a list; a restored session finds its own there
  std::mutex adapters_guard;
  gptq_adapter* adapters = nullptr;        // the same of adapters
};

struct gptq_adapter {
  gptq_adapter(gptq_model& m, const gptq::base::Source& source)
      : model(m), changes(source, m.model->spec, m.runtime.pool, m.runtime.memory.part(GPTQ_TAG_MODEL)) {}

  std::atomic<uint32_t> references{1};
  gptq_model& model;
  const gptq::model::Adapter changes;
  gptq_adapter* next = nullptr;
};

struct gptq_constraint {
  gptq_constraint(gptq_model& m, int32_t of_kind, std::string_view text, size_t cache_bytes)
      : model(m), kind(of_kind), source(text, &m.runtime.memory) {
    std::pmr::memory_resource* const memory = m.runtime.memory.part(GPTQ_TAG_OTHER);
    if (kind == GPTQ_CONSTRAINT_BANNED) phrases.emplace(text, *m.tokenizer, m.model->spec.n_vocab, memory);
    else
      rules.emplace(static_cast<gptq::text::constraint::Kind>(kind), text, m.token_trie(), m.model->generation.end_tokens, cache_bytes, memory);
  }

  std::atomic<uint32_t> references{1};
  gptq_model& model;
  const int32_t kind;
  const std::pmr::string source;
  std::optional<gptq::text::constraint::Constraint> rules;  // one of both is there, by the kind
  std::optional<gptq::text::Phrases> phrases;
  gptq_constraint* next = nullptr;
};

// What the host foretold of a session's output; forks have the same.
struct gptq_prediction {
  gptq_prediction(gptq_runtime& rt, std::span<const int32_t> of) : runtime(rt), tokens(of.begin(), of.end(), &rt.memory) {}

  std::atomic<uint32_t> references{1};
  gptq_runtime& runtime;
  const std::pmr::vector<int32_t> tokens;
};

struct gptq_engine {
  gptq_engine(gptq_model& m, const gptq::engine::EngineShape& shape, void* host_stream);

  std::atomic<uint32_t> references{1};
  gptq_model& model;
  std::pmr::list<gptq::device::Gpu> gpus;  // a stream for every GPU that has layers
  std::optional<gptq::engine::Engine> engine;
  gptq_engine* draft = nullptr;  // of the model that guesses for it
  gptq::api::Domain domain;
};

namespace gptq::api {

inline const gptq_runtime* runtime_of(const gptq_model* m) { return m ? &m->runtime : nullptr; }
inline const gptq_runtime* runtime_of(const gptq_engine* e) { return e ? runtime_of(&e->model) : nullptr; }
inline const gptq_runtime* runtime_of(const gptq_session* s);

inline engine::Session& session_of(gptq_session* s) { return *reinterpret_cast<engine::Session*>(s); }
inline const engine::Session& session_of(const gptq_session* s) { return *reinterpret_cast<const engine::Session*>(s); }
inline gptq_session* handle_of(engine::Session* s) { return reinterpret_cast<gptq_session*>(s); }
inline gptq_engine& engine_of(const engine::Session& s) { return *static_cast<gptq_engine*>(s.owner); }

inline const gptq_runtime* runtime_of(const gptq_session* s) { return s ? runtime_of(&engine_of(session_of(s))) : nullptr; }

template <class Handle>
Handle* retain(Handle* handle) {
  handle->references.fetch_add(1, std::memory_order_relaxed);
  return handle;
}

// The right to work with an engine, for the time of a call; of none where there is no engine.
class Inside {
 public:
  explicit Inside(gptq_engine* e);
  explicit Inside(const gptq_engine* e) : Inside(const_cast<gptq_engine*>(e)) {}
  explicit Inside(const gptq_session* s) : Inside(s ? &engine_of(session_of(s)) : nullptr) {}
  explicit Inside(const gptq_model*) : Inside(static_cast<gptq_engine*>(nullptr)) {}
  Inside(const Inside&) = delete;
  ~Inside();
  void require() const;  // throws
  void leave();

 private:
  gptq_engine* const engine_;
  bool in_;
};

// One batch, of everybody's, as a call of its own: what is destroyed between two of them gives its place back at once.
void step_batch(gptq_engine& e);

// guard for calls that work with an engine, or with one of its sessions. handle may be NULL.
template <class Handle, class F>
gptq_status guard_inside(Handle* handle, gptq_error* err, F&& f) {
  Inside inside(handle);
  return guard(err, [&] {
    inside.require();
    return f();
  });
}

// The same for calls without a gptq_error: the host's log gets the message.
template <class Handle, class F>
gptq_status guard_logged(Handle* handle, F&& f) {
  const gptq_runtime* rt = runtime_of(handle);
  Inside inside(handle);
  return guard_with([&](const gptq_error& detail) {
    inside.leave();  // the log may ask the engine
    char text[sizeof detail.message + sizeof detail.site + 4];
    const int n = std::snprintf(text, sizeof text, "%s [%s]", detail.message, detail.site);
    if (rt) rt->log(GPTQ_LOG_ERROR, {text, static_cast<size_t>(n)});
    return detail.status;
  }, [&] {
    inside.require();
    return f();
  });
}

// Whether this was the last reference.
template <class Handle>
bool drop(Handle* handle) {
  return handle->references.fetch_sub(1, std::memory_order_acq_rel) == 1;
}

// Objects in the host's memory.
template <class T, class... Args>
T* create(std::pmr::memory_resource& memory, Args&&... args) {
  void* place = memory.allocate(sizeof(T), alignof(T));
  try {
    return ::new (place) T(std::forward<Args>(args)...);
  } catch (...) {
    memory.deallocate(place, sizeof(T), alignof(T));
    throw;
  }
}
template <class T>
void destroy(std::pmr::memory_resource& memory, T* object) {
  object->~T();
  memory.deallocate(object, sizeof(T), alignof(T));
}

}  // namespace gptq::api
