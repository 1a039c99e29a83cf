// SPDX-License-Identifier: Apache-2.0
// The backend's table over the emulator, as a shared object: a whole model runs through the CUDA kernels on the CPU. It shows as many GPUs as it is
// told to, of a gibibyte each if nothing else is said, and fails on demand. While one works the others' memory cannot be touched. Work is done at once, or
// on demand as late as it may.
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <utility>
#include <vector>

#include "kernels/cuda/stream.h"
#include "kernels/cuda/table.h"
#include "tests/cuda/emulated_backend.h"
#include "tests/cuda/fake_cublaslt.h"

struct gptq::gpu::Graph {
  std::vector<std::function<void()>> work;
};

namespace gptq::cuda {
namespace {

constexpr uint64_t page = 4096;
constexpr uintptr_t primary = 1;  // the context that there is if nothing else says so

// Ends where a page that cannot be touched begins.
struct Block {
  uint8_t* pages;
  uint64_t bytes, n_bytes_mapped;
};

struct Gpu {
  std::map<uint8_t*, Block> blocks;
  uint64_t used = 0;
  bool open = true;  // its memory can be touched
};
Gpu gpus[emulated_gpus_max];
EmulatedFault fault{};
EmulatedState counts{};

struct Emulated : Stream {
  uint32_t ordinal = 0;
  Graph* recording = nullptr;
  uintptr_t context = primary;
  uint32_t polls_left = 0;   // looks until work is done
  Gemm library;
  // What it was given, by number: the last, the last that was waited for, and of other streams those that its work comes after.
  uint64_t given = 0, finished = 0, marks[marks_max] = {};
  std::map<const Stream*, uint64_t> after;
  const char* error = nullptr;
  // What it was given and has not done: work, or to wait until the other has done so much.
  struct Late {
    std::function<void()> work;
    Emulated* other;
    uint64_t number;
  };
  std::deque<Late> queue;
  uint64_t done() const { return given - queue.size(); }
};
std::vector<Emulated*> streams;

Emulated& emulated(Stream* stream) { return *static_cast<Emulated*>(stream); }

// Who wrote to memory of the host last.
struct Written {
  Emulated* by;
  uint64_t number;
};
std::map<const void*, Written> written;

uint64_t total_of(uint32_t ordinal) { return fault.bytes[ordinal] ? fault.bytes[ordinal] : 1u << 30; }
uint64_t free_of(uint32_t ordinal) { return total_of(ordinal) - std::min(total_of(ordinal), gpus[ordinal].used); }

// Only these GPUs' memory can be touched from now on.
void reach(uint32_t one, uint32_t other) {
  for (uint32_t i = 0; i < emulated_gpus_max; ++i) {
    const bool open = i == one || i == other;
    if (gpus[i].open == open) continue;
    gpus[i].open = open;
    for (const auto& [data, block] : gpus[i].blocks) mprotect(block.pages, block.n_bytes_mapped - page, open ? PROT_READ | PROT_WRITE : PROT_NONE);
  }
}

void work_until(Emulated& s, uint64_t number) {
  while (s.done() < number && !s.queue.empty()) {
    const Emulated::Late next = std::move(s.queue.front());
    if (next.other && std::count(streams.begin(), streams.end(), next.other)) work_until(*next.other, next.number);
    s.queue.pop_front();
    if (!next.work) continue;
    reach(s.ordinal, s.ordinal);
    next.work();
  }
}
bool is_late(const Emulated& s) { return fault.late >> s.ordinal & 1 || !s.queue.empty(); }

// Does it, or keeps it.
void put(Stream* stream, const std::function<void()>& work) {
  Emulated& s = emulated(stream);
  if (stream->record) return stream->record(work);
  ++s.given;
  for (const Emulated* other : streams) counts.overlaps += other->ordinal > s.ordinal && !other->queue.empty();
  if (is_late(s)) return s.queue.push_back({work, nullptr, 0});
  reach(s.ordinal, s.ordinal);
  work();
}

void need(Emulated& s, const Emulated& other, uint64_t number) {
  const auto at = s.after.find(&other);
  if (!is_late(s) && &s != &other && other.finished < number && (at == s.after.end() || at->second < number)) s.error = "read before it was sure to be written";
}

Result fail(Result result, const char* text, Failure* failure) {
  failure->code = 700;
  strcpy(failure->text, text);
  return result;
}

// For the tools, which cannot tell it.
uint32_t gpus_if_nothing_is_said() {
  const char* n = std::getenv("GPTQ_EMULATED_GPUS");
  return n ? std::clamp(static_cast<uint32_t>(std::atoi(n)), 1u, emulated_gpus_max) : 1;
}

Result describe(uint32_t ordinal, Processor* out, Failure* failure) {
  const uint32_t n = fault.gpus ? fault.gpus : gpus_if_nothing_is_said();
  if (ordinal >= n) return fail(Result::no_device, n == 1 ? "there is 1 CUDA device" : "there are several CUDA devices, but not so many", failure);
  memset(out, 0, sizeof *out);
  strcpy(out->name, "emulated");
  out->uuid[0] = static_cast<uint8_t>(0xE0 + ordinal);
  out->bytes_total = total_of(ordinal);
  out->bytes_free = free_of(ordinal);
  out->capability = 80;
  out->n_processors = 3;
  return Result::ok;
}

Result open(uint32_t ordinal, void* host_stream, const Stream* beside, int32_t, Stream** out, Failure* failure) {
  Processor processor;
  if (const Result r = describe(ordinal, &processor, failure); r != Result::ok) return r;
  const uintptr_t wanted = beside ? static_cast<const Emulated*>(beside)->context : fault.context ? fault.context : primary;
  const uintptr_t context = host_stream ? static_cast<const EmulatedHostStream*>(host_stream)->context : wanted;
  if (beside && context != wanted) return fail(Result::failed, "the host's stream is of another context than the model", failure);
  auto* stream = new Emulated;
  stream->ordinal = ordinal;
  stream->context = context;
  stream->n_processors = processor.n_processors;
  stream->capability = processor.capability;
  counts.host_stream = host_stream;
  ++counts.streams;
  streams.push_back(stream);
  *out = stream;
  return Result::ok;
}
void close(Stream* stream) {
  --counts.streams;
  std::erase(streams, stream);
  std::erase_if(written, [&](const auto& w) { return w.second.by == stream; });
  delete static_cast<Emulated*>(stream);
}
Result bytes_free(Stream* stream, uint64_t* out, Failure*) {
  *out = free_of(emulated(stream).ordinal);
  return Result::ok;
}
uint32_t n_processors(const Stream* stream) { return stream->n_processors; }

Result allocate(Stream* stream, uint64_t bytes, uint8_t** out, Failure* failure) {
  const uint32_t ordinal = emulated(stream).ordinal;
  if (bytes > free_of(ordinal)) return fail(Result::out_of_memory, "out of memory", failure);
  const uint64_t used = (bytes + 255) / 256 * 256, mapped = (used + page - 1) / page * page + page;
  void* pages = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) return fail(Result::out_of_memory, "out of memory", failure);
  reach(ordinal, ordinal);
  auto* first = static_cast<uint8_t*>(pages);
  mprotect(first + mapped - page, page, PROT_NONE);
  memset(first, 0xFF, mapped - page);  // what nobody wrote is NaN
  *out = first + mapped - page - used;
  gpus[ordinal].blocks[*out] = {first, bytes, mapped};
  gpus[ordinal].used += bytes;
  counts.bytes += bytes;
  counts.bytes_of[ordinal] += bytes;
  return Result::ok;
}
void release(Stream* stream, uint8_t* data) {
  const uint32_t ordinal = emulated(stream).ordinal;
  const Block block = gpus[ordinal].blocks.at(data);
  gpus[ordinal].blocks.erase(data);
  gpus[ordinal].used -= block.bytes;
  counts.bytes -= block.bytes;
  counts.bytes_of[ordinal] -= block.bytes;
  munmap(block.pages, block.n_bytes_mapped);
}
Result allocate_host(Stream*, uint64_t bytes, uint8_t** out, Failure* failure) {
  *out = static_cast<uint8_t*>(std::aligned_alloc(256, (bytes + 255) / 256 * 256));
  return *out ? Result::ok : fail(Result::out_of_memory, "out of memory", failure);
}
void release_host(Stream*, uint8_t* data) { std::free(data); }

void copy(Stream* stream, void* to, const void* from, uint64_t bytes) {
  put(stream, [=] {
    emulated(stream).polls_left = fault.polls;
    memcpy(to, from, bytes);
  });
}
void copy_in(Stream* stream, void* to, const void* host, uint64_t bytes) {
  if (const auto at = written.find(host); at != written.end()) need(emulated(stream), *at->second.by, at->second.number);
  copy(stream, to, host, bytes);
}
void copy_out(Stream* stream, void* host, const void* from, uint64_t bytes) {
  copy(stream, host, from, bytes);
  if (!stream->record) written[host] = {&emulated(stream), emulated(stream).given};
}
void clear(Stream* stream, void* data, uint64_t bytes) {
  put(stream, [=] { memset(data, 0, bytes); });
}

bool reaches(Stream*, const Stream*) { return !fault.no_peers; }
void wait_for(Stream* stream, Stream* other) {
  Emulated &s = emulated(stream), &o = emulated(other);
  s.after[other] = o.given;
  if (!is_late(s)) return work_until(o, o.given);
  s.queue.push_back({nullptr, &o, o.given});
  ++s.given;
}
void copy_across(Stream* stream, void* to, Stream* other, const void* from, uint64_t bytes) {
  Emulated &s = emulated(stream), &o = emulated(other);
  need(s, o, o.given);
  ++counts.copies_across;
  put(stream, [=, &s, &o] {
    reach(s.ordinal, o.ordinal);
    s.polls_left = fault.polls;
    memcpy(to, from, bytes);
  });
}

Result finish(Stream* stream, uint32_t wait_us, Failure* failure) {
  Emulated& s = emulated(stream);
  if (fault.lost || fault.lost_gpus >> s.ordinal & 1) return fail(Result::lost, "an illegal memory access was encountered", failure);
  work_until(s, wait_us == UINT32_MAX ? s.given : std::min(s.given, s.done() + 1));
  if (!s.queue.empty()) return Result::busy;
  if (wait_us != UINT32_MAX && s.polls_left) {
    --s.polls_left;
    return Result::busy;
  }
  s.polls_left = 0;
  s.finished = s.given;
  if (const char* error = std::exchange(s.error, nullptr)) return fail(Result::failed, error, failure);
  return s.library.take_status() ? fail(Result::failed, "cuBLASLt failed", failure) : Result::ok;
}

void mark(Stream* stream, uint32_t number) { emulated(stream).marks[number] = emulated(stream).given; }
Result wait_for_mark(Stream* stream, uint32_t number, Failure* failure) {
  Emulated& s = emulated(stream);
  if (fault.lost || fault.lost_gpus >> s.ordinal & 1) return fail(Result::lost, "an illegal memory access was encountered", failure);
  work_until(s, s.marks[number]);
  return Result::ok;
}

Result record_begin(Stream* stream, Failure* failure) {
  if (fault.no_recording) return fail(Result::failed, "operation not permitted when stream is capturing", failure);
  auto* graph = new Graph;
  emulated(stream).recording = graph;
  stream->record = [graph](std::function<void()> work) { graph->work.push_back(std::move(work)); };
  return Result::ok;
}
Result record_end(Stream* stream, Graph** out, Failure*) {
  stream->record = nullptr;
  *out = emulated(stream).recording;
  return Result::ok;
}
void replay(Stream* stream, Graph* graph) {
  ++counts.replays;
  put(stream, [=] {
    for (const auto& work : graph->work) work();
  });
}
void release_graph(Graph* graph) { delete graph; }
double copy_bandwidth(Stream*) { return 1e9; }
uint64_t workspace_of_matmul(const Shape& shape, Stream& stream) {
  auto& s = static_cast<Emulated&>(stream);
  if (!fault.no_library && wants_library(shape, stream) && s.library.open(fake_library(), s.capability)) s.gemm = &s.library;
  return matmul_workspace(shape, stream);
}
// What is done at once is counted.
template <class Args, void (*op)(const Args&, Stream&)>
void operation(const Args& args, Stream& stream) {
  if (stream.record) return op(args, stream);
  ++counts.launches;
  put(&stream, [=, &stream] { op(args, stream); });
}
uint64_t library_version(const Stream& stream) { return stream.gemm ? stream.gemm->version() : 0; }

}  // namespace
}  // namespace gptq::cuda

extern "C" __attribute__((visibility("default"))) const gptq::gpu::Backend* gptq_gpu_backend() {
  using namespace gptq::cuda;
  static const Backend table = GPTQ_CUDA_TABLE;
  return &table;
}

extern "C" __attribute__((visibility("default"))) void gptq_emulated_fault(const EmulatedFault* fault) {
  gptq::cuda::fault = *fault;
  gptq::cuda::fake_cublaslt.status = fault->library_status;
}
extern "C" __attribute__((visibility("default"))) void gptq_emulated_state(EmulatedState* state) {
  *state = gptq::cuda::counts;
  state->library_products = gptq::cuda::fake_cublaslt.products;
}
