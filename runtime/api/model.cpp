// SPDX-License-Identifier: Apache-2.0
// C API: models.
#include <algorithm>

#include "api/embedding.h"
#include "api/guard.h"
#include "api/handles.h"
#include "api/opened_source.h"
#include "base/checked.h"

using namespace gptq;
using namespace gptq::api;

namespace {

constexpr uint32_t kv_sample = 256;  // tokens

gptq_model_params read_params(const gptq_model_params* params) {
  const gptq_model_params p = read_struct_or_default(params, "gptq_model_params");
  refuse_extensions(p.next);
  require(!p.flags && !p.reserved, "unknown flags in gptq_model_params");
  require(p.device_kind == 0 || p.device_kind == GPTQ_DEVICE_CPU || p.device_kind == GPTQ_DEVICE_CUDA, "unknown device_kind");
  require(p.device_ordinal >= 0, "device_ordinal is negative");
  return p;
}

gptq_gpu_request request_of(gptq_runtime& rt, const gptq_model_params& p) {
  gptq_gpu_request request;
  if (p.device_kind != GPTQ_DEVICE_CUDA || p.device_layers == UINT32_MAX) return request;
  request.table = &rt.cuda_table();
  request.ordinal = static_cast<uint32_t>(p.device_ordinal);
  request.layers = p.device_layers;
  request.limit = p.device_bytes_max;
  const uint64_t memory = device::describe_gpu(*request.table, request.ordinal).bytes_total;
  request.memory = p.device_bytes_max ? std::min(p.device_bytes_max, memory) : memory;
  return request;
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
  *out = create<gptq_model>(rt->memory, *rt, *opened, options, request_of(*rt, p));
  retain(rt);
  if (p.device_kind == GPTQ_DEVICE_CUDA && p.device_layers != UINT32_MAX && !(*out)->on_gpu())
    rt->log(GPTQ_LOG_WARN, "no layer fits the GPU's free memory: the model is on the CPU");
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

void estimate_engine(const format::Reader& reader, const model::ModelSpec& spec, const gptq_engine_params& params,
                     const device::Gpu* gpu, uint64_t gpu_memory, uint32_t first_device_layer, base::HostMemory& memory, gptq_memory_estimate& estimate) {
  const engine::EngineShape shape = engine::make_shape(params, spec, first_device_layer, gpu_memory);
  engine::WeightShape weights;
  for (const model::Slot& slot : model::weight_slots(spec, &memory))
    if (const auto* tensor = slot.is_vector ? nullptr : reader.find(slot.name))
      weights.add(slot.id, tensor->k_padded(), static_cast<kernels::Kind>(tensor->kind()));
  estimate.host_kv = engine::host_kv_bytes(shape, spec);
  estimate.host_scratch = sizeof(gptq_engine) + engine::Engine::scratch_bytes(spec, shape, weights);
  if (first_device_layer == spec.n_layers) return;
  estimate.device_kv = base::mul(engine::gpu_layout(shape, spec).page_bytes(), shape.n_pages);
  estimate.device_scratch = engine::GpuPart::scratch_bytes(shape, spec, weights, *gpu);
}

}  // namespace

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
    const model::ModelSpec spec = model::check_spec(*reader.manifest().spec(), &memory);
    const gptq_gpu_request gpu = request_of(*rt, read_params(params));
    const model::WeightBytes weights = gpu.table ? model::weight_bytes(reader, spec, &memory) : model::WeightBytes(&memory);
    device::Account account;
    std::optional<device::Gpu> device;
    if (gpu.table) device.emplace(*gpu.table, gpu.ordinal, account);
    const uint64_t bytes_max = device ? gpu.bytes_max(*device) : 0;
    const uint32_t first = device ? first_device_layer(spec, weights, gpu.layers, bytes_max) : spec.n_layers;
    gptq_memory_estimate estimate{};
    estimate.device_layers = spec.n_layers - first;
    estimate.device_weights = model::device_bytes(spec, weights, first);
    estimate.host_weights =
        sizeof(gptq_model) + base::add(model::loaded_bytes(reader, spec, first, &memory), tokenizer_bytes(reader, spec.n_vocab, memory));
    estimate.host_load_peak = base::add(estimate.host_weights, manifest_bytes + model::loading_bytes(reader.manifest(), rt->pool.threads()));
    // What goes to the device is on the host for a moment, a layer or the head at a time.
    if (gpu.table) estimate.host_load_peak = base::add(estimate.host_load_peak, std::max(weights.embed + weights.head, largest(weights.layers)));
    if (engine) estimate_engine(reader, spec, read_struct(engine, "gptq_engine_params"), device ? &*device : nullptr, gpu.memory, first, memory, estimate);
    const uint64_t total = base::add(estimate.host_weights, base::add(estimate.host_kv, estimate.host_scratch));
    const uint64_t wanted = base::add(rt->memory.bytes(), std::max(total, estimate.host_load_peak));
    const uint64_t on_device = base::add(estimate.device_weights, base::add(estimate.device_kv, estimate.device_scratch));
    estimate.fits = (!rt->memory.limit() || wanted <= rt->memory.limit()) && (!gpu.table || on_device <= bytes_max);
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
    info.kv_bytes_per_token = engine::KvLayout(spec, 0, spec.n_layers, kv_sample, kernels::KvKind::f16).page_bytes() / kv_sample;
    info.fingerprint = m->model->fingerprint;
    info.pooling = own_pooling(*m->model);
    info.pooling_flags = own_pooling_flags(*m->model);
    info.device_bytes = m->weights_on_gpu();
    info.device_layers = spec.n_layers - m->model->first_device_layer;
    info.device_kind = m->on_gpu() ? GPTQ_DEVICE_CUDA : GPTQ_DEVICE_CPU;
    write_struct(out, info);
    return GPTQ_OK;
  });
}

gptq_status GPTQ_CALL gptq_model_meta(const gptq_model* m, const char* key, size_t key_size, char* buf, size_t cap, size_t* needed) {
  return guard_logged(m, [&] {
    require(m && key, "m and key must not be NULL");
    const std::pmr::string* value = m->model->find_meta(text_of(key, key_size, "key"));
    return value ? copy_out(value->c_str(), value->size() + 1, buf, cap, needed) : GPTQ_E_NOT_FOUND;
  });
}
