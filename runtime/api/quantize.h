// SPDX-License-Identifier: Apache-2.0
// gptq_quantize with what the library has not got: for gptq-convert.
#pragma once
#include "format/container.h"
#include "gptq/gptq.h"

namespace gptq::api {

// zstd: for what comes with the codes; NULL = stored.
gptq_status quantize_file(gptq_runtime* rt, const gptq_source* src, const char* path, size_t path_size, const gptq_quantize_params* params,
                          format::MakeFrame zstd, gptq_error* err);

}  // namespace gptq::api
