// SPDX-License-Identifier: Apache-2.0
// Every kernel operation: one argument struct and one slot each. Below this line nothing allocates, locks, logs or throws.
//
// Numbers are the same whatever m, the range of blocks or the number of threads: each output is summed in one fixed order that does
// not depend on them. Levels (reference, AVX2, AVX-512 VNNI, NEON) may differ from each other by rounding.
#pragma once
#include <cstddef>
#include <cstdint>

namespace gptq::kernels {

// How a weight matrix is stored. Values are those of the file format.
enum class Kind : uint8_t { f32 = 0, f16 = 1, bf16 = 2, q2 = 3, q3 = 4, q4 = 5, q8 = 6 };

// W [n][k], used as y = W x. Floating kinds are row-major [n][k]. Quantized kinds are tiles of 16 rows x 64 columns, "n16k64":
//   codes  [n/16 up][k_padded/64][tile_bytes(kind)]
//   scales [n/16 up][groups][16]   float16, or float32 where scales_f32
//   zeros  [n/16 up][groups][16]   uint8; NULL = symmetric, every zero is 2^(bits-1)
//   w[row][column] = scale * (code - zero),  group of a column = column / group
// A 4-bit tile is 8 lines of 64 bytes: byte 16t+4c+i (t,c,i in 0..3) of line g holds column 16c+4t+i, low nibble row g, high nibble
// row g+8. 8 bit: 16 lines, line r holds the bytes of row r in the same column order. 2 bit: 4 lines, (line h >> 2s) & 0x33
// is the 4-bit line h+4s, s in 0..1. 3 bit: the 2-bit tile, then 2 lines of high bits: ((line p >> s) & 0x11) << 2 belongs to 4-bit line 4p+s.
// Columns are the inputs in order, or input perm[column] (-1: padding, the activation is 0). Rows past n and columns past the inputs
// hold code = zero (symmetric: 2^(bits-1)), scale 0 in rows past n.
struct Matrix {
  Kind kind;
  bool scales_f32;
  uint32_t n, k;          // true outputs and inputs
  uint32_t k_padded;      // columns: a multiple of 64; for floating kinds k
  uint32_t group;         // columns of a group: a multiple of 16; the last group may be short
  const void* codes;
  const void* scales;
  const uint8_t* zeros;
  const int32_t* perm;    // [k_padded] or NULL
};

// What an adapter adds to a matrix W: scale * B A. Kinds are floating; the rank, a.n and b.k, is a multiple of 16.
struct LowRank {
  Matrix a, b;          // [rank][k], [n][rank]; codes NULL: W stays as it is
  float scale;
  // The same in 8 bits, for whom the activations of W are int8: B A = sum over r of scale8[r] * b8 column r * a8 row r. A rank of zeros has
  // scale 0.
  uint32_t rank8;       // a multiple of 4
  const int8_t* a8;     // [rank8][k]
  const int8_t* b8;     // [n/16 up][rank8][16]; rows past n are 0
  const float* scale8;  // [rank8], times scale
  const int8_t* next8;  // what is read after this and the others of its input: to be fetched meanwhile
  uint64_t next8_bytes;
};

constexpr bool is_quantized(Kind kind) { return kind >= Kind::q2; }
constexpr uint32_t bits_of(Kind kind) {
  return kind == Kind::q2 ? 2 : kind == Kind::q3 ? 3 : kind == Kind::q4 ? 4 : kind == Kind::q8 ? 8 : kind == Kind::f32 ? 32 : 16;
}
constexpr uint32_t tile_bytes(Kind kind) { return bits_of(kind) * 128; }  // quantized kinds: 16 x 64 codes
constexpr uint32_t n_blocks(uint32_t n) { return (n + 15) / 16; }
constexpr uint32_t n_groups(const Matrix& w) { return (w.k_padded + w.group - 1) / w.group; }
// Place of a column within its 64-byte line.
constexpr uint32_t line_byte(uint32_t column) { return (column % 16) / 4 * 16 + column / 16 * 4 + column % 4; }
// Place of a column within its tile's 64 float32 activations: what comes of a line unpacked byte by byte of its 32-bit lanes.
constexpr uint32_t float_place(uint32_t column) { return column % 4 * 16 + column % 16 / 4 * 4 + column % 64 / 16; }

// Activations as int8: x = scale * multiplier * q with one scale a token and a whole multiplier for every 16 columns. 64 columns of a
// token are a record: q in line order, so that 32-bit lane c of each 16 bytes is of block c, then each block's multiplier, twice.
// The sums take zero points off again, so they are as long as a group allows: 64 or 16 columns in a row.
constexpr uint32_t record_columns = 64;
constexpr int32_t largest_multiplier = 32767;
struct Record {
  int8_t q[record_columns];
  int16_t multiplier[4][2];  // 1..largest_multiplier
};
constexpr uint32_t activation_sum_block(uint32_t group) { return group % 64 ? 16 : 64; }
struct Int8Activations {
  Record* records;    // [k_padded / 64][rows]
  float* scale;       // [rows]: max|x| / (127 * largest_multiplier)
  float* sum;         // [k_padded / sum_block][rows]: the sum of multiplier * q
  uint32_t rows, k_padded, sum_block;
};

struct PackInt8Args {
  const float* x;       // [m][k]
  uint32_t m, k;        // m <= out.rows
  const int32_t* perm;  // [k_padded] or NULL
  Int8Activations out;
};

// y[i][row] (+)= sum over columns of W[row][column] x[i][column] + bias[row], for rows of the 16-row blocks first_block..last_block-1.
struct MatmulArgs {
  const Matrix* w;
  Int8Activations x8;   // matmul_int8: packed for this matrix's k_padded, group and perm; m <= x8.rows
  const float* x;       // matmul_float: [m][k_padded], columns already in the matrix's order (perm applied, padding 0); quantized: by float_place
  const uint16_t* x16;  // matmul_bf16, of quantized kinds alone: [m][k_padded] bfloat16, columns in the matrix's order
  float* y;             // [m][y_stride]
  uint32_t m, y_stride;
  uint32_t first_block, last_block;
  const float* bias;    // [n] or NULL
  bool accumulate;      // add to y
};

struct DequantizeRowArgs {  // out[input] = W[row][input], inputs in true order: embeddings
  const Matrix* w;
  uint32_t row;
  float* out;           // [k]
};

// y[i][r] = factor * scale[r] * sum over k of a[r][k] x[i][k], for r of first_rank .. last_rank - 1, multiples of 4.
struct LoraShrinkArgs {
  const int8_t* a;      // [rank][k]
  const float* scale;   // [rank]
  const float* x;       // [m][k]
  float* y;             // [m][rank]
  uint32_t m, k, rank;
  uint32_t first_rank, last_rank;
  float factor;
};

// y[i][row] += sum over r of x[i][r] b[row][r], for rows of the 16-row blocks first_block .. last_block - 1.
struct LoraExpandArgs {
  const int8_t* b;      // [n/16 up][rank][16]
  const float* x;       // [m][rank]
  float* y;             // [m][n]
  uint32_t m, n, rank;  // rank: a multiple of 4
  uint32_t first_block, last_block;
};

enum class NormKind : uint8_t { rms, layer };
// gelu is the exact one, x / 2 * (1 + erf(x / sqrt(2))); gelu_tanh its approximation by tanh; relu2 is max(x, 0)^2.
// swiglu_clamped, with a gate: g = min(gate, 7), u = up within -7..7, out = (u + 1) * g * sigmoid(1.702 g).
// xielu: positive * x^2 + beta * x where x > 0, else negative * (e^min(x, eps) - 1 - x) + beta * x. Models give alpha_p and alpha_n:
// positive is softplus(alpha_p), negative beta + softplus(alpha_n).
enum class Activation : uint8_t { silu, gelu, gelu_tanh, relu, relu2, swiglu_clamped, xielu };
// What a norm of queries and keys spans: each head with the same weights, each with its own, all heads at once, each without weights.
enum class Span : uint8_t { head, each_head, all, unit };

struct RmsNormArgs {        // y = x / sqrt(mean(x^2) + eps) * weight, row by row; y may be x
  const float* x;       // [rows][n]
  const float* weight;  // [n] or NULL: all 1
  float* y;             // [rows][n]
  uint32_t rows, n;
  float eps;
};

struct LayerNormArgs {      // y = (x - mean) / sqrt(mean((x - mean)^2) + eps) * weight + bias, row by row; y may be x
  const float* x;       // [rows][n]
  const float* weight;  // [n] or NULL: all 1
  const float* bias;    // [n] or NULL: all 0
  float* y;             // [rows][n]
  uint32_t rows, n;
  float eps;
};

struct RopeArgs {           // in place; rotates pairs (j, j + dim/2) of the first dim elements of every head
  float* x;             // [m][x_stride]: n_heads heads of head_dim
  const float* cos;     // [m][dim/2]
  const float* sin;
  uint32_t m, x_stride, n_heads, head_dim, dim;
};

struct XieluParameters {
  float positive, negative, beta, eps;
};

struct ActivateArgs {       // out = act(gate) * up, or act(up) without a gate; out may be gate or up
  Activation act;
  const float* gate;    // [count] or NULL
  const float* up;
  float* out;
  uint64_t count;
  XieluParameters xielu;
};

enum class Elementwise : uint8_t {
  scale,       // x * factor
  clamp,       // x within -factor..factor
  softcap,     // factor * tanh(x / factor)
  gate,        // x * sigmoid(y)
  add_scaled,  // x + factor * y
};

struct ElementwiseArgs {
  Elementwise kind;
  const float* x;       // [count]
  const float* y;       // [count], for the last two kinds
  float* out;           // may be x or y
  uint64_t count;
  float factor;
};

constexpr uint32_t largest_convolution = 8;

// Causal depthwise convolution of the rows of one sequence, in order: out[i][c] = sum over j of weight[c][j] * x[i + j - (kernel - 1)][c],
// then silu of it if asked, then times `after`. Rows before the first are those of the state; what the last rows leave behind there
// is the state afterwards. Each x is multiplied by `before` where it is read.
struct ConvolveArgs {
  const float* x;       // [m, stride apart][n]
  const float* before;  // like x, or NULL
  const float* after;   // like x, or NULL
  const float* weight;  // [n][kernel]
  const float* state;   // [kernel - 1][n], oldest first; NULL: all 0
  float* next_state;    // may be state
  float* out;           // [m, out_stride apart][n]; may be x, with the same stride
  uint32_t m, n, kernel, stride, out_stride;  // kernel: 1..largest_convolution
  uint32_t first_channel, last_channel;       // the range to do
  bool silu;
};

// The gated delta rule over the rows of one sequence, in order. Each value head h has a state S [key_dim][value_dim], zero in the
// beginning, and reads key head h / (n_value_heads / n_key_heads). For every row:
//   decay = exp(-rate[h] * softplus(a[h] + dt_bias[h])), beta = sigmoid(b[h])
//   q, k = q / sqrt(sum(q^2) + 1e-6) / sqrt(key_dim), k / sqrt(sum(k^2) + 1e-6)
//   S = decay * S;  S += k outer beta * (v - S^T k);  y = S^T q
//   y = y / sqrt(mean(y^2) + eps) * weight * silu(z)
// The result is the same however the rows are cut into calls.
struct DeltaArgs {
  const float *q, *k, *v;  // [m, stride apart][n_key_heads][key_dim], the same, [n_value_heads][value_dim]
  const float *a, *b;      // [m, gate_stride apart][n_value_heads]
  const float *rate, *dt_bias;  // [n_value_heads]; rate is exp(A_log)
  const float* z;          // [m, z_stride apart][n_value_heads][value_dim]
  const float* weight;     // [value_dim]
  const float* state;      // [n_value_heads][key_dim][value_dim]; NULL: all 0
  float* next_state;       // may be state
  float* y;                // [m][n_value_heads][value_dim]
  uint32_t m, stride, gate_stride, z_stride;
  uint32_t n_key_heads, n_value_heads, key_dim, value_dim;
  uint32_t first_head, last_head;  // the range of value heads to do
  float eps;
};

// In place: every head times an orthogonal matrix that spreads what is large in one element over all, and is its own inverse. Blocks of
// n elements, the largest power of two that divides head_dim, are transformed by the normalized Hadamard matrix of that size; then, where
// there are k > 1 of them, 2 / k times the sum of an element over all blocks is taken off the element in each.
struct HadamardArgs {
  float* x;             // [m][x_stride]: n_heads heads of head_dim
  uint32_t m, x_stride, n_heads, head_dim;
};
constexpr uint32_t hadamard_size(uint32_t dim) { return dim & (0 - dim); }

// How keys or values are stored; values are those of GPTQ_KV_*.
enum class KvKind : uint8_t { f16 = 0, f32 = 1, i8 = 2, i4 = 3 };
struct KvKinds {
  KvKind keys, values;
  bool operator==(const KvKinds&) const = default;
};
constexpr KvKinds alike(KvKind kind) { return {kind, kind}; }

// One layer of one sequence's KV cache. Page p of the sequence is at base + pages[p] * page_stride, its values value_offset further.
//   keys    [n_kv_heads][page_tokens / 16][key_dim][16]: 16 positions side by side, so that a vector holds one element of several
//   values  [n_kv_heads][page_tokens][value_dim]
// where both dims are rounded up to a multiple of 16, and rows hold 0 behind them. Rows in 8 and 4 bits have 32 bits more,
// [n_kv_heads][page_tokens] behind the keys, and behind the values. int8: a float32 scale, max|x| / 127 of the row. int4: two bfloat16, in
// the high half a scale, in the low half an offset; scale * code + offset, codes 0..15, is the row, of a key (kv_key_is_relative) its difference
// from the first of its tile. A byte has two codes: of keys 2i, low, and 2i + 1, [key_dim / 2][16] in all; of values i, low, and i + 8 of 16.
struct KvView {
  std::byte* base;
  const uint32_t* pages;
  uint64_t page_stride, value_offset;
  uint32_t page_tokens;   // a multiple of 16
  uint32_t n_kv_heads, key_dim, value_dim;  // dims of a head: at most largest_head
  KvKinds kinds;
};

constexpr uint32_t largest_head = 576;
constexpr uint32_t most_ropes = 8;  // rotary embeddings of a model

constexpr uint32_t kv_bits(KvKind kind) { return kind == KvKind::f32 ? 32 : kind == KvKind::f16 ? 16 : kind == KvKind::i8 ? 8 : 4; }
constexpr uint64_t kv_bytes(KvKind kind, uint64_t elements) { return elements * kv_bits(kind) / 8; }
constexpr bool kv_is_scaled(KvKind kind) { return kind == KvKind::i8 || kind == KvKind::i4; }
constexpr uint32_t kv_row_elements(uint32_t dim) { return (dim + 15) / 16 * 16; }
constexpr uint32_t kv_row_bytes(KvKind kind, uint32_t dim) {  // of one key or value, its scale included
  return static_cast<uint32_t>(kv_bytes(kind, kv_row_elements(dim))) + (kv_is_scaled(kind) ? 4 : 0);
}

struct StoreKvArgs {
  const float* k;       // [m][k_stride]: n_kv_heads x key_dim
  const float* v;       // [m][v_stride]: n_kv_heads x value_dim
  uint32_t m, k_stride, v_stride, first_position;
  KvView kv;
};

// Attention goes by blocks of this many positions, which begin at its multiples. What a block gives a query is a partial result
// of value_dim + 2 floats: sum of 2^(s - max) v, max, total of 2^(s - max), where s is log2(e) times the logit. Partial results are
// merged in order of position, so that the result is the same whoever computed them.
constexpr uint32_t attention_block = 256;

// softmax(logits) V for queries at first_position + i, each over positions up to its own. A logit is scale * q.k, of that
// softcap * tanh(logit / softcap), and to that slope of the head * (key position - query position) is added. A sink is one more logit
// of its head, without a value.
struct AttentionArgs {
  const float* q;       // [m][n_heads * key_dim]
  float* out;           // [m][n_heads * value_dim]
  uint32_t m, first_position, n_heads;
  uint32_t first_kv_head, last_kv_head;  // the range to do; each serves n_heads / n_kv_heads query heads
  float scale;
  uint32_t window;      // positions seen, the query's own included; 0 = all
  KvView kv;
  float* partials;       // NULL, or out stays untouched and blocks first_block .. last_block - 1 leave their partials, those a query
  uint64_t block_stride;  // sees something of: [blocks, block_stride floats apart][m][n_heads][value_dim + 2]
  uint32_t first_block, last_block;
  uint32_t chunk;       // positions seen begin at a multiple of it; 0 = none. Together with window
  float softcap;        // 0 = none
  const float* alibi_slopes;  // [n_heads] or NULL
  const float* sinks;   // [n_heads] or NULL; not part of partials
};

struct MergeAttentionArgs {  // out of the partials of all blocks that a query sees
  const float* partials;  // of first_block
  uint64_t block_stride;
  uint32_t first_block;
  float* out;            // [m][n_heads * value_dim]
  uint32_t first_position, n_heads, value_dim, window;
  uint32_t first_query, last_query;  // the range to do, of m * n_heads
  uint32_t chunk;        // as in AttentionArgs
  const float* sinks;
};

// One layer of one sequence's cache of latent attention (MLA): a row a token, which all heads share. Page p of the sequence is at
// base + pages[p] * page_stride: [page_tokens][width], where width is rounded up to a multiple of 16, rows hold 0 behind it, and int8
// rows have a float32 scale, max|x| / 127 of the row: [page_tokens] behind the rows. kv_row_bytes(kind, width) a token.
struct LatentView {
  std::byte* base;
  const uint32_t* pages;
  uint64_t page_stride;
  uint32_t page_tokens;   // a multiple of 16
  uint32_t width, rank;   // a row is a key; its first `rank` elements are the value. width is at most largest_head
  KvKind kind;            // not i4
};

struct StoreLatentArgs {
  const float* latent;  // [m][latent_stride]: rank elements
  const float* rope;    // [m][rope_stride]: the other width - rank
  uint32_t m, latent_stride, rope_stride, first_position;
  LatentView kv;
};

// As AttentionArgs, all heads over the same rows. Partials are merged by merge_attention, with value_dim = rank.
struct LatentAttentionArgs {
  const float* q;       // [m][n_heads][width]
  float* out;           // [m][n_heads][rank]
  uint32_t m, first_position, n_heads;
  uint32_t first_head, last_head;  // the range to do; sixteen at a time go quickest
  float scale;
  LatentView kv;
  float* partials;       // NULL, or as in AttentionArgs: [blocks, block_stride floats apart][m][n_heads][rank + 2]
  uint64_t block_stride;
  uint32_t first_block, last_block;
};

// y[i][head][row] = sum over k of W[head][row][k] x[i][head][k]: each head its own small matrix.
struct HeadMatmulArgs {
  Kind kind;            // f32, f16 or bf16
  const void* w;        // [heads][n][k]
  const float* x;       // [m, x_stride apart][heads, x_head_stride apart][k]
  float* y;             // [m, y_stride apart][heads, y_head_stride apart][n]
  uint64_t x_stride, x_head_stride, y_stride, y_head_stride;
  uint32_t m, n, k;
  uint32_t first_head, last_head;  // the range to do
};

struct SubtractProductArgs {  // c -= a b, the quantizer's linear algebra
  const double* a;      // [m][a_stride], k used
  const double* b;      // [k][b_stride], n used
  double* c;            // [m][c_stride], n used
  uint64_t a_stride, b_stride, c_stride;
  uint32_t m, n, k;
};

// c += a b in float32 for many rows: the quantizer's inputs and Hessians.
constexpr uint32_t panel_columns = 48;
struct AddProductArgs {
  const float* a;       // element (i, l) at a[i * a_row + l * a_step]
  const float* b;       // panels [n / 48 up][k][48]
  float* c;             // [m][c_stride], n used
  uint64_t a_row, a_step, c_stride;
  uint32_t m, n, k;
};

#define GPTQ_KERNEL_OPS(X) \
  X(pack_int8, PackInt8Args) X(matmul_int8, MatmulArgs) X(matmul_float, MatmulArgs) X(matmul_bf16, MatmulArgs) X(dequantize_row, DequantizeRowArgs) \
  X(rms_norm, RmsNormArgs) X(layer_norm, LayerNormArgs) X(rope, RopeArgs) X(hadamard, HadamardArgs) X(activate, ActivateArgs) X(elementwise, ElementwiseArgs) \
  X(convolve, ConvolveArgs) X(delta, DeltaArgs) X(store_kv, StoreKvArgs) X(attention, AttentionArgs) \
  X(merge_attention, MergeAttentionArgs) X(store_latent, StoreLatentArgs) X(latent_attention, LatentAttentionArgs) \
  X(head_matmul, HeadMatmulArgs) X(lora_shrink, LoraShrinkArgs) X(lora_expand, LoraExpandArgs) X(subtract_product, SubtractProductArgs) \
  X(add_product, AddProductArgs)

// matmul_bf16 is NULL where the CPU has no products of bfloat16.
struct Kernels {
#define X(op, Args) void (*op)(const Args&);
  GPTQ_KERNEL_OPS(X)
#undef X
};

enum class Level : uint8_t { ref, avx2, avx512vnni, neon, neon_dotprod, neon_i8mm, avx512bf16 };

// What this CPU has (GPTQ_CPU_* bits, GPTQ_CPU_REFERENCE always set).
uint32_t detect_cpu();
// The best compiled variant of every op within the levels of mask that the CPU has; mask 0 = all.
Kernels select_kernels(uint32_t mask);
// "pack_int8=avx2 matmul_int8=avx2 ..." for the same mask, into text (NUL-terminated, cut at cap).
void describe_kernels(uint32_t mask, char* text, size_t cap);

// Every compiled variant, for tests and benchmarks.
struct Variant {
  const char* op;
  Level level;
  void (*function)();  // cast to the op's type
};
const Variant* variants(size_t* count);
const char* level_name(Level level);
bool cpu_has(Level level);

}  // namespace gptq::kernels
