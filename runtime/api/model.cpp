// SPDX-License-Identifier: Apache-2.0
// C API: models.
#include <algorithm>

#include "api/embedding.h"
#include "api/guard.h"
#include "api/handles.h"
#include "api/opened_source.h"
#include "base/checked.h"
#include "format/hash.h"

using namespace gptq;
using namespace gptq::api;

namespace {

constexpr uint32_t kv_sample = 256;  // tokens
constexpr size_t devices_max = 16;

gptq_model_params read_params(const gptq_model_params* params) {
  const gptq_model_params p = read_struct_or_default(params, "gptq_model_params");
  refuse_extensions(p.next);
  require(!p.flags && !p.reserved, "unknown flags in gptq_model_params");
  require(p.device_kind == 0 || p.device_kind == GPTQ_DEVICE_CPU || p.device_kind == GPTQ_DEVICE_CUDA, "unknown device_kind");
  require(p.device_ordinal >= 0, "device_ordinal is negative");
  require(!p.n_devices || p.devices, "devices is NULL");
  require(p.n_devices <= devices_max, "n_devices is above 16");
  require(!p.n_devices || (!p.device_kind && !p.device_ordinal && !p.device_layers && !p.device_bytes_max), "devices and device_kind exclude each other");
  for (size_t i = 0; i < p.n_devices; ++i) require(p.devices[i], "a device is NULL");
  return p;
}

// By its UUID where there is one.
gpu::Processor find_gpu(const gpu::Backend& table, const gptq_device_share& share, uint32_t& ordinal) {
  if (std::none_of(std::begin(share.uuid), std::end(share.uuid), [](uint8_t byte) { return byte; })) return device::describe_gpu(table, ordinal);
  for (ordinal = 0;; ++ordinal) {
    gpu::Processor gpu;
    gpu::Failure failure{};
    const gpu::Result result = table.describe(ordinal, &gpu, &failure);
    if (result == gpu::Result::no_device) base::fail(GPTQ_E_NOT_FOUND, "no GPU has the UUID that is asked for: ", ordinal, " were looked at");
    if (result == gpu::Result::ok && std::equal(std::begin(share.uuid), std::end(share.uuid), gpu.uuid)) return gpu;
  }
}

gptq_device_request gpu_request(gptq_runtime& rt, const gptq_device_share& share) {
  gptq_device_request request{.table = &rt.backend(static_cast<uint32_t>(share.kind)), .ordinal = static_cast<uint32_t>(share.ordinal),
                              .layers = share.layers, .limit = share.bytes_max};
  const gpu::Processor gpu = find_gpu(*request.table, share, request.ordinal);
  const uint32_t kind[] = {gpu.capability, gpu.n_processors};
  request.kind_hash = format::hash_bytes(std::as_bytes(std::span(kind)));
  request.memory = share.bytes_max ? std::min(share.bytes_max, gpu.bytes_total) : gpu.bytes_total;
  return request;
}

std::pmr::vector<gptq_device_request> requests_of(gptq_runtime& rt, const gptq_model_params& p) {
  std::pmr::vector<gptq_device_request> requests(&rt.memory);
  const auto add = [&](const gptq_device_share& share) {
    require(share.kind == GPTQ_DEVICE_CPU || share.kind == GPTQ_DEVICE_CUDA, "unknown kind of device");
    require(share.ordinal >= 0, "a device's ordinal is negative");
    require(!share.flags && !share.reserved, "unknown flags in gptq_device_share");
    if (share.kind == GPTQ_DEVICE_CPU) requests.push_back({.layers = share.layers});
    else if (share.layers != no_layers) requests.push_back(gpu_request(rt, share));
  };
  if (!p.n_devices && p.device_kind == GPTQ_DEVICE_CUDA)
    add({.kind = p.device_kind, .ordinal = p.device_ordinal, .bytes_max = p.device_bytes_max, .layers = p.device_layers});
  for (size_t i = 0; i < p.n_devices; ++i) add(read_struct(p.devices[i], "gptq_device_share"));
  for (size_t i = 0; i < requests.size(); ++i)
    for (size_t other = 0; other < i; ++other)
      require(requests[i].table != requests[other].table || requests[i].ordinal != requests[other].ordinal, "a device is named twice");
  return requests;
}

gptq_status load(gptq_runtime* rt, const gptq_source& source, const gptq_model_params* params, gptq_model** out) {
  const gptq_model_params p = read_params(params);
  model::LoadOptions options;
  options.progress = p.progress ? [](void* user, uint32_t permille) {
    const auto& params = *static_cast<const gptq_model_params*>(user);
    return params.progress(params.progress_user, GPTQ_PHASE_LOAD, permille) != 0;
  } : model::Progress(nullptr);
  options.progress_user = const_cast<gptq_model_params*>(&p);
  const OpenedSource opened(source);
  *out = create<gptq_model>(rt->memory, *rt, *opened, options, requests_of(*rt, p));
  retain(rt);
  if ((*out)->gpus.any() && !(*out)->on_gpu()) rt->log(GPTQ_LOG_WARN, "no layer fits a GPU's free memory: the model is on the CPU");
  return GPTQ_OK;
}

// What the tokenizer's tables take: they are made to see.
uint64_t tokenizer_bytes(const format::Reader& reader, uint32_t n_vocab, base::HostMemory& memory) {
  const format::fb::Part* part = reader.manifest().tokenizer();
  if (!part) return 0;
  const base::Buffer section(&memory, base::to_size(part->bytes()));
  reader.read_part(*part, section.bytes(), &memory);
  const uint64_t before = memory.bytes();
  const text::Tokenizer tokenizer(section.bytes(), n_vocab, &memory);
  return memory.bytes() - before;
}

uint64_t largest(const std::pmr::vector<uint64_t>& bytes) { return *std::max_element(bytes.begin(), bytes.end()); }

void estimate_engine(const format::Reader& reader, const model::ModelSpec& spec, const engine::EngineShape& shape, const gptq_model_gpus& gpus,
                     std::span<uint64_t> on_gpus, base::HostMemory& memory, gptq_memory_estimate& estimate) {
  engine::WeightShape weights;
  for (const model::Slot& slot : model::weight_slots(spec, &memory))
    if (const auto* tensor = slot.is_vector ? nullptr : reader.find(slot.name))
      weights.add(slot.id, tensor->k_padded(), static_cast<kernels::Kind>(tensor->kind()));
  estimate.host_kv = engine::host_kv_bytes(shape, spec);
  estimate.host_scratch = sizeof(gptq_engine) + engine::Engine::scratch_bytes(spec, shape, weights);
  for (const model::Placement& p : shape.placements) {
    if (p.on_host()) continue;
    const uint64_t kv = base::mul(engine::gpu_layout(shape, spec, p).page_bytes(), shape.n_pages);
    const uint64_t scratch = engine::GpuStage::scratch_bytes(shape, spec, weights, p, gpus[p.memory].gpu);
    estimate.device_kv = base::add(estimate.device_kv, kv);
    estimate.device_scratch = base::add(estimate.device_scratch, scratch);
    on_gpus[p.memory] = base::add(on_gpus[p.memory], base::add(kv, scratch));
  }
}

}  // namespace

gptq_model_gpus::gptq_model_gpus(std::span<const gptq_device_request> requests, std::pmr::memory_resource* memory)
    : list_(memory), gpus_(memory), shares_(memory) {
  for (const gptq_device_request& request : requests) {
    if (!request.table) {
      shares_.push_back({model::host_memory, request.layers});
      continue;
    }
    const gptq_model_gpu& own = list_.emplace_back(request);
    shares_.push_back(own.share(static_cast<uint32_t>(gpus_.size())));
    gpus_.push_back(&own.gpu);
  }
}

uint64_t gptq_model_gpus::least_memory() const {
  uint64_t least = UINT64_MAX;
  for (const gptq_model_gpu& gpu : list_) least = std::min(least, gpu.request.memory);
  return least;
}

gptq_status GPTQ_CALL gptq_model_load_from(gptq_runtime* rt, const gptq_source* src, const gptq_model_params* params, gptq_model** out,
                                           gptq_error* err) {
  return guard(err, [&] {
    require(rt && src && out, "rt, src and out must not be NULL");
    return load(rt, read_struct(src, "gptq_source"), params, out);
  });
}

gptq_status GPTQ_CALL gptq_model_load(gptq_runtime* rt, const char* path, size_t path_size, const gptq_model_params* params,
                                      gptq_model** out, gptq_error* err) {
  return guard(err, [&] {
    require(rt && path && out, "rt, path and out must not be NULL");
    gptq_source source{};
    source.path = path;
    source.path_size = path_size;
    return load(rt, source, params, out);
  });
}

gptq_status GPTQ_CALL gptq_model_estimate(gptq_runtime* rt, const gptq_source* src, const gptq_model_params* params, const gptq_engine_params* engine,
                                          gptq_memory_estimate* out, gptq_error* err) {
  return guard(err, [&] {
    require(rt && src && out, "rt, src and out must not be NULL");
    check_version(out, "gptq_memory_estimate");
    // A memory of its own, so that its bytes say what something takes.
    base::HostMemory memory(rt->desc.alloc, rt->desc.free, rt->desc.alloc_user, rt->memory.limit());
    const OpenedSource opened(read_struct(src, "gptq_source"));
    const format::Reader reader(*opened, &memory);
    const uint64_t manifest_bytes = memory.bytes();
    const model::ModelSpec spec = model::check_spec(reader.manifest(), &memory);
    const gptq_model_gpus gpus(requests_of(*rt, read_params(params)), &rt->memory);
    const model::WeightBytes weights = gpus.any() ? model::weight_bytes(reader, spec, &memory) : model::WeightBytes(&memory);
    const auto placements = split(spec, weights, gpus.shares(), &memory);
    std::pmr::vector<uint64_t> on_gpus(gpus.gpus().size(), 0, &memory);
    gptq_memory_estimate estimate{};
    for (const model::Placement& p : placements) {
      if (p.on_host()) continue;
      on_gpus[p.memory] = model::placed_bytes(spec, weights, p);
      estimate.device_layers += p.n_layers();
      estimate.device_weights = base::add(estimate.device_weights, on_gpus[p.memory]);
    }
    estimate.host_weights =
        sizeof(gptq_model) + base::add(model::loaded_bytes(reader, spec, placements, &memory), tokenizer_bytes(reader, spec.n_vocab, memory));
    estimate.host_load_peak = base::add(estimate.host_weights, manifest_bytes + model::loading_bytes(reader.manifest(), rt->pool.threads()));
    // What goes to a device is on the host for a moment, a layer or the head at a time.
    if (gpus.any()) estimate.host_load_peak = base::add(estimate.host_load_peak, std::max(weights.embed + weights.head, largest(weights.layers)));
    if (engine) {
      const gptq_engine_params p = read_struct(engine, "gptq_engine_params");
      estimate_engine(reader, spec, engine::make_shape(p, spec, placements, gpus.least_memory()), gpus, on_gpus, memory, estimate);
    }
    const uint64_t total = base::add(estimate.host_weights, base::add(estimate.host_kv, estimate.host_scratch));
    const uint64_t wanted = base::add(rt->memory.bytes(), std::max(total, estimate.host_load_peak));
    estimate.fits = !rt->memory.limit() || wanted <= rt->memory.limit();
    for (uint32_t i = 0; i < on_gpus.size(); ++i) estimate.fits &= on_gpus[i] <= gpus[i].share(i).bytes_max;
    write_struct(out, estimate);
    return GPTQ_OK;
  });
}

gptq_model* GPTQ_CALL gptq_model_retain(gptq_model* m) { return m ? retain(m) : nullptr; }

void GPTQ_CALL gptq_model_release(gptq_model* m) {
  if (!m || !drop(m)) return;
  gptq_runtime* rt = &m->runtime;
  destroy(rt->memory, m);
  gptq_runtime_release(rt);
}

gptq_status GPTQ_CALL gptq_model_info_get(const gptq_model* m, gptq_model_info* out) {
  return guard_logged(m, [&] {
    require(m && out, "m and out must not be NULL");
    check_version(out, "gptq_model_info");
    const model::ModelSpec& spec = m->model->spec;
    gptq_model_info info{};
    info.n_vocab = spec.n_vocab;
    info.n_layers = spec.n_layers;
    info.n_embd = spec.n_embd;
    info.n_ctx_train = spec.n_ctx_train;
    info.n_heads = spec.n_heads;
    info.n_kv_heads = spec.n_kv_heads;
    info.head_dim = spec.head_dim;
    info.bits = m->model->bits;
    info.group_size = m->model->group_size;
    info.bos = m->model->generation.bos;
    info.eos = m->model->generation.eos;
    info.pad = m->model->generation.pad;
    info.n_params = m->model->n_params;
    info.host_bytes = m->model->weight_bytes + m->model->tokenizer.size();
    info.kv_bytes_per_token = engine::KvLayout(spec, 0, spec.n_layers, kv_sample, kernels::alike(kernels::KvKind::f16)).page_bytes() / kv_sample;
    info.fingerprint = m->model->fingerprint;
    info.pooling = own_pooling(*m->model);
    info.pooling_flags = own_pooling_flags(*m->model);
    for (const model::Placement& p : m->model->placements) {
      info.device_bytes += p.on_host() ? 0 : m->placer->bytes(p.memory);
      info.device_layers += p.on_host() ? 0 : p.n_layers();
    }
    info.device_kind = m->model->placements.back().on_host() ? GPTQ_DEVICE_CPU : GPTQ_DEVICE_CUDA;
    write_struct(out, info);
    return GPTQ_OK;
  });
}

gptq_status GPTQ_CALL gptq_model_placement(const gptq_model* m, uint32_t index, gptq_placement* out) {
  return guard_logged(m, [&] {
    require(m && out, "m and out must not be NULL");
    check_version(out, "gptq_placement");
    if (index >= m->model->placements.size()) return gptq_status(GPTQ_E_NOT_FOUND);
    const model::Placement& p = m->model->placements[index];
    gptq_placement placement{};
    placement.kind = GPTQ_DEVICE_CPU;
    placement.first_layer = p.first_layer;
    placement.n_layers = p.n_layers();
    placement.bytes = m->model->weight_bytes;
    if (!p.on_host()) {
      const gptq_device_request& request = m->gpus[p.memory].request;
      placement.kind = static_cast<int32_t>(request.table->kind);
      placement.ordinal = static_cast<int32_t>(request.ordinal);
      placement.bytes = m->placer->bytes(p.memory);
    }
    write_struct(out, placement);
    return gptq_status(GPTQ_OK);
  });
}

gptq_status GPTQ_CALL gptq_model_meta(const gptq_model* m, const char* key, size_t key_size, char* buf, size_t cap, size_t* needed) {
  return guard_logged(m, [&] {
    require(m && key, "m and key must not be NULL");
    const std::pmr::string* value = m->model->find_meta(text_of(key, key_size, "key"));
    return value ? copy_out(value->c_str(), value->size() + 1, buf, cap, needed) : GPTQ_E_NOT_FOUND;
  });
}
