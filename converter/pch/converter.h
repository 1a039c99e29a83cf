// SPDX-License-Identifier: Apache-2.0
// Precompiled for the converter: what takes longest to read. Every file still includes what it needs.
#include <simdjson.h>

#include <condition_variable>
#include <filesystem>
#include <flatbuffers/flatbuffers.h>
#include <functional>
#include <memory_resource>
#include <thread>
