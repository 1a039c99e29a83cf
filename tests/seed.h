// SPDX-License-Identifier: Apache-2.0
// Seeds of random tests: fixed ones, so that a failure comes back, or other ones that GPTQ_TEST_SEED gives, which every failure names.
#pragma once
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <random>
#include <string>

namespace gptq::test {

inline std::optional<uint32_t> seed_of_environment() {
  const char* text = std::getenv("GPTQ_TEST_SEED");
  return text && *text ? std::optional(static_cast<uint32_t>(std::strtoul(text, nullptr, 10))) : std::nullopt;
}

// usual: the test's own, which it has where the environment says nothing. What was used is in the test's record.
inline uint32_t seed(uint32_t usual) {
  const auto given = seed_of_environment();
  const uint32_t used = given ? usual * 0x9E3779B1u ^ *given * 0x85EBCA6Bu : usual;
  if (given) testing::Test::RecordProperty("GPTQ_TEST_SEED", std::to_string(*given));
  return used;
}

// Prints the seed before the first test.
struct SeedPrinter : testing::Environment {
  void SetUp() override {
    if (const auto given = seed_of_environment()) std::printf("GPTQ_TEST_SEED=%u\n", *given);
    else std::printf("GPTQ_TEST_SEED is not set: the usual seeds\n");
  }
};

inline testing::Environment* const seed_printer = testing::AddGlobalTestEnvironment(new SeedPrinter);

}  // namespace gptq::test
