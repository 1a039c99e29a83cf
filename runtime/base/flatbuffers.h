// SPDX-License-Identifier: Apache-2.0
// FlatBuffers without its asserts: a bad buffer is refused by the verifier, never by abort().
#pragma once
#ifndef FLATBUFFERS_ASSERT
#define FLATBUFFERS_ASSERT(condition) ((void)0)
#endif
#include <flatbuffers/flatbuffers.h>
