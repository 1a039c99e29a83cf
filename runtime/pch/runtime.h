// SPDX-License-Identifier: Apache-2.0
// Precompiled for the library: what takes longest to read. Every file still includes what it needs.
#include <flatbuffers/flatbuffers.h>

#include <algorithm>
#include <condition_variable>
#include <functional>
#include <memory_resource>
#include <span>
#include <thread>
