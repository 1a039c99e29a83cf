#pragma once
#include "text/constraint/grammar.h"
namespace gptq::text::constraint { struct SchemaMachine : Machine { SchemaMachine(std::string_view, std::pmr::memory_resource* m) : Machine(2, m) {} uint32_t start() override { return 0; } bool accepting(uint32_t) override { return false; } uint32_t find(uint32_t, uint8_t) override { return 0; } }; }
