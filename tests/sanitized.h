// SPDX-License-Identifier: Apache-2.0
// GPTQ_SANITIZED where the address or thread sanitizer watches: that takes ten times as long, so the longest tests do less there.
#pragma once
#include <cstdint>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define GPTQ_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define GPTQ_SANITIZED 1
#endif
#endif

namespace gptq::test {

// Of many cases that are alike, one in so many is enough there.
constexpr bool is_left_out([[maybe_unused]] uint32_t number, [[maybe_unused]] uint32_t one_in) {
#ifdef GPTQ_SANITIZED
  return number % one_in != 0;
#else
  return false;
#endif
}

// How many of a test's cases there are: the second under a sanitizer.
constexpr uint32_t cases_here(uint32_t all, [[maybe_unused]] uint32_t sanitized) {
#ifdef GPTQ_SANITIZED
  return sanitized;
#else
  return all;
#endif
}

}  // namespace gptq::test
