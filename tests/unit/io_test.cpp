// SPDX-License-Identifier: Apache-2.0
// Files appear whole or not at all, and never over one that should stay.
#include <gtest/gtest.h>

#include "base/failure.h"
#include "tests/unit/tiny_model.h"

namespace gptq::test {
namespace {

using base::AtomicFile;
using IfExists = AtomicFile::IfExists;

Bytes bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

gptq_status write(const std::string& path, IfExists if_exists, std::string_view text, bool commit = true) {
  try {
    AtomicFile file(path, if_exists);
    file.append(bytes_of("____"));
    file.append(bytes_of(text));
    file.write_at(0, bytes_of("head"));
    EXPECT_TRUE(std::filesystem::exists(AtomicFile::temporary_path(path)));
    if (commit) file.commit();
    return GPTQ_OK;
  } catch (const base::Failure& failure) {
    return failure.detail.status;
  }
}

TEST(AtomicFile, WholeOrNotAtAll) {
  const TemporaryPath path("atomic");
  EXPECT_EQ(write(path.get(), IfExists::refuse, " one", false), GPTQ_OK);
  EXPECT_FALSE(std::filesystem::exists(path.get()));
  EXPECT_EQ(write(path.get(), IfExists::refuse, " one"), GPTQ_OK);
  EXPECT_EQ(read_file(path.get()), bytes_of("head one"));
  EXPECT_EQ(write(path.get(), IfExists::refuse, " two"), GPTQ_E_IO);
  EXPECT_EQ(read_file(path.get()), bytes_of("head one"));
  EXPECT_EQ(write(path.get(), IfExists::replace, " two"), GPTQ_OK);
  EXPECT_EQ(read_file(path.get()), bytes_of("head two"));
  EXPECT_FALSE(std::filesystem::exists(AtomicFile::temporary_path(path.get())));
}

// The other file comes into being while this one is written.
TEST(AtomicFile, LateArrivalIsNotReplaced) {
  const TemporaryPath path("late");
  AtomicFile file(path.get(), IfExists::refuse);
  file.append(bytes_of("mine"));
  write_file(path.get(), bytes_of("theirs"));
  EXPECT_THROW(file.commit(), base::Failure);
  EXPECT_EQ(read_file(path.get()), bytes_of("theirs"));
}

// No device, socket, folder or link, whatever it leads to.
TEST(AtomicFile, OnlyRegularFilesAreReplaced) {
  const TemporaryPath path("link"), file("linked");
  write_file(file.get(), bytes_of("kept"));
  for (const std::string& target : {std::string("/dev/null"), file.get(), std::string("nowhere")})
    for (const IfExists how : {IfExists::replace, IfExists::refuse}) {
      std::filesystem::create_symlink(target, path.get());
      EXPECT_EQ(write(path.get(), how, ""), GPTQ_E_IO) << target;
      EXPECT_TRUE(std::filesystem::is_symlink(path.get())) << target;
      std::filesystem::remove(path.get());
    }
  EXPECT_EQ(read_file(file.get()), bytes_of("kept"));
  EXPECT_EQ(write(std::filesystem::temp_directory_path().string(), IfExists::replace, ""), GPTQ_E_IO);
}

// What a killed process of the same number left is written over; what somebody is writing is not.
TEST(AtomicFile, LeftoversAreNoObstacle) {
  const TemporaryPath path("leftover");
  write_file(AtomicFile::temporary_path(path.get()), bytes_of("of a process that was killed"));
  EXPECT_EQ(write(path.get(), IfExists::refuse, " new"), GPTQ_OK);
  EXPECT_EQ(read_file(path.get()), bytes_of("head new"));
  AtomicFile mine(path.get(), IfExists::replace);
  mine.append(bytes_of("mine"));
  EXPECT_EQ(write(path.get(), IfExists::replace, " other"), GPTQ_E_IO);
  mine.commit();
  EXPECT_EQ(read_file(path.get()), bytes_of("mine"));
}

// What killed processes of other numbers left goes with the next file of that name, and nothing else does.
TEST(AtomicFile, LeftoversGo) {
  const TemporaryPath path("leftovers");
  const std::string left = path.get() + ".part-999999999", held = path.get() + ".part-999999998", named = path.get() + ".part-99a",
                    linked = path.get() + ".part-999999997", other = path.get() + "2.part-999999999";
  for (const std::string& name : {left, held, named, other}) write_file(name, bytes_of("left"));
  std::filesystem::create_symlink(other, linked);
  base::os::File writer(held, base::os::Open::read_write);
  ASSERT_TRUE(writer.lock());
  EXPECT_EQ(write(path.get(), IfExists::refuse, " new"), GPTQ_OK);
  EXPECT_FALSE(std::filesystem::exists(left));
  for (const std::string& name : {held, named, other, linked}) EXPECT_TRUE(std::filesystem::remove(name)) << name;
}

TEST(FileSource, RefusesWhatIsNoFile) {
  const auto status = [](const std::string& path) {
    try {
      const base::FileSource source(path);
      return GPTQ_OK + 0;
    } catch (const base::Failure& failure) {
      return failure.detail.status;
    }
  };
  EXPECT_EQ(status("/nonexistent/file"), GPTQ_E_NOT_FOUND);
  EXPECT_EQ(status("/"), GPTQ_E_IO);
  EXPECT_EQ(status("/dev/null"), GPTQ_E_IO);
}

TEST(Sources, ReadsBeyondTheEndFail) {
  const Bytes data = bytes_of("0123456789");
  const base::MemorySource memory(data);
  const base::SubSource part(memory, 2, 5);
  Bytes out(3);
  part.read_at(2, out);
  EXPECT_EQ(out, bytes_of("456"));
  EXPECT_THROW(part.read_at(3, out), base::Failure);
  EXPECT_THROW(part.read_at(UINT64_MAX, out), base::Failure);
  EXPECT_THROW(base::SubSource(memory, 11, 0), base::Failure);
  EXPECT_THROW(base::SubSource(memory, 5, UINT64_MAX), base::Failure);
}

}  // namespace
}  // namespace gptq::test
