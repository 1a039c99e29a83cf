// SPDX-License-Identifier: Apache-2.0
// Precompiled for the tests: what takes longest to read. Every file still includes what it needs.
#include <gtest/gtest.h>

#include <fstream>
#include <memory_resource>
#include <random>
