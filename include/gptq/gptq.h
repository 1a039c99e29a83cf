/* SPDX-License-Identifier: Apache-2.0
 *
 * libgptq: an embedded inference runtime for GPTQ-quantized language models. The whole public C API.
 *
 *     gptq_runtime (host services) -> gptq_model (weights, shared)
 *       -> gptq_engine (KV arena, scheduler) -> gptq_session (one sequence)
 *
 * Rules that hold for every function here (exceptions are named at the function):
 *   Status    0 or positive is success, negative an error. On error outputs stay untouched and the object is as before
 *             the call.
 *   Error     `gptq_error *err` may be NULL; the caller owns it and sets struct_size. No state of an error is kept
 *             elsewhere. A call that has no err sends the message to the runtime's log (GPTQ_LOG_ERROR).
 *   Structs   struct_size = sizeof(the struct); all other fields zero mean defaults. A shorter struct reads as
 *             zero-extended, a longer one is refused (GPTQ_E_STRUCT_VERSION) if its unknown tail is not zero. Structs
 *             only ever grow at their end.
 *   Handles   reference-counted: release or destroy in any order, NULL is fine. A session keeps its engine alive, an
 *             engine its model, a model its runtime.
 *   Text      UTF-8, pointer + length; GPTQ_NTS as length means NUL-terminated. Paths are UTF-8 on every platform.
 *   Outputs   go to buffers of the caller: with cap too small the call returns GPTQ_E_BUFFER_TOO_SMALL and sets
 *             *needed.
 *   Threads   runtime and model functions: any thread. An engine with all its sessions is one domain: one thread at a
 *             time; a call while another is inside gives INVALID_STATE. From any thread at any time:
 *             gptq_session_cancel, gptq_session_retain, and giving references back (also a finalizer's thread): a
 *             session is destroyed when no call is inside its engine.
 *   Callbacks run on the thread inside the call (the allocator also on the library's worker threads). They must not
 *             unwind through the library (throw, panic, longjmp). Those of gptq_generate may use the engine, but not
 *             change the session that generates; others must not: INVALID_STATE.
 *   Fork      a child process may use and release its copies of the handles, if no other thread was inside a call at
 *             the time of fork(); its work is done on the calling thread alone. What is on a GPU can only be released
 *             there.
 *   Process   the library never aborts, exits, prints, installs handlers, reads the environment, or changes locale or
 *             FP state.
 */
#ifndef GPTQ_H
#define GPTQ_H
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#  define GPTQ_CALL __cdecl
#  if defined(GPTQ_BUILD)
#    define GPTQ_API __declspec(dllexport)
#  elif defined(GPTQ_SHARED)
#    define GPTQ_API __declspec(dllimport)
#  else
#    define GPTQ_API
#  endif
#else
#  define GPTQ_CALL
#  define GPTQ_API __attribute__((visibility("default")))
#endif
#ifdef __cplusplus
extern "C" {
#endif

#define GPTQ_VERSION_MAJOR 0
#define GPTQ_VERSION_MINOR 1
#define GPTQ_VERSION_PATCH 0
#define GPTQ_NTS ((size_t)-1)              /* string length: NUL-terminated */
#define GPTQ_BUDGET_UNLIMITED 0xFFFFFFFFu  /* gptq_engine_step: run until nothing is left to do */
#define GPTQ_BUDGET_POLL 0u                /* gptq_engine_step: do no work, report */

typedef int32_t gptq_status;
typedef int32_t gptq_token;

typedef struct gptq_runtime gptq_runtime;
typedef struct gptq_model   gptq_model;
typedef struct gptq_engine  gptq_engine;
typedef struct gptq_session gptq_session;
typedef struct gptq_constraint gptq_constraint;
typedef struct gptq_adapter gptq_adapter;

/* Status codes; never renumbered. */
enum {
  GPTQ_OK = 0,
  GPTQ_MORE = 1,                       /* work is left: step again */
  GPTQ_IDLE = 2,                       /* nothing to do until a session is started or its output read */
  GPTQ_REPLAYED = 3,                   /* gptq_session_restore: restored, but what it computes may differ in its last
                                        * digits */
  GPTQ_E_INVALID_ARGUMENT = -1, GPTQ_E_INVALID_STATE = -2, GPTQ_E_STRUCT_VERSION = -3,
  GPTQ_E_BUFFER_TOO_SMALL = -4, GPTQ_E_OUT_OF_MEMORY = -5, GPTQ_E_OUT_OF_DEVICE_MEMORY = -6,
  GPTQ_E_BUDGET_EXCEEDED = -7,         /* host_bytes_max or device_bytes_max would be passed */
  GPTQ_E_KV_FULL = -8,                 /* no free page in the KV arena */
  GPTQ_E_CONTEXT_FULL = -9,            /* the session has ctx_tokens tokens */
  GPTQ_E_IO = -10, GPTQ_E_FORMAT = -11, GPTQ_E_CHECKSUM = -12, GPTQ_E_UNSUPPORTED = -13,
  GPTQ_E_CANCELLED = -14, GPTQ_E_NOT_FOUND = -16,
  GPTQ_E_BACKEND = -17,                /* no backend is loaded, it does not fit, or the device refused a call */
  GPTQ_E_DEVICE_LOST = -18,            /* the GPU failed for good: what is on it fails from now on, what is on the
                                        * CPU works */
  GPTQ_E_TEMPLATE = -21,               /* the chat template is missing, outside the subset, or raised an error */
  GPTQ_E_TEXT = -23,                   /* text that the tokenizer cannot express, or no tokenizer in the model */
  GPTQ_E_NUMERIC = -24,                /* NaN or infinity in what a model computes */
  GPTQ_E_INTERNAL = -99
};

typedef struct gptq_error {
  uint32_t struct_size; int32_t status;
  int64_t  os_code;                    /* errno, or 0 */
  uint64_t offset;                     /* byte in the file or template, or 0 */
  char     site[48];                   /* where the library failed ("format/reader.cpp:120"): quote it in bug reports */
  char     message[240];               /* UTF-8, NUL-terminated, English */
} gptq_error;

/* Chained platform extras: a struct named below begins with a gptq_ext and goes where its comment says; others are
 * refused. */
typedef struct gptq_ext { uint32_t type; uint32_t struct_size; const struct gptq_ext *next; } gptq_ext;
enum { GPTQ_EXT_CUDA_STREAM = 1 };
/* In gptq_engine_params: a CUstream to work in, where layers are on one GPU. It must be of the context that was current
 * when the model was loaded, or where that was none, or another GPU's, of the GPU's primary one. Every call works in
 * that context, and leaves the host's current one as it was. */
typedef struct gptq_ext_cuda_stream { gptq_ext ext; void *stream; } gptq_ext_cuda_stream;

enum { GPTQ_MEM_HOST = 0 };
/* What memory is for: a model's weights and tokenizer; an engine's KV cache and workspace; a quantization; all else. */
enum { GPTQ_TAG_OTHER = 0, GPTQ_TAG_MODEL = 1, GPTQ_TAG_ENGINE = 2, GPTQ_TAG_QUANTIZE = 3 };
enum { GPTQ_LOG_ERROR = 1, GPTQ_LOG_WARN = 2, GPTQ_LOG_INFO = 3, GPTQ_LOG_DEBUG = 4 };

typedef void   (GPTQ_CALL *gptq_log_fn)(void *user, int32_t level, const char *text, size_t size);
/* Returns size bytes at a multiple of align (a power of two), or NULL. tag (GPTQ_TAG_*) names the use for the host's
 * statistics; it is free's too. */
typedef void  *(GPTQ_CALL *gptq_alloc_fn)(void *user, size_t size, size_t align, uint32_t kind, uint32_t tag);
typedef void   (GPTQ_CALL *gptq_free_fn)(void *user, void *ptr, size_t size, size_t align, uint32_t kind, uint32_t tag);
typedef void   (GPTQ_CALL *gptq_task_fn)(void *ctx, uint32_t index);
/* Calls fn(ctx, i) once for every i < count, on any threads, and returns when all have returned. */
typedef void   (GPTQ_CALL *gptq_parallel_fn)(void *user, gptq_task_fn fn, void *ctx, uint32_t count);
/* Called once, when nothing of the library uses what user points to any more, on the thread that gave the last
 * reference back. */
typedef void   (GPTQ_CALL *gptq_user_free_fn)(void *user);
/* Return non-zero to cancel the call in progress. */
typedef int32_t(GPTQ_CALL *gptq_progress_fn)(void *user, uint32_t phase, uint32_t permille);
/* Receives whole UTF-8 code points; return non-zero to stop generating. */
typedef int32_t(GPTQ_CALL *gptq_text_fn)(void *user, const char *text, size_t size);

/* ---- A. library and runtime ---- */

enum { GPTQ_CPU_AVX2 = 1, GPTQ_CPU_AVX512_VNNI = 2, GPTQ_CPU_NEON = 4, GPTQ_CPU_NEON_DOTPROD = 8,
       GPTQ_CPU_NEON_I8MM = 16, GPTQ_CPU_AVX512_BF16 = 32, GPTQ_CPU_REFERENCE = 0x40000000 };

typedef struct gptq_runtime_desc {
  uint32_t struct_size; uint32_t flags; const gptq_ext *next;
  gptq_log_fn log; void *log_user;
  gptq_alloc_fn alloc; gptq_free_fn free; void *alloc_user;   /* both or neither */
  gptq_parallel_fn parallel; void *parallel_user;             /* host job system; NULL = own thread pool */
  uint32_t threads;                                           /* that compute, the caller's included; 0 = one per
                                                               * physical core */
  uint32_t cpu_features_mask;                                 /* GPTQ_CPU_*: levels that may be used; 0 = all the CPU
                                                               * has */
  int32_t  log_level;                                         /* highest level sent to log; 0 = GPTQ_LOG_WARN */
  uint32_t reserved;
  uint64_t host_bytes_max;                                    /* refuse to hold more than this; 0 = no limit */
  gptq_user_free_fn user_free; void *user;                    /* user_free(user): after the last use of any of the
                                                               * callbacks above */
} gptq_runtime_desc;

/* major << 16 | minor << 8 | patch of the library in use. */
GPTQ_API uint32_t    GPTQ_CALL gptq_version(void);
/* One line of text: version, compiler, kernel levels compiled in. Static. */
GPTQ_API const char *GPTQ_CALL gptq_build_info(void);
/* "GPTQ_E_IO" for -10, and so on; "unknown status" for others. Static. */
GPTQ_API const char *GPTQ_CALL gptq_status_name(gptq_status status);

/* Creates the host services every other object uses. desc NULL means defaults (malloc, own threads, no log). Starts the
 * worker threads, which sleep unless a call computes.
 * Errors: INVALID_ARGUMENT, OUT_OF_MEMORY, UNSUPPORTED. Release once. */
GPTQ_API gptq_status GPTQ_CALL gptq_runtime_create(const gptq_runtime_desc *desc, gptq_runtime **out, gptq_error *err);
GPTQ_API void        GPTQ_CALL gptq_runtime_release(gptq_runtime *rt);
/* The kernel levels in use, as "matmul_int8=avx2 ..."; static text. */
GPTQ_API const char *GPTQ_CALL gptq_runtime_kernels(const gptq_runtime *rt);

enum { GPTQ_DEVICE_CPU = 1, GPTQ_DEVICE_CUDA = 2 };
typedef struct gptq_device_info {
  uint32_t struct_size; int32_t kind; int32_t ordinal;
  uint32_t capability;                          /* CUDA: 90 for compute capability 9.0; 75 is the least */
  uint64_t bytes_total; uint64_t bytes_free;    /* free: 0 where it cannot be known without a context on the GPU;
                                                 * listing makes none */
  uint8_t  luid[8]; uint8_t uuid[16]; char name[104];
} gptq_device_info;

/* Loads the CUDA backend, a shared object of its own; path NULL: libgptq_cuda.so where the system's loader, or this
 * library's folder, has it. It stays loaded. A runtime without it works on the CPU.
 * Errors: BACKEND, INVALID_STATE (this runtime has one). */
GPTQ_API gptq_status GPTQ_CALL gptq_runtime_load_backend(gptq_runtime *rt, const char *path, size_t path_size,
    gptq_error *err);
/* The GPU with this ordinal. Errors: NOT_FOUND past the last or without a driver, BACKEND when none is loaded. */
GPTQ_API gptq_status GPTQ_CALL gptq_runtime_device(gptq_runtime *rt, uint32_t ordinal, gptq_device_info *out,
    gptq_error *err);

/* ---- B. model ---- */

/* Reading through the host. read_at returns the bytes read (short only at the end) or a negative errno; size returns
 * the length. */
typedef struct gptq_io {
  uint32_t struct_size; uint32_t flags; void *user;
  int64_t (GPTQ_CALL *size)(void *user);
  int64_t (GPTQ_CALL *read_at)(void *user, uint64_t offset, void *dst, size_t size);
} gptq_io;

typedef struct gptq_source {                    /* exactly one of path, data, io */
  uint32_t struct_size; uint32_t flags;
  const char *path; size_t path_size;
  const void *data; size_t data_size;           /* read during the call only */
  const gptq_io *io;                            /* called during the call only, maybe from worker threads */
  uint64_t offset; uint64_t size;               /* a sub-range (a pak file); size 0 = to the end */
} gptq_source;

enum { GPTQ_PHASE_LOAD = 1, GPTQ_PHASE_VERIFY = 2, GPTQ_PHASE_SAMPLE = 3, GPTQ_PHASE_QUANTIZE = 4,
       GPTQ_PHASE_MEASURE = 5 };

/* A device that gets layers of a model. */
typedef struct gptq_device_share {
  uint32_t struct_size; uint32_t flags;
  int32_t  kind; int32_t ordinal; uint8_t uuid[16];           /* GPTQ_DEVICE_*; the ordinal counts where uuid
                                                               * (gptq_device_info's) is all zeros */
  uint64_t bytes_max;                                         /* of a GPU: hold no more there, engines included;
                                                               * 0 = what is free */
  uint32_t layers; uint32_t reserved;                         /* 0 = as many as fit, the CPU: all others; 0xFFFFFFFF
                                                               * = none */
} gptq_device_share;
typedef struct gptq_model_params {
  uint32_t struct_size; uint32_t flags; const gptq_ext *next;
  gptq_progress_fn progress; void *progress_user;
  int32_t  device_kind; int32_t device_ordinal;               /* GPTQ_DEVICE_*; 0 = CPU */
  uint32_t device_layers; uint32_t reserved;                  /* the last so many, and the head, go to the GPU:
                                                               * 0 = all that fit, 0xFFFFFFFF = none */
  uint64_t device_bytes_max;                                  /* hold no more there, engines included; 0 = what is
                                                               * free */
  /* Instead of the four above: devices in the order in which they get layers, the first with the embedding, the last
   * with the head; each once, at most 16. Where all layers fit, every GPU gives the same part of its free memory (after
   * what engines need); where not, the CPU has the others, in its place in the list, else first. */
  const gptq_device_share *const *devices; size_t n_devices;  /* array of pointers: the element may grow */
} gptq_model_params;

typedef struct gptq_model_info {
  uint32_t struct_size; uint32_t flags;
  uint32_t n_vocab; uint32_t n_layers; uint32_t n_embd; uint32_t n_ctx_train;
  /* bits: of the middle layer's MLP; 16 or 32: unquantized */
  uint32_t n_heads; uint32_t n_kv_heads; uint32_t head_dim; uint32_t bits;
  int32_t  group_size;                                        /* the same layer's; -1 = one group a row;
                                                               * 0 = unquantized */
  gptq_token bos; gptq_token eos; gptq_token pad;             /* -1 = none; further end tokens also stop */
  uint64_t n_params; uint64_t host_bytes; uint64_t kv_bytes_per_token;       /* kv: with GPTQ_KV_F16 */
  uint64_t fingerprint;                                       /* hash of the manifest: same for the same file */
  uint64_t device_bytes; uint32_t device_layers; int32_t device_kind;  /* weights and layers on GPUs; where the head
                                                                        * is computed */
  int32_t pooling; uint32_t pooling_flags;                    /* GPTQ_POOL_*, GPTQ_EMBED_*: of embedding models, as
                                                               * their files say; 0 = they do not */
} gptq_model_info;

/* Layers of a model that are side by side on one device (GPTQ_DEVICE_*; the CPU's ordinal is 0), and the bytes of
 * weights there. */
typedef struct gptq_placement {
  uint32_t struct_size; uint32_t flags; int32_t kind; int32_t ordinal;
  uint32_t first_layer; uint32_t n_layers; uint64_t bytes;
} gptq_placement;

typedef struct gptq_engine_params gptq_engine_params;
typedef struct gptq_memory_estimate {
  uint32_t struct_size; uint32_t fits;          /* fits: within host_bytes_max beside what is held already, and
                                                 * within every GPU's budget */
  uint64_t host_weights; uint64_t host_kv; uint64_t host_scratch; uint64_t host_load_peak;
  uint64_t device_weights; uint64_t device_kv; uint64_t device_scratch;      /* on all GPUs together */
  uint32_t device_layers; uint32_t reserved;
} gptq_memory_estimate;

/* Loads a .gptq file. Every byte is verified before it is used. Blocks; reads and unpacks on the runtime's threads.
 * params may be NULL.
 * Errors: IO, FORMAT, CHECKSUM, UNSUPPORTED, OUT_OF_MEMORY, BUDGET_EXCEEDED, CANCELLED; with a GPU BACKEND, NOT_FOUND,
 * OUT_OF_DEVICE_MEMORY, DEVICE_LOST. Release once. */
GPTQ_API gptq_status GPTQ_CALL gptq_model_load(gptq_runtime *rt, const char *path, size_t path_size,
    const gptq_model_params *params, gptq_model **out, gptq_error *err);
/* The same from memory, from host IO or from a part of a file. */
GPTQ_API gptq_status GPTQ_CALL gptq_model_load_from(gptq_runtime *rt, const gptq_source *src,
    const gptq_model_params *params, gptq_model **out, gptq_error *err);
/* What load and one engine with these parameters would hold, from the manifest and the tokenizer. params may be NULL;
 * engine too: no engine. */
GPTQ_API gptq_status GPTQ_CALL gptq_model_estimate(gptq_runtime *rt, const gptq_source *src,
    const gptq_model_params *params, const gptq_engine_params *engine, gptq_memory_estimate *out, gptq_error *err);
GPTQ_API gptq_model *GPTQ_CALL gptq_model_retain(gptq_model *m);
GPTQ_API void        GPTQ_CALL gptq_model_release(gptq_model *m);
GPTQ_API gptq_status GPTQ_CALL gptq_model_info_get(const gptq_model *m, gptq_model_info *out);
/* The index-th of the devices that have layers, in the order of the layers. Errors: NOT_FOUND past the last. */
GPTQ_API gptq_status GPTQ_CALL gptq_model_placement(const gptq_model *m, uint32_t index, gptq_placement *out);
/* Text from the file's metadata: "name", "license", "source", "quantization", "chat_template", ... NUL-terminated;
 * *needed counts the NUL.
 * Errors: NOT_FOUND, BUFFER_TOO_SMALL. */
GPTQ_API gptq_status GPTQ_CALL gptq_model_meta(const gptq_model *m, const char *key, size_t key_size, char *buf,
    size_t cap, size_t *needed);

/* ---- C. text ---- */

enum {
  GPTQ_TEXT_ADD_BOS = 1,            /* as the model's tokenizer does: BOS (and EOS) where it adds them */
  GPTQ_TEXT_PARSE_SPECIAL = 2,      /* "<|im_end|>" in the text becomes the special token; without it such text is
                                     * plain text */
  GPTQ_TEXT_RENDER_SPECIAL = 4      /* detokenize: special tokens as their text; without it they are left out */
};
enum { GPTQ_TOKEN_SPECIAL = 1, GPTQ_TOKEN_BYTE = 2, GPTQ_TOKEN_ADDED = 4, GPTQ_TOKEN_END = 8 };

typedef struct gptq_message {
  uint32_t struct_size; uint32_t flags;
  const char *role; size_t role_size; const char *text; size_t text_size;
  const char *extra_json; size_t extra_json_size;           /* an object merged into the message: tool calls, names,
                                                             * ... */
} gptq_message;

/* DROP_OLDEST: where the conversation and room for a reply do not fit into ctx_tokens, gptq_session_set_chat leaves its
 * oldest turns out, whole ones, never the system messages it begins with nor the last turn. Where it stood last time it
 * stays as long as that fits. */
enum { GPTQ_CHAT_ADD_GENERATION_PROMPT = 1, GPTQ_CHAT_DROP_OLDEST = 2 };
typedef struct gptq_chat {
  uint32_t struct_size; uint32_t flags;
  const gptq_message *const *messages; size_t n_messages;   /* array of pointers: the element may grow */
  const char *tools_json; size_t tools_json_size;           /* a JSON array, or NULL */
  const char *template_override; size_t template_override_size;
  const char *kwargs_json; size_t kwargs_json_size;         /* an object of further template variables, or NULL */
  uint32_t reserve_tokens; uint32_t keep_tokens;            /* DROP_OLDEST: room for the reply, 0 = a quarter of
                                                             * ctx_tokens; and, when something must go, at most so
                                                             * many tokens stay, so that it need not soon again:
                                                             * 0 = half of the rest */
} gptq_chat;

/* Token ids of text. *needed is the count, also when cap suffices. Errors: TEXT, BUFFER_TOO_SMALL. */
GPTQ_API gptq_status GPTQ_CALL gptq_tokenize(const gptq_model *m, const char *text, size_t size, uint32_t flags,
    gptq_token *out, size_t cap, size_t *needed);
/* Text of token ids, not NUL-terminated; bytes that are no UTF-8 come as they are.
 * Errors: INVALID_ARGUMENT (a token out of range), TEXT, BUFFER_TOO_SMALL. */
GPTQ_API gptq_status GPTQ_CALL gptq_detokenize(const gptq_model *m, const gptq_token *tokens, size_t n, uint32_t flags,
    char *out, size_t cap, size_t *needed);
/* The bytes that one token stands for, owned by the model, and its GPTQ_TOKEN_* attributes (attr may be NULL). */
GPTQ_API gptq_status GPTQ_CALL gptq_token_bytes(const gptq_model *m, gptq_token token, const char **bytes, size_t *size,
    uint32_t *attr);
/* The chat template of the model applied to messages, as text. To generate from a chat use gptq_session_set_chat, which
 * keeps special tokens inside messages from being honoured.
 * Errors: TEMPLATE (err->offset is a byte of the template). */
GPTQ_API gptq_status GPTQ_CALL gptq_chat_render(const gptq_model *m, const gptq_chat *chat, char *out, size_t cap,
    size_t *needed, gptq_error *err);

/* ---- D. engine = KV arena + scheduler ---- */

/* How keys and values are kept. I8: int8 with a float32 scale a row and head. I4 (since 0.2): 4 bits with a scale and
 * an offset a row and head, turned by a Hadamard transform before that; 0.28 of float16's memory at 64 dimensions a
 * head; not for latent attention. Keys suffer from it more than values. VALUES_* (since 0.2), added to it, say that
 * values are kept otherwise than keys: GPTQ_KV_I8 | GPTQ_KV_VALUES_I4. */
enum { GPTQ_KV_F16 = 0, GPTQ_KV_F32 = 1, GPTQ_KV_I8 = 2, GPTQ_KV_I4 = 3,
       GPTQ_KV_VALUES_F16 = 0x100, GPTQ_KV_VALUES_F32 = 0x200, GPTQ_KV_VALUES_I8 = 0x300, GPTQ_KV_VALUES_I4 = 0x400 };
/* As what quantized matrices read their inputs on the CPU: int8 by default, with EXACT float32 (and a float32 KV cache
 * unless kv_type says otherwise), with BF16 bfloat16, which is near EXACT and in prefill quicker than it where the CPU
 * has AVX-512 BF16, elsewhere as slow. A GPU computes with float16 anyway, with EXACT in 22 bits. EXACT and BF16
 * exclude each other. */
enum { GPTQ_ENGINE_EXACT = 1, GPTQ_ENGINE_BF16 = 2 };
struct gptq_engine_params {
  uint32_t struct_size; uint32_t flags; const gptq_ext *next;
  uint64_t kv_bytes;                          /* size of the KV arena; 0 = max_sessions * ctx_tokens */
  uint32_t max_sessions;                      /* 0 = 1 */
  uint32_t ctx_tokens;                        /* most tokens of one session; 0 = the model's, at most 4096 */
  uint32_t page_tokens;                       /* tokens of a KV page; 0 = 64; a multiple of 16 */
  uint32_t batch_tokens;                      /* most tokens computed together; 0 = 256, with all layers on a GPU up
                                               * to 2048 */
  uint32_t logits_rows;                       /* rows kept for GPTQ_GEN_LOGITS; 0 = 1 */
  int32_t  kv_type;                           /* GPTQ_KV_*, and GPTQ_KV_VALUES_* or nothing; F16 or I8 where layers
                                               * are on a GPU */
  uint32_t best_logprobs;                     /* of each token's best log-probabilities so many are kept for
                                               * GPTQ_GEN_LOGPROBS, at most 20 */
  uint32_t adapter_rank;                      /* room for adapters of this rank in all matrices; 0 = none,
                                               * gptq_session_set_adapter takes it when needed */
};
typedef struct gptq_step_info {
  uint32_t struct_size; uint32_t flags;
  uint32_t sessions_active;                   /* still have work */
  uint32_t sessions_readable;                 /* have unread text, tokens or logits, or ended since last looked at */
  uint32_t used_us; uint32_t next_quantum_us; /* next: smallest budget that lets the next step make progress */
  uint32_t tokens_prefilled; uint32_t tokens_generated; uint32_t quanta; uint32_t reserved;
} gptq_step_info;
typedef struct gptq_memory_info {
  uint32_t struct_size; uint32_t page_tokens;
  uint64_t kv_pages_total; uint64_t kv_pages_used;
  uint64_t host_bytes; uint64_t host_peak;    /* held by the runtime and all that was made with it */
  uint64_t device_bytes; uint64_t device_peak;  /* held on GPUs by the model and its engines; the sum of every GPU's
                                                 * peak */
} gptq_memory_info;

/* Reserves everything that generating will need: KV arena, workspace, session slots. params may be NULL.
 * Errors: INVALID_ARGUMENT, OUT_OF_MEMORY, OUT_OF_DEVICE_MEMORY, BUDGET_EXCEEDED, UNSUPPORTED, BACKEND, DEVICE_LOST. */
GPTQ_API gptq_status GPTQ_CALL gptq_engine_create(gptq_model *m, const gptq_engine_params *params, gptq_engine **out,
    gptq_error *err);
GPTQ_API void        GPTQ_CALL gptq_engine_destroy(gptq_engine *e);
/* Computes for about budget_us microseconds on all started sessions together, then returns: MORE while work is left,
 * IDLE when none. Work is cut at layer boundaries; a cut is started only if it fits the budget by what it cost before
 * (the first always runs). A GPU is given its work and looked at until the budget is over, never longer: what it has
 * not finished the next step takes up. DEVICE_LOST and BACKEND end every running session with that status. Allocates
 * nothing. An error of one session (NUMERIC, KV_FULL, ...) ends that session alone and shows in its info. info may be
 * NULL. */
GPTQ_API gptq_status GPTQ_CALL gptq_engine_step(gptq_engine *e, uint32_t budget_us, gptq_step_info *info);
/* A session with something unread, each at most once a step; NULL when there is no other. The pointer is borrowed. */
GPTQ_API gptq_session*GPTQ_CALL gptq_engine_next_readable(gptq_engine *e);
GPTQ_API gptq_status GPTQ_CALL gptq_engine_memory(const gptq_engine *e, gptq_memory_info *out);
/* Gives the engine a draft model: a smaller one, of the same runtime and with the same tokens, that says for sessions
 * with GPTQ_GEN_SPECULATE what may come next, so that the engine's model computes several tokens at once. It only saves
 * time, as all guesses: the bytes are those of plain decoding. It guesses where that pays by what was right and what
 * took how long, drafts of all sessions together, in the quanta and the budgets of gptq_engine_step; a prompt is
 * computed by it too. All memory that this needs is reserved here: an engine of the draft model (params; NULL or zero
 * fields: as many sessions, tokens and page_tokens as the engine has; max_sessions may be no other, ctx_tokens no
 * more), without room in whose kv_bytes a session has no drafts. An error of the draft model, or its GPU lost, ends no
 * session. Replaces an earlier one; draft NULL takes it away. Between any two steps; the engine keeps the model alive.
 * Threads: as all of the engine.
 * Errors: INVALID_ARGUMENT (other tokens, another runtime, params), UNSUPPORTED (either model has recurrent layers or
 * rope that depends on the length), others as gptq_engine_create; the engine is as before then. Since 0.2. */
GPTQ_API gptq_status GPTQ_CALL gptq_engine_set_draft(gptq_engine *e, gptq_model *draft,
    const gptq_engine_params *params, gptq_error *err);

/* ---- E. session = one sequence ---- */

enum { GPTQ_SAMPLE_RANDOM_SEED = 2, GPTQ_SAMPLE_MODEL_DEFAULTS = 4 };  /* MODEL_DEFAULTS: zero fields take the
                                                                        * model's own values */
typedef struct gptq_string { const char *ptr; size_t size; } gptq_string;
/* bias: added to the logit, -1000 to 1000 */
typedef struct gptq_logit_bias { gptq_token token; float bias; } gptq_logit_bias;
/* All-zero = greedy; a field of 0 is off. Order: bias, the constraint, repeat, frequency and presence penalty, DRY,
 * top_n_sigma, top_k, temperature, typical_p, top_p, min_p, XTC. With mirostat_tau nothing behind the temperature
 * counts. One token at least is always left. */
typedef struct gptq_sampling {
  uint32_t struct_size; uint32_t flags;
  float    temperature;                      /* 0 = greedy */
  int32_t  top_k;                            /* 0 = off */
  float    top_p; float min_p;               /* 0 = off */
  float    repeat_penalty;                   /* 0 or 1 = off; as transformers' repetition_penalty */
  uint32_t penalty_window;                   /* last tokens it looks at; 0 = all */
  uint64_t seed;
  float    frequency_penalty;                /* taken off the logit for each time the token came in penalty_window;
                                              * -1000 to 1000 */
  float    presence_penalty;                 /* taken off once if the token came there; -1000 to 1000 */
  float    dry_multiplier;                   /* DRY: a token that would make a repeat of n tokens longer, n >=
                                              * dry_allowed_length, loses dry_multiplier * dry_base^(n -
                                              * dry_allowed_length); 0 to 1000 */
  float    dry_base;                         /* 1 to 16; 0 = 1.75 */
  uint32_t dry_allowed_length;               /* 0 = 2 */
  uint32_t dry_window;                       /* last tokens it looks at; 0 = all */
  float    top_n_sigma;                      /* keeps what is within so many standard deviations of the best logit;
                                              * to 1000 */
  float    typical_p;                        /* keeps this share of the probability, nearest the entropy first; to 1 */
  float    temperature_range;                /* the temperature follows the entropy, from temperature - range to
                                              * temperature + range; to 1000 */
  float    temperature_exponent;             /* how it follows; to 100, 0 = 1 */
  float    xtc_probability;                  /* how often, of the tokens at least as likely as the threshold, all go
                                              * but the least likely; to 1 */
  float    xtc_threshold;                    /* to 1; 0 = 0.1 */
  float    mirostat_tau;                     /* mirostat 2: the surprise to hold, in bits; to 100 */
  float    mirostat_eta;                     /* its rate of learning; to 10, 0 = 0.1 */
  const gptq_logit_bias *bias; size_t n_bias; /* at most 256, each token once */
  gptq_string dry_breakers;                  /* no repeat goes over a token with one of these ASCII characters, at
                                              * most 16; ptr NULL = newline : " * */
} gptq_sampling;
enum {
  GPTQ_GEN_PREFILL_ONLY = 1,                 /* compute the appended tokens, generate none */
  GPTQ_GEN_IGNORE_EOS = 2,
  GPTQ_GEN_KEEP_STOP = 4,                    /* leave the stop string that ended it in the text */
  GPTQ_GEN_CONTINUE_TEXT = 8,                /* keep the space before the first word that SentencePiece models'
                                              * decoding drops */
  GPTQ_GEN_LOGITS = 16,                      /* keep the logits of every position for gptq_session_read_logits */
  GPTQ_GEN_LOGPROBS = 64,                    /* keep log-probabilities for gptq_session_logprobs: of what is
                                              * generated; with PREFILL_ONLY of the input */
  GPTQ_GEN_MARKED = 256,                     /* for gptq_session_read_marked. At the start UNSUPPORTED where the
                                              * format of the chat template is not known. Since 0.2 */
  GPTQ_GEN_BACKGROUND = 128,                 /* computed only in what the engine's other sessions leave of a step: to
                                              * have a long input ready */
  GPTQ_GEN_SPECULATE = 32                    /* compute several tokens at once where the text repeats itself or a
                                              * text that the host foretells (gptq_session_set_prediction), or as a
                                              * draft model says (gptq_engine_set_draft): the same tokens, sooner. No
                                              * effect on recurrent layers, rope that depends on the length, or with
                                              * LOGITS. Where all layers are on the CPU what a constraint leaves
                                              * little choice about is guessed so without being asked */
};
/* How the hidden states behind the model's last norm become one vector: that of the last token, or the mean over all
 * tokens. */
enum { GPTQ_POOL_NONE = 0, GPTQ_POOL_LAST = 1, GPTQ_POOL_MEAN = 2 };
enum { GPTQ_EMBED_NORMALIZE = 1 };           /* scaled to length 1 */
typedef struct gptq_generate_params {
  uint32_t struct_size; uint32_t flags; const gptq_ext *next;
  const gptq_sampling *sampling;             /* NULL = greedy */
  const gptq_string *stop; size_t n_stop;    /* at most 16 strings of 256 bytes */
  uint32_t max_tokens;                       /* 0 = until end token or context end */
  int32_t  pooling;                          /* GPTQ_POOL_*, with PREFILL_ONLY: an embedding of the sequence, for
                                              * gptq_session_embedding */
  gptq_constraint *constraint;               /* of the same model; NULL = any text. Not with IGNORE_EOS. The
                                              * generation keeps it alive */
  gptq_constraint *banned;                   /* GPTQ_CONSTRAINT_BANNED of the same model: phrases that the text never
                                              * has, in large and small letters. Where one is complete the sequence
                                              * goes back to before its first token, and another is sampled there.
                                              * What may become one cannot be read yet. Where nothing else may
                                              * follow, TEXT. Not with LOGITS */
} gptq_generate_params;

enum { GPTQ_SESSION_IDLE = 0, GPTQ_SESSION_RUNNING = 1 };
enum { GPTQ_STOP_NONE = 0, GPTQ_STOP_EOS = 1, GPTQ_STOP_STRING = 2, GPTQ_STOP_LENGTH = 3, GPTQ_STOP_CONTEXT = 4,
       GPTQ_STOP_CANCELLED = 5, GPTQ_STOP_CONSTRAINT = 6, GPTQ_STOP_ERROR = 7, GPTQ_STOP_PREFILLED = 8 };
typedef struct gptq_session_info {
  uint32_t struct_size; int32_t state; int32_t stop_reason; int32_t status;   /* status: why, with GPTQ_STOP_ERROR */
  uint32_t n_tokens; uint32_t n_pending;     /* tokens of the sequence; of them not yet computed */
  uint32_t n_generated; uint32_t n_ctx;      /* generated since start */
  uint32_t stop_index; uint32_t bytes_unread;
  uint32_t tokens_unread; uint32_t logits_unread;
  uint64_t prefill_us; uint64_t decode_us; uint64_t first_token_us;  /* since start; first_token_us from start */
  uint32_t n_guessed; uint32_t n_guessed_right;               /* tokens computed ahead (GPTQ_GEN_SPECULATE,
                                                               * constraints); of them sampled */
  uint32_t n_dropped; uint32_t reserved;                      /* messages that the last set_chat left out
                                                               * (GPTQ_CHAT_DROP_OLDEST) */
} gptq_session_info;

/* Errors: INVALID_STATE when max_sessions exist already. */
GPTQ_API gptq_status GPTQ_CALL gptq_session_create(gptq_engine *e, gptq_session **out, gptq_error *err);
/* Gives a reference back. The last one ends the session: at once, or, inside one of the engine's callbacks or while
 * another thread is inside the engine, when that call returns. gptq_generate whose callback destroys its session ends
 * as if cancelled. Any thread. */
GPTQ_API void        GPTQ_CALL gptq_session_destroy(gptq_session *s);
/* Another reference, for gptq_session_destroy: so that a thread may cancel while the session's owner destroys it. A
 * session keeps its place, and generates, until the last is given back. Any thread. Returns s. Since 0.2. */
GPTQ_API gptq_session *GPTQ_CALL gptq_session_retain(gptq_session *s);
GPTQ_API void        GPTQ_CALL gptq_session_set_user(gptq_session *s, void *user);
GPTQ_API void       *GPTQ_CALL gptq_session_user(const gptq_session *s);
/* user_free gets the user pointer when the session is destroyed; a fork has neither. Since 0.2. */
GPTQ_API void        GPTQ_CALL gptq_session_set_user_free(gptq_session *s, gptq_user_free_fn user_free);
/* Append input; it is computed once the session is started. flags: GPTQ_TEXT_*; n_tokens (may be NULL): how many it
 * was.
 * Errors: CONTEXT_FULL, INVALID_STATE while running, TEXT, INVALID_ARGUMENT (a token out of range); nothing is appended
 * then. */
GPTQ_API gptq_status GPTQ_CALL gptq_session_append_text(gptq_session *s, const char *text, size_t size, uint32_t flags,
    size_t *n_tokens, gptq_error *err);
GPTQ_API gptq_status GPTQ_CALL gptq_session_append_tokens(gptq_session *s, const gptq_token *tokens, size_t n,
    gptq_error *err);
/* Makes the sequence that of a conversation: the model's chat template over the messages. Tokens the sequence already
 * begins with are kept with their KV cache, the rest is replaced: give the whole conversation each turn. Special tokens
 * count in the template only, in messages they are plain text. What a shortened conversation (GPTQ_CHAT_DROP_OLDEST)
 * needs anew is computed in the next steps, within their budgets, and is what a fresh session computes. n_tokens (may
 * be NULL): tokens of the whole.
 * Errors: TEMPLATE, TEXT, CONTEXT_FULL, INVALID_STATE. */
GPTQ_API gptq_status GPTQ_CALL gptq_session_set_chat(gptq_session *s, const gptq_chat *chat, size_t *n_tokens,
    gptq_error *err);
/* A text that what is generated is likely to begin with or to have parts of: the file that is to be edited, the page
 * that is to be quoted. With GPTQ_GEN_SPECULATE guesses come from it as from the sequence itself; nothing else changes.
 * It is kept as tokens (4 bytes each, of host_bytes_max) for all generations until the next call; text NULL: none.
 * flags: GPTQ_TEXT_PARSE_SPECIAL. Between any two steps, also while the session generates. Forks have it, saves do not.
 * Every token that is generated looks it through: a microsecond for some thousands of tokens.
 * Threads: as all of the engine.
 * Errors: INVALID_ARGUMENT, TEXT, OUT_OF_MEMORY, BUDGET_EXCEEDED; the session has its old one then. Since 0.2. */
GPTQ_API gptq_status GPTQ_CALL gptq_session_set_prediction(gptq_session *s, const char *text, size_t size,
    uint32_t flags, gptq_error *err);
/* Begins generating after what was appended; gptq_engine_step does the work. params NULL = greedy until the end token.
 * Unread output of an earlier start is dropped.
 * Errors: INVALID_STATE (running, or nothing to compute from), INVALID_ARGUMENT, UNSUPPORTED (GPTQ_GEN_MARKED). */
GPTQ_API gptq_status GPTQ_CALL gptq_session_start(gptq_session *s, const gptq_generate_params *params, gptq_error *err);
/* Moves unread output out: whole UTF-8 code points of text; token ids; logits rows [n_rows][n_vocab] that follow the
 * tokens at positions *first_position and on (with GPTQ_GEN_LOGITS; the session waits while all logits_rows are
 * unread). */
GPTQ_API gptq_status GPTQ_CALL gptq_session_read(gptq_session *s, char *buf, size_t cap, size_t *size);
GPTQ_API gptq_status GPTQ_CALL gptq_session_read_tokens(gptq_session *s, gptq_token *buf, size_t cap, size_t *n);
GPTQ_API gptq_status GPTQ_CALL gptq_session_read_logits(gptq_session *s, float *out, size_t cap_floats,
    uint32_t *first_position, uint32_t *n_rows);
/* What a piece of the output is: text for the reader, thinking, or the call of a tool. */
enum { GPTQ_MARK_NONE = 0, GPTQ_MARK_ANSWER = 1, GPTQ_MARK_THINKING = 2, GPTQ_MARK_TOOL_CALL = 3 };
typedef struct gptq_marked {
  uint32_t struct_size; int32_t kind;        /* GPTQ_MARK_*; NONE: nothing can be read now */
  uint32_t call; uint32_t more;              /* of a TOOL_CALL: its number in this generation, from 0; more: 1 = the
                                              * next read goes on with its arguments */
  size_t size;                               /* bytes in buf */
  char name[128]; char id[64];               /* of a TOOL_CALL, NUL-terminated: the tool's name; the id that the
                                              * model gave the call, or "" */
} gptq_marked;
/* Moves the next unread piece of a generation with GPTQ_GEN_MARKED to buf: whole UTF-8 code points of answer or
 * thinking, or the arguments of a tool call, a JSON object. Read until kind is NONE. Answer and thinking come as they
 * are generated; a call comes when it is complete, so that what turns out to be none (no valid JSON, no name, cut by
 * the end) is answer instead, as it was written. Left out are the marks ("<think>", "<tool_call>", ...), what is around
 * the arguments of a call, and white space beside both. Within thinking no text is a call. Formats: the chat template
 * of the last gptq_session_set_chat, else the model's own, tells which: tool calls of Llama 3, Qwen 2.5 to 3.5, Hermes,
 * Granite 4, Mistral, DeepSeek V3 and R1, Kimi K2, GLM 4.5, Nemotron 3, Seed-OSS, MiniCPM 5, Functionary; thinking of
 * "<think>" and "[THINK]", also where the template has opened it. Arguments that are elements come as JSON: a value
 * that is JSON, but no string, as that, others as strings. gptq_session_read and gptq_session_read_tokens give the same
 * generation as ever, each from where it was read to. buf and *out are the caller's; allocates nothing. Forks and saves
 * go on where it was read to.
 * Threads: as all of the engine.
 * Errors: INVALID_ARGUMENT, STRUCT_VERSION, INVALID_STATE (without GPTQ_GEN_MARKED). Since 0.2. */
GPTQ_API gptq_status GPTQ_CALL gptq_session_read_marked(gptq_session *s, char *buf, size_t cap, gptq_marked *out);
/* From any thread: the session ends (GPTQ_STOP_CANCELLED) at the next cut of the work. */
GPTQ_API gptq_status GPTQ_CALL gptq_session_cancel(gptq_session *s);
GPTQ_API gptq_status GPTQ_CALL gptq_session_info_get(const gptq_session *s, gptq_session_info *out);
GPTQ_API gptq_status GPTQ_CALL gptq_session_tokens(const gptq_session *s, gptq_token *buf, size_t cap, size_t *needed);
/* Keeps the first n_tokens of the sequence and drops the rest (rewind), unread output of them too.
 * Errors: INVALID_STATE while running. */
GPTQ_API gptq_status GPTQ_CALL gptq_session_truncate(gptq_session *s, uint32_t n_tokens);
/* A second session that stands where s stands, in the same engine: tokens, sampler, random numbers, unread text and
 * tokens, and the generation in progress, which both go on with and with the same output until one is changed. Rows of
 * logits not yet read and the user pointer stay with s. The KV cache is shared: whoever first writes to a page the
 * other also holds takes a copy, of one page at most; a recurrent state is copied at once. Needs no memory;
 * gptq_engine_memory counts a shared page once. Sharing needs no fork: a started session takes over the whole pages of
 * any session of its engine that begins with the same tokens, except with GPTQ_GEN_LOGITS, with recurrent layers, with
 * rope that depends on the length, and with layers on a GPU. *out is the caller's: gptq_session_destroy, in any order.
 * Threads: as all of the engine.
 * Errors: INVALID_ARGUMENT, INVALID_STATE when max_sessions exist already. Since 0.1. */
GPTQ_API gptq_status GPTQ_CALL gptq_session_fork(const gptq_session *s, gptq_session **out, gptq_error *err);
/* What a save holds. REPLAY: tokens, sampler, random numbers, stop strings, the generation in progress, what was read
 * of it; 4 bytes a token, 352, the stop strings, the biases, the constraint's source and that of banned phrases
 * besides. The KV cache is computed again. FULL: the KV cache of the computed tokens too (kv_bytes_per_token each), and
 * the state of recurrent layers, as they are; of layers on GPUs too, whose number does not matter, but their kind. */
enum { GPTQ_SAVE_REPLAY = 0, GPTQ_SAVE_FULL = 1 };
/* Writes the session to buf, also while it is generating (not with GPTQ_GEN_LOGITS or a pooling: INVALID_STATE).
 * *needed is its size, also when cap suffices. Changes nothing, needs no memory. A batch that is half computed counts
 * as not begun.
 * Threads: as all of the engine.
 * Errors: INVALID_ARGUMENT, INVALID_STATE, BUFFER_TOO_SMALL, BACKEND, DEVICE_LOST. Since 0.1. */
GPTQ_API gptq_status GPTQ_CALL gptq_session_save(const gptq_session *s, int32_t kind, void *buf, size_t cap,
    size_t *needed, gptq_error *err);
/* Takes the next bytes of something that is written, some kilobytes at a time; another answer than 0 ends it with IO.
 * Called during the call only, in its thread; it must not call this engine. */
typedef int32_t (GPTQ_CALL *gptq_write_fn)(void *user, const void *bytes, size_t size);
/* The same, in pieces: nothing holds the whole save. Errors: those of gptq_session_save, IO. Since 0.2. */
GPTQ_API gptq_status GPTQ_CALL gptq_session_save_to(const gptq_session *s, int32_t kind, gptq_write_fn write,
    void *user, gptq_error *err);
/* Log-probabilities of the tokens at positions first to first + n - 1: natural logarithms of softmax of the logits as
 * the model gives them, before biases, temperature and what else samples; NaN where they were not asked for with
 * GPTQ_GEN_LOGPROBS, at position 0, and in a restored session. best: NULL or [n][best_logprobs], the best at each
 * position first.
 * Errors: INVALID_ARGUMENT. Since 0.2. */
typedef struct gptq_token_logprob { gptq_token token; float logprob; } gptq_token_logprob;
GPTQ_API gptq_status GPTQ_CALL gptq_session_logprobs(const gptq_session *s, uint32_t first, uint32_t n, float *chosen,
    gptq_token_logprob *best);
/* How likely each of n texts is behind an idle session that has tokens: the sum of its tokens' log-probabilities in
 * logprobs[i], how many they are in n_tokens[i] (may be NULL). The session stays as it is, but all its tokens are
 * computed. Needs one free session slot at least, takes as many as there are, and steps the engine.
 * Errors: INVALID_ARGUMENT, INVALID_STATE, TEXT, CONTEXT_FULL, KV_FULL, NUMERIC. Since 0.2. */
GPTQ_API gptq_status GPTQ_CALL gptq_score(gptq_session *s, const gptq_string *texts, size_t n, double *logprobs,
    uint32_t *n_tokens, gptq_error *err);

/* The vector of n_embd floats that a start with `pooling` made of the sequence, as soon as it ended with
 * GPTQ_STOP_PREFILLED and until the session is started again or tokens are taken away. It follows from the tokens and
 * the adapter alone, whatever else the steps computed. With GPTQ_POOL_MEAN all tokens are computed again at the start.
 * flags: GPTQ_EMBED_*. *needed is n_embd, also when cap suffices.
 * Errors: INVALID_ARGUMENT, INVALID_STATE (there is none), BUFFER_TOO_SMALL. Since 0.2. */
GPTQ_API gptq_status GPTQ_CALL gptq_session_embedding(const gptq_session *s, uint32_t flags, float *out, size_t cap,
    size_t *needed);
/* Embeddings of n texts, [n][n_embd]. A text becomes tokens as with GPTQ_TEXT_ADD_BOS; special tokens in it are plain
 * text. pooling 0: pooling and flags are those of gptq_model_info, and where the model's files do not say, the last
 * token's, normalized. Needs one free session slot at least, takes as many as there are, and steps the engine, sessions
 * that generate too. After an error some of out may be written.
 * Errors: INVALID_ARGUMENT (also a text without tokens), INVALID_STATE, TEXT, CONTEXT_FULL, KV_FULL, NUMERIC. Since
 * 0.2. */
GPTQ_API gptq_status GPTQ_CALL gptq_embed(gptq_engine *e, const gptq_string *texts, size_t n, int32_t pooling,
    uint32_t flags, float *out, gptq_error *err);

/* A new session that goes on where the saved one stood, running if that was: its tokens are computed again in the next
 * steps, within their budgets, and what follows is the same, in any process and with any number of threads.
 * GPTQ_REPLAYED instead of OK says that numbers may differ: other kernels, activations, KV type, context or devices
 * than when it was saved, layers on a GPU, or rope that depends on the length. A full save's KV cache is taken as it
 * is, unless numbers may differ or page_tokens does: then it is computed again too. All of a save is verified before
 * *out is set. *out is the caller's: gptq_session_destroy. Allocates for the call alone.
 * Errors: INVALID_ARGUMENT, FORMAT (no save, or cut off), CHECKSUM, UNSUPPORTED (another model, newer format),
 * CONTEXT_FULL, OUT_OF_MEMORY, NOT_FOUND (its adapter is not loaded), INVALID_STATE when max_sessions exist already,
 * KV_FULL (of a full save); engine and sessions are as before then. Since 0.1. */
GPTQ_API gptq_status GPTQ_CALL gptq_session_restore(gptq_engine *e, const void *bytes, size_t size, gptq_session **out,
    gptq_error *err);
/* The same from a file or through the host's IO; src and its callbacks are used during the call only.
 * Errors also: NOT_FOUND, IO. Since 0.2. */
GPTQ_API gptq_status GPTQ_CALL gptq_session_restore_from(gptq_engine *e, const gptq_source *src, gptq_session **out,
    gptq_error *err);

/* What a generated text must be, by kind:
 *   CHOICE        one of a JSON array of strings.
 *   REGEX         a text that the expression matches as a whole; what ECMAScript, Python and PCRE have in common,
 *                 without assertions about surroundings and references back. \d and \w are ASCII, \s is all white
 *                 space of ECMA-262, and . is anything but a line feed.
 *   JSON_SCHEMA   JSON that a schema (2020-12, older drafts' keywords too) allows, in any order of keys and with any
 *                 spaces inside, none around. References stay within the document. Formats count where $schema is
 *                 not 2019-09 or later.
 *   JSON_COMPACT  the same schemas, of the ways to write a value only the shortest: no white space outside strings,
 *                 no escape for a character that needs none, whole numbers as digits alone. Keys come in the order
 *                 in which the schema names them (what $ref, allOf, anyOf or oneOf before properties name comes
 *                 first) and before all that it does not name.
 *   GRAMMAR       GBNF, the grammars of llama.cpp, without left recursion and token literals (<think>).
 *   TAGS          any text until a trigger, then a tag, then any text again; for tool calls. The source is an
 *                 object: tags, an array of {"begin": "<tool_call>", "json_schema": {...}, "end": "</tool_call>"},
 *                 with json_compact, regex, grammar or choice instead of json_schema; without end the text ends with
 *                 what the tag holds. triggers, an array of texts; where it is left out, those of begin. Once one
 *                 has come, in whatever tokens, one of the begins that start with it must follow. at_least_one:
 *                 true: no end before a tag. stop_after_first: true: the end behind it. Special tokens count by
 *                 their text; within what a tag holds none comes. In free text all may come but tokens with a
 *                 trigger and something that may not follow it. No trigger may be in another, and no begin
 *                 be the beginning of another.
 *   BANNED        no constraint, but phrases for banned in gptq_generate_params: a JSON array of at most 1,000
 *                 strings of 256 bytes. */
enum { GPTQ_CONSTRAINT_CHOICE = 1, GPTQ_CONSTRAINT_REGEX = 2, GPTQ_CONSTRAINT_JSON_SCHEMA = 3,
       GPTQ_CONSTRAINT_GRAMMAR = 4, GPTQ_CONSTRAINT_TAGS = 5, GPTQ_CONSTRAINT_BANNED = 6,
       GPTQ_CONSTRAINT_JSON_COMPACT = 7 };
/* Makes a constraint for gptq_generate_params, for any number of generations at once. Tokens that would leave it are
 * never sampled, an end token only where the text may end; the generation ends with GPTQ_STOP_CONSTRAINT once nothing
 * may follow, and with TEXT where no token can express what must follow, with BUDGET_EXCEEDED where its next state
 * needs more memory than a constraint has. Stop strings, max_tokens and the context's end still count and may cut it.
 * Time and memory are bounded; the first call for a model makes a table of its tokens. Any thread.
 * Errors: INVALID_ARGUMENT (kind, or source: err->offset is the byte where an expression was refused, the message has
 * the JSON pointer; more states than the bound), TEXT (no tokenizer), OUT_OF_MEMORY, BUDGET_EXCEEDED. */
GPTQ_API gptq_status GPTQ_CALL gptq_constraint_compile(gptq_model *m, int32_t kind, const char *source, size_t size,
    gptq_constraint **out, gptq_error *err);
/* Any thread; running generations keep theirs. */
GPTQ_API void        GPTQ_CALL gptq_constraint_destroy(gptq_constraint *c);

typedef struct gptq_adapter_info {
  uint32_t struct_size; uint32_t rank;       /* the largest of its matrices */
  uint32_t n_matrices; uint32_t reserved;    /* of the model, that it changes */
  uint64_t host_bytes; uint64_t fingerprint; /* fingerprint: of the manifest, same for the same file */
} gptq_adapter_info;
/* Loads a .gptq-lora file (gptq-convert lora makes it of a PEFT folder) for sessions of this model's engines. Every
 * byte is verified before it is used. Its memory counts in host_bytes_max. Any thread. Release once; sessions that have
 * it keep it alive.
 * Errors: IO, FORMAT, CHECKSUM, UNSUPPORTED (made for another shape of model), OUT_OF_MEMORY, BUDGET_EXCEEDED. Since
 * 0.1. */
GPTQ_API gptq_status GPTQ_CALL gptq_adapter_load(gptq_model *m, const gptq_source *src, gptq_adapter **out,
    gptq_error *err);
GPTQ_API void        GPTQ_CALL gptq_adapter_release(gptq_adapter *a);
GPTQ_API gptq_status GPTQ_CALL gptq_adapter_info_get(const gptq_adapter *a, gptq_adapter_info *out);
/* The session computes with the adapter from now on, its changes multiplied by scale; a NULL: without any. At any time
 * between two steps, also while it generates (not with GPTQ_GEN_LOGITS: INVALID_STATE). What it is to compute follows
 * from its tokens and its adapter alone, so that tokens computed without it are computed again in the next steps; the
 * same adapter and scale again change nothing. Sessions with any adapters and without share steps, and none changes
 * another's bits. Forks and saves have it; for gptq_session_restore it must be loaded. Takes microseconds; memory only
 * where an adapter is wider than any before and than adapter_rank of the engine has reserved.
 * Threads: as all of the engine.
 * Errors: INVALID_ARGUMENT (of another model, scale not finite), INVALID_STATE, UNSUPPORTED (layers on a GPU),
 * OUT_OF_MEMORY, BUDGET_EXCEEDED. Since 0.1. */
GPTQ_API gptq_status GPTQ_CALL gptq_session_set_adapter(gptq_session *s, gptq_adapter *a, float scale, gptq_error *err);

/* ---- F. blocking convenience over D + E ---- */

/* Appends text (with BOS at the start of a sequence, special tokens parsed), starts, and steps the engine until this
 * session ends; on_text (may be NULL) gets the text as it comes; in it s may be cancelled, read and destroyed, and all
 * else of the engine used, but s not changed: INVALID_STATE. result may be NULL.
 * Errors: those of the calls it is made of; the session's own error if it ended by one. */
GPTQ_API gptq_status GPTQ_CALL gptq_generate(gptq_session *s, const char *text, size_t size,
    const gptq_generate_params *params, gptq_text_fn on_text, void *user, gptq_session_info *result, gptq_error *err);

/* ---- G. quantize ---- */

/* Which columns of a matrix are rounded first. GROUP_AWARE: the most important of a group, group after group; costs
 * inference nothing. ACT: the most important of all, groups formed along the way (desc_act); inference gathers its
 * inputs. */
enum { GPTQ_ORDER_GROUP_AWARE = 0, GPTQ_ORDER_NATURAL = 1, GPTQ_ORDER_ACT = 2 };
enum {
  GPTQ_QUANT_KEEP = 1,                       /* leave the matrix as it is */
  GPTQ_QUANT_ASYMMETRIC = 2,                 /* zero points */
  GPTQ_QUANT_STATIC_GROUPS = 4               /* with ORDER_ACT: groups as the columns stand */
};
typedef struct gptq_quantize_module {        /* how to quantize one matrix */
  uint32_t struct_size; uint32_t flags;      /* GPTQ_QUANT_* */
  const char *name; size_t name_size;        /* in: "layers.0.q|k|v|o|gate|up|down", "layers.0.experts.5.up" */
  uint32_t n; uint32_t k;                    /* in: outputs, inputs */
  uint32_t bits; int32_t group_size;         /* 2, 3, 4, 8 (0 = 4); inputs that share a scale (0 = 128, -1 = all) */
  int32_t order; uint32_t reserved;          /* GPTQ_ORDER_* */
  double damp;                               /* of the mean of the Hessian's diagonal; 0 = 0.01 */
} gptq_quantize_module;
typedef struct gptq_quantize_report {        /* what became of one matrix */
  uint32_t struct_size; uint32_t rounded;    /* rounded: to nearest, because no damping made the Hessian positive
                                              * definite */
  const char *name; size_t name_size;
  uint32_t n; uint32_t k; uint32_t bits; int32_t group_size;
  uint64_t n_tokens;                         /* its Hessian was made from */
  uint32_t dead_inputs; uint32_t all_tokens; /* inputs that were 0 for every token; 1: of an expert that fewer tokens
                                              * are routed to than 4 times its inputs; it was calibrated with the
                                              * tokens of all */
  double error;                              /* squared error of its output over the calibration tokens, as a part of
                                              * the squared output */
  double damp; double seconds;               /* damp: what it took */
} gptq_quantize_report;
/* Changes *module, which holds the job's settings; called once a matrix before anything is computed. Non-zero
 * cancels. */
typedef int32_t(GPTQ_CALL *gptq_quantize_module_fn)(void *user, gptq_quantize_module *module);
typedef void   (GPTQ_CALL *gptq_quantize_report_fn)(void *user, const gptq_quantize_report *report);
/* Writes one row of calibration tokens and returns how many, 0 = there are no more, negative = cancel. */
typedef int64_t(GPTQ_CALL *gptq_calibration_fn)(void *user, uint32_t row, gptq_token *out, size_t cap);

enum {
  GPTQ_QUANTIZE_REFERENCE = 1,               /* the algorithm as published, nothing more: for comparisons */
  GPTQ_QUANTIZE_REPLACE = 2,                 /* replace an existing file */
  GPTQ_QUANTIZE_AIM = 4                      /* aim at the original model's outputs (GPTAQ, Li et al. 2025): closer
                                              * to it, in about twice the time; not with REFERENCE. Since 0.2 */
};
typedef struct gptq_quantize_params {        /* all-zero = 4 bits, group_size 128, symmetric, text sampled from the
                                              * model */
  uint32_t struct_size; uint32_t flags; const gptq_ext *next;
  gptq_quantize_module defaults;             /* of every matrix of the layers; struct_size, name, n and k are not
                                              * read */
  uint32_t head_bits; int32_t head_group_size;              /* of the head (a tied embedding serves as one): 0,
                                                             * 16 = as it is; 4 or 8 */
  /* Calibration data: text, tokens or a callback; text and tokens are cut into rows. None: the model samples its own
   * text. */
  const char *text; size_t text_size;
  const gptq_token *tokens; size_t n_tokens;
  gptq_calibration_fn calibration; void *calibration_user;
  uint32_t rows; uint32_t row_tokens;        /* most rows, tokens of a row; 0 = 128 and 2048, or less if the model's
                                              * context is shorter */
  gptq_quantize_module_fn module; void *module_user;        /* may be NULL, like all callbacks */
  gptq_quantize_report_fn report; void *report_user;
  gptq_progress_fn progress; void *progress_user;           /* phases SAMPLE, MEASURE (with a budget) and QUANTIZE */
  double first_token_weight;                 /* how many tokens the first of a row counts for: attention leans on it;
                                              * 0 = 32 */
  /* A budget instead of defaults.bits; at most one of the two, 0 = none. What rounding a matrix costs the model's
   * predictions is measured, and bits are given where they help most; the group size is chosen as well if
   * defaults.group_size is 0. Matrices that module gives settings of its own keep them; those that read the same input
   * (q, k, v; gate, up) get the same. Since 0.2. */
  uint64_t file_bytes_max;                   /* of the whole file; the head is chosen too if head_bits is 0, and kept
                                              * as it is if 16 */
  double bits_per_weight;                    /* mean over the layers' matrices, with their scales: 3.5 */
} gptq_quantize_params;
typedef struct gptq_quantize_estimate {
  uint32_t struct_size; uint32_t n_modules;
  uint64_t file_bytes; uint64_t work_bytes;  /* of the result; of the folder beside it while the job runs */
  uint64_t host_bytes; double seconds;       /* most memory held; time on this machine, both about */
} gptq_quantize_estimate;

/* Makes a .gptq file with 2, 3, 4 or 8 bit weights from one with 16 or 32 bit weights: GPTQ (Frantar et al. 2022), one
 * layer in memory at a time. Blocks for minutes to hours. The file at path appears whole or not at all. What is done
 * lies in the folder "<path>.work" until then: after a cancel, a failure or a crash the same call goes on from there,
 * and the result is the same byte for byte. host_bytes_max of the runtime is kept to: activations go to a file in that
 * folder if they must. Callbacks run on the calling thread. Scales and tokenizer are stored as they are; gptq-convert
 * compresses them, its files are about 1 % smaller.
 * Errors: INVALID_ARGUMENT, IO, FORMAT, CHECKSUM, UNSUPPORTED (a matrix is quantized already), INVALID_STATE (another
 * process works on the same path), TEXT (no tokenizer), NUMERIC (NaN or infinity on the way through the model),
 * OUT_OF_MEMORY, BUDGET_EXCEEDED, CANCELLED. */
GPTQ_API gptq_status GPTQ_CALL gptq_quantize(gptq_runtime *rt, const gptq_source *src, const char *path,
    size_t path_size, const gptq_quantize_params *params, gptq_error *err);
/* What that call would take. Of calibration data only rows and row_tokens count. */
GPTQ_API gptq_status GPTQ_CALL gptq_quantize_estimate_get(gptq_runtime *rt, const gptq_source *src,
    const gptq_quantize_params *params, gptq_quantize_estimate *out, gptq_error *err);

#ifdef __cplusplus
}
#endif
#endif
