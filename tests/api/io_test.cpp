// SPDX-License-Identifier: Apache-2.0
// Where a model is read from, and everything that can go wrong there.
#include <cerrno>
#include <cstring>
#include <fstream>

#include "tests/api/fixture.h"

namespace gptq::test {
namespace {

// Host IO over bytes, with faults.
struct Disk {
  const Bytes& bytes;
  int64_t size_is = -1;    // what size() says instead
  size_t most = SIZE_MAX;  // bytes of a read
  int error = 0;           // of read number error_at
  int64_t error_at = -1;
  bool error_stays = false, ends_early = false, reads_too_much = false;
  int64_t reads = 0;

  gptq_io io() {
    auto io = make<gptq_io>();
    io.user = this;
    io.size = [](void* user) -> int64_t {
      const Disk& d = *static_cast<Disk*>(user);
      return d.size_is >= 0 || d.size_is < -1 ? d.size_is : static_cast<int64_t>(d.bytes.size());
    };
    io.read_at = [](void* user, uint64_t offset, void* dst, size_t size) -> int64_t {
      return static_cast<Disk*>(user)->read(offset, dst, size);
    };
    return io;
  }
  int64_t read(uint64_t offset, void* dst, size_t size) {
    const int64_t number = reads++;
    if (error && (number == error_at || (error_stays && number > error_at))) return -error;
    if (ends_early) return 0;
    if (reads_too_much) return static_cast<int64_t>(size) + 1;
    const size_t n = offset < bytes.size() ? std::min({size, bytes.size() - offset, most}) : 0;
    std::memcpy(dst, bytes.data() + offset, n);
    return static_cast<int64_t>(n);
  }
};

class Loading : public testing::Test {
 protected:
  gptq_status load(const gptq_source& source) {
    gptq_model* m = nullptr;
    err_ = make<gptq_error>();
    const gptq_status status = gptq_model_load_from(rt_.get(), &source, nullptr, &m, &err_);
    EXPECT_EQ(status == GPTQ_OK, m != nullptr);
    EXPECT_EQ(status < 0, err_.message[0] != 0);
    gptq_model_release(m);
    return status;
  }
  gptq_status load(const Bytes& bytes, uint64_t offset = 0, uint64_t size = 0) {
    auto source = make<gptq_source>();
    source.data = bytes.data(), source.data_size = bytes.size();
    source.offset = offset, source.size = size;
    return load(source);
  }
  gptq_status load(Disk disk) {
    const gptq_io io = disk.io();
    auto source = make<gptq_source>();
    source.io = &io;
    const gptq_status status = load(source);
    reads_ = disk.reads;
    return status;
  }
  void TearDown() override { EXPECT_EQ(host_.live, at_first_); }

  Host host_;
  Runtime rt_{host_.desc(1)};
  const int64_t at_first_ = host_.live;
  gptq_error err_;
  int64_t reads_ = 0;
};

TEST_F(Loading, FromEverywhereIsTheSameModel) {
  const Bytes bytes = read_bytes(tiny_model());
  Bytes pak(1000, std::byte{1});
  pak.insert(pak.end(), bytes.begin(), bytes.end());
  pak.insert(pak.end(), 77, std::byte{2});
  EXPECT_EQ(load(bytes), GPTQ_OK);
  EXPECT_EQ(load(pak, 1000, bytes.size()), GPTQ_OK);
  EXPECT_EQ(load(Disk{.bytes = bytes}), GPTQ_OK);
  EXPECT_EQ(load(Disk{.bytes = bytes, .most = 1}), GPTQ_OK) << "short reads go on";
  auto source = make<gptq_source>();
  source.path = tiny_model().c_str(), source.path_size = tiny_model().size();
  EXPECT_EQ(load(source), GPTQ_OK);
}

TEST_F(Loading, RefusesWrongSources) {
  const Bytes bytes = read_bytes(tiny_model());
  EXPECT_EQ(load(make<gptq_source>()), GPTQ_E_INVALID_ARGUMENT);
  auto two = make<gptq_source>();
  two.path = "x", two.path_size = 1, two.data = bytes.data(), two.data_size = bytes.size();
  EXPECT_EQ(load(two), GPTQ_E_INVALID_ARGUMENT);
  EXPECT_LT(load(bytes, bytes.size() + 1), 0);
  EXPECT_LT(load(bytes, UINT64_MAX, 64), 0);
  EXPECT_LT(load(bytes, 8, UINT64_MAX), 0);
  auto missing = make<gptq_source>();
  missing.path = "/no/such/file.gptq", missing.path_size = GPTQ_NTS;
  EXPECT_EQ(load(missing), GPTQ_E_NOT_FOUND);
  EXPECT_EQ(err_.os_code, ENOENT);
  missing.path = "/";
  EXPECT_EQ(load(missing), GPTQ_E_IO);
  const std::string hidden = tiny_model() + '\0' + "x";
  missing.path = hidden.data(), missing.path_size = hidden.size();
  EXPECT_EQ(load(missing), GPTQ_E_INVALID_ARGUMENT);
}

TEST_F(Loading, HostErrorsComeBack) {
  const Bytes bytes = read_bytes(tiny_model());
  ASSERT_EQ(load(Disk{.bytes = bytes}), GPTQ_OK);
  const int64_t reads = reads_;
  for (int64_t at = 0; at < reads; ++at) {
    EXPECT_EQ(load(Disk{.bytes = bytes, .error = EIO, .error_at = at}), GPTQ_E_IO) << at;
    EXPECT_EQ(err_.os_code, EIO);
    EXPECT_EQ(load(Disk{.bytes = bytes, .error = EINTR, .error_at = at}), GPTQ_OK) << at;
  }
  EXPECT_EQ(load(Disk{.bytes = bytes, .ends_early = true}), GPTQ_E_IO);
  EXPECT_EQ(load(Disk{.bytes = bytes, .reads_too_much = true}), GPTQ_E_IO);
  EXPECT_EQ(load(Disk{.bytes = bytes, .size_is = -EACCES}), GPTQ_E_IO);
  EXPECT_LT(load(Disk{.bytes = bytes, .size_is = 0}), 0);
  EXPECT_LT(load(Disk{.bytes = bytes, .size_is = INT64_MAX}), 0);
}

TEST_F(Loading, EveryTruncationIsRefused) {
  const Bytes bytes = read_bytes(tiny_model());
#ifdef GPTQ_SANITIZED
  constexpr size_t stride = 7;
#else
  constexpr size_t stride = 1;
#endif
  for (size_t size = 0; size < bytes.size(); size += stride)
    ASSERT_LT(load(Bytes(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size))), 0) << size;
  Bytes longer = bytes;
  longer.push_back(std::byte{0});
  EXPECT_LT(load(longer), 0);
}

TEST_F(Loading, EveryDamagedByteIsNoticed) {
  Bytes bytes = read_bytes(tiny_model());
#ifdef GPTQ_SANITIZED
  constexpr size_t stride = 7;
#else
  constexpr size_t stride = 1;
#endif
  for (size_t at = 0; at < bytes.size(); at += stride) {
    const std::byte was = bytes[at];
    bytes[at] ^= std::byte(1u << at % 8);
    ASSERT_LT(load(bytes), 0) << "byte " << at;
    bytes[at] = ~was;
    ASSERT_LT(load(bytes), 0) << "byte " << at;
    bytes[at] = was;
  }
}

TEST_F(Loading, CanBeCancelled) {
  const auto cancel_at = [&](uint32_t permille) {
    auto params = make<gptq_model_params>();
    params.progress_user = &permille;
    params.progress = [](void* user, uint32_t phase, uint32_t now) -> int32_t {
      EXPECT_EQ(phase, uint32_t(GPTQ_PHASE_LOAD));
      EXPECT_LE(now, 1000u);
      return now >= *static_cast<uint32_t*>(user);
    };
    gptq_model* m = nullptr;
    const gptq_status status = gptq_model_load(rt_.get(), text_model().c_str(), GPTQ_NTS, &params, &m, nullptr);
    gptq_model_release(m);
    return status;
  };
  EXPECT_EQ(cancel_at(0), GPTQ_E_CANCELLED);
  EXPECT_EQ(cancel_at(1001), GPTQ_OK);
}

}  // namespace
}  // namespace gptq::test
