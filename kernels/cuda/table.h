// SPDX-License-Identifier: Apache-2.0
// The table of kernels/gpu/backend.h, of the functions that stand where this is used: the CUDA backend's, and those of the emulated one that
// tests put in its place. They have the table's names; operations go through operation<Args, op>.
#pragma once
#include "kernels/cuda/ops.h"
#include "kernels/gpu/backend.h"

#define GPTQ_CUDA_TABLE_OP(op, Args) .op = operation<Args, op>,
#define GPTQ_CUDA_TABLE                                                                                                                   \
  {                                                                                                                                       \
    .version = backend_version, .kind = 2, .name = "cuda", .describe = describe, .open = open, .close = close, .bytes_free = bytes_free,  \
    .n_processors = n_processors, .allocate = allocate, .release = release, .allocate_host = allocate_host, .release_host = release_host, \
    .copy_in = copy_in, .copy_out = copy_out, .copy = copy, .clear = clear, .reaches = reaches, .wait_for = wait_for,                     \
    .copy_across = copy_across, .finish = finish, .mark = mark, .wait_for_mark = wait_for_mark, .record_begin = record_begin,             \
    .record_end = record_end, .replay = replay, .release_graph = release_graph, .copy_bandwidth = copy_bandwidth,                         \
    .matmul_workspace = workspace_of_matmul, .attention_workspace = attention_workspace, .library_version = library_version,              \
    GPTQ_GPU_OPS(GPTQ_CUDA_TABLE_OP)                                                                                                      \
  }
