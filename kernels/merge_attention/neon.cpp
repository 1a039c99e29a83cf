// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/merge.h"

namespace gptq::kernels {

void merge_attention_neon(const MergeAttentionArgs& a) { merge_partials(a); }

}  // namespace gptq::kernels
