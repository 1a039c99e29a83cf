// SPDX-License-Identifier: Apache-2.0
// GPTQ_SANITIZED where the address or thread sanitizer watches: that takes ten times as long, so the longest tests do less there.
#pragma once

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define GPTQ_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define GPTQ_SANITIZED 1
#endif
#endif
