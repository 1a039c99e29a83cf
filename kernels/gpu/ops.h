// SPDX-License-Identifier: Apache-2.0
// What a GPU's backend computes: one argument struct per operation. Every pointer is to the device's memory unless it says otherwise.
// An operation puts its kernels into the stream and returns; nothing here allocates, waits or throws.
#pragma once
#include "kernels/kernels.h"

namespace gptq::gpu {

class Stream;  // the backend's: where kernels are put

// Memory for what passes between the kernels of one operation, from a multiple of 256 bytes on; what is in it does not outlive the operation.
struct Workspace {
  uint8_t* data;
  uint64_t bytes;
  uint32_t* counters = nullptr;  // by which a kernel's blocks find the last of them: zeros before and after every operation
};

// What products read: x, or its RMS norm, or silu(x) * up; columns in the inputs' order, whatever a matrix's perm says.
struct Input {
  const float* x;         // [rows][k]
  const float* norm;      // [k] or NULL: x / sqrt(mean(x^2) + eps) * norm
  const float* up;        // [rows][k] or NULL: silu(x) * up
  float eps;
};

// y [rows][w.n] (+)= W input + bias
struct Product {
  kernels::Matrix w;
  const float* bias;      // [w.n] or NULL
  float* y;
};

constexpr uint32_t products_max = 4;

// Which kernels multiply many rows: by a fixed rule (matmul.h), or, to compare them, always ours or always a library's where it can be used.
enum class Way : uint8_t { by_rule, own, library };

// Products of one input. Their matrices may differ in kind, group and perm.
struct MatmulArgs {
  Product products[products_max];
  uint32_t n_products, rows;
  Input input;
  bool accumulate;        // add to y
  bool exact;             // activations as pairs of float16 (22 bits) for any number of rows; without it for up to 8
  Way way;
  Workspace workspace;    // of matmul_workspace() bytes at least
};

// The rows of a batch and the sequences they belong to, written once a batch.
struct Row {
  uint32_t position;
  uint32_t first_page;    // of its sequence in pages
};
// Attention works on (query, head) pairs of one KV head, 16 at a time: pair p of a sequence is its row p / group, head p % group of the
// group = n_heads / n_kv_heads heads that share the KV head.
constexpr uint32_t tile_pairs = 16;
struct Tile {
  uint32_t first_row, n_rows;  // of its sequence
  uint32_t first_pair;         // of it in the sequence; pairs from n_rows * group on are none
};
struct Batch {
  const int32_t* tokens;  // [rows]
  const Row* rows;        // [rows]
  const float* cos;       // [rows][dim/2]
  const float* sin;
  const Tile* tiles;      // [n_tiles]
  const uint32_t* pages;  // page numbers, a run for every sequence
  uint32_t n_rows, n_tiles;
  uint32_t n_positions;   // no row's position is as large
};

// The KV cache. Page p of a layer begins at base + p * page_stride + layer * layer_stride; in it lie
//   keys   [n_kv_heads][page_tokens][kv_dims(head_dim)]
//   values [n_kv_heads][page_tokens/16][kv_dims(head_dim)][16]: 16 positions of a dimension side by side; from value_offset bytes on
// as float16, or as int8: bytes x / scale + 128, of every four the second and the third in each other's place, so that masks make pairs of
// them; behind the keys their scales, max|x| / 127 of a row, and behind the values the scales' binary logarithms: float32 [n_kv_heads][page_tokens].
// Elements past head_dim are zero; whatever a position never stored is finite (the arena is cleared once).
struct KvCache {
  uint8_t* base;
  uint64_t page_stride, layer_stride, value_offset;
  uint32_t page_tokens, n_kv_heads, head_dim;
  bool int8;
};
constexpr uint32_t kv_dims(uint32_t head_dim) { return (head_dim + 31) / 32 * 32; }
constexpr uint64_t kv_elements(const KvCache& kv) { return uint64_t{kv.n_kv_heads} * kv.page_tokens * kv_dims(kv.head_dim); }  // of a page's keys
constexpr uint64_t kv_half_bytes(const KvCache& kv) {
  return kv_elements(kv) * (kv.int8 ? 1 : 2) + (kv.int8 ? uint64_t{kv.n_kv_heads} * kv.page_tokens * 4 : 0);
}
// Where the i-th of several bytes lies: of four the second and the third change places.
constexpr uint32_t kv_byte_place(uint32_t i) { return (i & ~3u) | (i & 1) << 1 | (i >> 1 & 1); }
constexpr uint32_t head_dim_max = 256;

struct EmbedArgs {        // x [rows][table.k] = the tokens' rows
  kernels::Matrix table;
  Batch batch;
  float* x;
};

struct AppendKvArgs {     // rotates q and k in place, after RMS norm of every head where norms are given, and stores k and v
  Batch batch;
  KvCache kv;
  float* q;               // [rows][n_heads][head_dim]
  float* k;               // [rows][n_kv_heads][head_dim]
  const float* v;
  const float* q_norm;    // [head_dim] or NULL
  const float* k_norm;
  float eps;
  uint32_t n_heads, rope_dim, layer;
  // What only some models have.
  const float *q_bias = nullptr, *k_bias = nullptr;  // [head_dim] or NULL, behind the norm's weights
  bool unit = false;         // a norm without weights
  bool centered = false;     // layer norm
  bool each_head = false;    // weights and biases are [heads][head_dim]
  bool norm_last = false;    // after the rotation
  float clip = 0;            // q, k and v within -clip .. clip, before the rotation; 0 = as they are
  float query_floor = 1, query_factor = 0, query_offset = 0;  // q *= 1 + factor * ln(1 + floor((position + offset) / floor))
};

struct AttentionArgs {    // softmax(q K^T * scale) V, over positions up to the row's own
  Batch batch;
  KvCache kv;
  const float* q;         // [rows][n_heads][head_dim]
  float* out;             // the same
  uint32_t n_heads, layer;
  uint32_t window;        // positions seen, the row's own included; 0 = all
  float scale;
  Workspace workspace;    // of attention_workspace() bytes at least, attention_counters() counters
  // What only some models have.
  uint32_t chunk = 0;                   // positions of the row's own chunk of so many alone; 0 = all
  float softcap = 0;                    // scores become softcap * tanh(score / softcap); 0 = as they are
  const float* alibi_slopes = nullptr;  // [n_heads] or NULL: scores less slope * distance
  const float* sinks = nullptr;         // [n_heads] or NULL: a score that takes weight from the others and has no value
};

struct AppendAttentionArgs {  // both, where every sequence has one row; q and k stay as they are
  AppendKvArgs append;
  AttentionArgs attention;      // its q is append's
};

struct NormArgs {         // y = (x - mean) / sqrt(variance + eps) * weight + bias, or with the mean taken as 0; y may be x
  const float* x;         // [rows][n]
  const float* weight;    // [n] or NULL: 1
  const float* bias;      // [n] or NULL: 0
  float* y;
  uint32_t rows, n;
  float eps;
  bool centered;
};

struct ActivateArgs {     // out = act(gate) * up, or act(up) without a gate
  kernels::Activation act;
  const float* gate;      // [count] or NULL
  const float* up;
  float* out;
  uint64_t count;
  const float* xielu;     // alpha_p, alpha_n, beta, eps
};

struct ElementwiseArgs {  // out may be x
  kernels::Elementwise kind;
  const float* x;         // [count]
  const float* y;
  float* out;
  uint64_t count;
  float factor;
};

struct AddPositionsArgs { // x += the rows of the table that the positions name, `offset` further
  kernels::Matrix table;
  Batch batch;
  uint32_t offset;
  float* x;               // [rows][table.k]
};

struct SelectRowsArgs {   // out [count][n] = rows of x
  const float* x;         // [rows][n]
  const uint32_t* rows;   // [count]
  float* out;
  uint32_t count, n;
};

struct BestTokenArgs {    // greedy sampling: the first of the largest logits; -1 where one is not finite
  const float* logits;    // [rows][n]
  int32_t* token;         // [rows]
  uint32_t rows, n;
  Workspace workspace;    // of sampling_workspace() bytes at least, a counter a row
};

struct Candidate {
  float logit;
  int32_t token;
};
constexpr uint32_t candidates_max = 256;
struct CandidatesArgs {   // what the sampler needs with top_k: the largest logits, of equal ones the lower token first
  const float* logits;    // [rows][n]
  Candidate* best;        // [rows][count]; where a logit is not finite the first token is -1
  uint32_t rows, n, count;  // count <= n, candidates_max
  Workspace workspace;    // of sampling_workspace() bytes at least, a counter a row
};

#define GPTQ_GPU_OPS(X) \
  X(embed, EmbedArgs) X(matmul, MatmulArgs) X(append_kv, AppendKvArgs) X(attention, AttentionArgs) X(append_attention, AppendAttentionArgs) \
  X(select_rows, SelectRowsArgs) \
  X(best_token, BestTokenArgs) X(candidates, CandidatesArgs) X(norm, NormArgs) X(activate, ActivateArgs) X(elementwise, ElementwiseArgs) \
  X(add_positions, AddPositionsArgs)

struct Shape {            // the largest a model and an engine bring
  uint32_t rows, k, n;    // of any matrix; n: outputs of the products of one input together
  uint32_t n_heads, n_kv_heads, head_dim, positions;
  bool exact;
  bool dense;             // some of the layers' weights are not quantized
  Way way;
};
constexpr uint64_t attention_counters(uint32_t n_tiles, uint32_t n_kv_heads) { return uint64_t{n_tiles} * n_kv_heads; }
constexpr uint32_t sampling_parts_max = 16;  // blocks that share a row of logits
constexpr uint64_t sampling_workspace(uint32_t rows) { return uint64_t{rows} * sampling_parts_max * (candidates_max + 1) * 8; }

}  // namespace gptq::gpu
