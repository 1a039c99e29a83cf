// SPDX-License-Identifier: Apache-2.0
// Arguments of quantizing and of devices that cannot be right: each has its status and its words, before anything is written.
#include <cstring>
#include <functional>
#include <limits>

#include "tests/api/fixture.h"
#include "tests/api/quantize_job.h"

namespace gptq::test {
namespace {

struct QuantizeRow {
  const char* words;
  std::function<void(Job&)> change;
  gptq_status status = GPTQ_E_INVALID_ARGUMENT;
};

const QuantizeRow quantize_rows[] = {
    {"unknown flags in gptq_quantize_params", [](Job& job) { job.params.flags = 1u << 20; }},
    {"the published algorithm does not aim", [](Job& job) { job.params.flags = GPTQ_QUANTIZE_REFERENCE | GPTQ_QUANTIZE_AIM; }},
    {"head_bits must be 0, 4, 8 or 16", [](Job& job) { job.params.head_bits = 3; }},
    {"head_group_size must be -1 or above 0", [](Job& job) { job.params.head_group_size = -2; }},
    {"first_token_weight must be within 0 and a million", [](Job& job) { job.params.first_token_weight = -1; }},
    {"first_token_weight must be within 0 and a million", [](Job& job) { job.params.first_token_weight = std::numeric_limits<float>::quiet_NaN(); }},
    {"give file_bytes_max or bits_per_weight, not both", [](Job& job) { job.params.file_bytes_max = 1, job.params.bits_per_weight = 4; }},
    {"bits_per_weight must be within 2 and 16", [](Job& job) { job.params.bits_per_weight = 1.5; }},
    {"bits_per_weight must be within 2 and 16", [](Job& job) { job.params.bits_per_weight = 17; }},
    {"unknown flags in gptq_quantize_module", [](Job& job) { job.params.defaults.flags = 1u << 20; }},
    {"bits must be 2, 3, 4 or 8", [](Job& job) { job.params.defaults.bits = 6; }},
    {"group_size must be -1 or above 0", [](Job& job) { job.params.defaults.group_size = -2; }},
    {"unknown order", [](Job& job) { job.params.defaults.order = GPTQ_ORDER_ACT + 1; }},
    {"unknown order", [](Job& job) { job.params.defaults.order = GPTQ_ORDER_GROUP_AWARE - 1; }},
    {"damp must be within 0 and 1", [](Job& job) { job.params.defaults.damp = 1.5f; }},
    {"damp must be within 0 and 1", [](Job& job) { job.params.defaults.damp = std::numeric_limits<float>::quiet_NaN(); }},
    {"bits must be 2, 3, 4 or 8", [](Job& job) { job.on_module = [](gptq_quantize_module& m) { m.bits = 7; }; }},
    {"rows and row_tokens are at most 1048576", [](Job& job) { job.params.rows = (1u << 20) + 1; }},
    {"rows and row_tokens are at most 1048576", [](Job& job) { job.params.row_tokens = (1u << 20) + 1; }},
    {"give one of text, tokens and calibration", [](Job& job) { job.params.text = "x", job.params.text_size = 1; }},
    {"the calibration callback cancelled", [](Job& job) {
       job.params.tokens = nullptr;
       job.params.calibration = [](void*, uint32_t, gptq_token*, size_t) -> int64_t { return -1; };
     }, GPTQ_E_CANCELLED},
    {"more tokens than there was room for", [](Job& job) {
       job.params.tokens = nullptr;
       job.params.calibration = [](void*, uint32_t, gptq_token*, size_t n) { return static_cast<int64_t>(n) + 1; };
     }},
    {"the calibration callback gave no tokens", [](Job& job) {
       job.params.tokens = nullptr;
       job.params.calibration = [](void*, uint32_t, gptq_token*, size_t) -> int64_t { return 0; };
     }},
    {"row_tokens must be at least 2", [](Job& job) { job.params.tokens = nullptr, job.params.row_tokens = 1; }},
    {"quantizing was cancelled", [](Job& job) { job.params.module = [](void*, gptq_quantize_module*) { return 1; }; }, GPTQ_E_CANCELLED},
    {"sampling was cancelled", [](Job& job) {
       job.params.tokens = nullptr, job.params.rows = 4096, job.params.row_tokens = 128;
       job.on_progress = [](uint32_t) { return 1; };
     }, GPTQ_E_CANCELLED},
};

TEST(Arguments, OfQuantizing) {
  for (const QuantizeRow& row : quantize_rows) {
    const Target target;
    Job job;
    row.change(job);
    std::string message;
    EXPECT_EQ(job.run(dense_model(), target.path(), 1, 0, &message), row.status) << row.words;
    EXPECT_NE(message.find(row.words), std::string::npos) << message << "\nwanted: " << row.words;
    EXPECT_EQ(target.entries(), 0u) << row.words;
  }
}

TEST(Arguments, OfQuantizingsPath) {
  const Runtime runtime(with_threads(1));
  auto from = make<gptq_source>();
  from.path = dense_model().c_str();
  from.path_size = GPTQ_NTS;
  const Job job;
  const auto refused = [&](const gptq_source* source, const char* path, size_t size, const char* words) {
    auto error = make<gptq_error>();
    EXPECT_EQ(gptq_quantize(runtime.get(), source, path, size, &job.params, &error), GPTQ_E_INVALID_ARGUMENT);
    EXPECT_NE(std::string(error.message).find(words), std::string::npos) << error.message;
  };
  refused(nullptr, "x", 1, "must not be NULL");
  refused(&from, nullptr, 1, "must not be NULL");
  refused(&from, "", 0, "path is empty or has a NUL in it");
  refused(&from, "a\0b", 3, "path is empty or has a NUL in it");
  auto error = make<gptq_error>();
  EXPECT_EQ(gptq_quantize_estimate_get(runtime.get(), &from, &job.params, nullptr, &error), GPTQ_E_INVALID_ARGUMENT);
  EXPECT_STREQ(error.message, "rt, src and out must not be NULL");
}

struct DeviceRow {
  const char* words;
  std::function<void(gptq_model_params&, std::vector<gptq_device_share>&)> change;
  gptq_status status = GPTQ_E_INVALID_ARGUMENT;
};

const DeviceRow device_rows[] = {
    {"unknown flags in gptq_model_params", [](auto& p, auto&) { p.flags = 1; }},
    {"unknown flags in gptq_model_params", [](auto& p, auto&) { p.reserved = 1; }},
    {"unknown device_kind", [](auto& p, auto&) { p.device_kind = 77; }},
    {"unknown device_kind", [](auto& p, auto&) { p.device_kind = -1; }},
    {"device_ordinal is negative", [](auto& p, auto&) { p.device_ordinal = -1; }},
    {"devices is NULL", [](auto& p, auto&) { p.n_devices = 1; }},
    {"n_devices is above 16", [](auto&, auto& shares) { shares.resize(17, shares[0]); }},
    {"devices and device_kind exclude each other", [](auto& p, auto& shares) { p.device_kind = GPTQ_DEVICE_CPU, shares.resize(1); }},
    {"devices and device_kind exclude each other", [](auto& p, auto& shares) { p.device_bytes_max = 1, shares.resize(1); }},
    {"unknown kind of device", [](auto&, auto& shares) { shares[0].kind = 77; }},
    {"a device's ordinal is negative", [](auto&, auto& shares) { shares[0].ordinal = -1; }},
    {"unknown flags in gptq_device_share", [](auto&, auto& shares) { shares[0].flags = 1; }},
    {"unknown flags in gptq_device_share", [](auto&, auto& shares) { shares[0].reserved = 1; }},
    {"a device is named twice", [](auto&, auto& shares) { shares.resize(2, shares[0]); }},
    {"no backend for the device is loaded", [](auto&, auto& shares) { shares[0].kind = GPTQ_DEVICE_CUDA; }, GPTQ_E_BACKEND},
    {"no backend for the device is loaded", [](auto& p, auto&) { p.device_kind = GPTQ_DEVICE_CUDA; }, GPTQ_E_BACKEND},
};

TEST(Arguments, OfDevices) {
  const Runtime runtime(with_threads(1));
  for (const DeviceRow& row : device_rows) {
    auto params = make<gptq_model_params>();
    auto cpu = make<gptq_device_share>();
    cpu.kind = GPTQ_DEVICE_CPU;
    std::vector<gptq_device_share> shares{cpu};
    const gptq_device_share before = cpu;
    row.change(params, shares);
    std::vector<const gptq_device_share*> list;
    for (const gptq_device_share& share : shares) list.push_back(&share);
    // A row of the model's own fields has no list, except where both are what is wrong.
    const bool of_list = shares.size() > 1 || std::memcmp(&shares[0], &before, sizeof before) != 0 || std::string_view(row.words).starts_with("devices and");
    if (of_list) params.devices = list.data(), params.n_devices = static_cast<uint32_t>(list.size());
    gptq_model* model = nullptr;
    auto error = make<gptq_error>();
    EXPECT_EQ(gptq_model_load(runtime.get(), text_model().c_str(), GPTQ_NTS, &params, &model, &error), row.status) << row.words;
    EXPECT_NE(std::string(error.message).find(row.words), std::string::npos) << error.message << "\nwanted: " << row.words;
    EXPECT_EQ(model, nullptr) << row.words;
  }
  // A list with nothing at a place.
  auto params = make<gptq_model_params>();
  const gptq_device_share* none[] = {nullptr};
  params.devices = none;
  params.n_devices = 1;
  gptq_model* model = nullptr;
  auto error = make<gptq_error>();
  EXPECT_EQ(gptq_model_load(runtime.get(), text_model().c_str(), GPTQ_NTS, &params, &model, &error), GPTQ_E_INVALID_ARGUMENT);
  EXPECT_STREQ(error.message, "a device is NULL");
}

}  // namespace
}  // namespace gptq::test
