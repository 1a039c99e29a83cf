// SPDX-License-Identifier: Apache-2.0
// What every system has to do the same way.
#include "base/os.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <thread>

namespace gptq {
namespace {

namespace os = base::os;

class Os : public testing::Test {
 protected:
  Os()
      : folder_((std::filesystem::temp_directory_path() / ("gptq-os-" + std::to_string(os::process_id())))
                    .generic_string()) {
    os::remove_tree(folder_);
    EXPECT_TRUE(os::make_folder(folder_));
  }
  ~Os() override { EXPECT_TRUE(os::remove_tree(folder_)); }

  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  static void write(const std::string& path, std::string_view text) {
    os::File file(path, os::Open::open_or_create);
    ASSERT_TRUE(file && file.make_empty());
    ASSERT_EQ(file.write_at(0, text.data(), text.size()), static_cast<int64_t>(text.size()));
  }
  static std::string read(const std::string& path) {
    const os::File file(path, os::Open::read);
    std::string text(256, '\0');
    const int64_t n = file ? file.read_at(0, text.data(), text.size()) : -1;
    return n < 0 ? "?" : text.substr(0, static_cast<size_t>(n));
  }
  std::vector<std::string> names() const {
    std::vector<std::string> out;
    EXPECT_TRUE(os::list_folder(folder_, out));
    std::sort(out.begin(), out.end());
    return out;
  }

  std::string folder_;
};

TEST_F(Os, ReadsAndWritesAnywhereInAFile) {
  os::File file(path("a"), os::Open::create_new);
  ASSERT_TRUE(file);
  EXPECT_EQ(file.write_at(10, "tail", 4), 4);
  EXPECT_EQ(file.write_at(0, "head", 4), 4);
  EXPECT_EQ(file.size(), 14);
  EXPECT_TRUE(file.sync());
  char text[32];
  EXPECT_EQ(file.read_at(8, text, sizeof text), 6);
  EXPECT_EQ(std::string(text, 6), std::string("\0\0tail", 6));
  EXPECT_EQ(file.read_at(14, text, sizeof text), 0);
  EXPECT_EQ(file.read_at(0, text, 0), 0);
  EXPECT_TRUE(file.make_empty());
  EXPECT_EQ(file.size(), 0);
}

TEST_F(Os, ReachesBeyondFourGigabytes) {
  os::File file(path("a"), os::Open::create_new);
  const uint64_t far = (uint64_t{5} << 30) + 3;
  ASSERT_EQ(file.write_at(far, "x", 1), 1);
  EXPECT_EQ(file.size(), static_cast<int64_t>(far + 1));
  char c = 0;
  EXPECT_EQ(file.read_at(far, &c, 1), 1);
  EXPECT_EQ(c, 'x');
  file.give_back(0, uint64_t{1} << 30);
  EXPECT_EQ(file.size(), static_cast<int64_t>(far + 1));
}

TEST_F(Os, OpensWhatItIsAskedTo) {
  EXPECT_FALSE(os::File(path("a"), os::Open::read));
  EXPECT_EQ(errno, ENOENT);
  EXPECT_FALSE(os::File(path("a"), os::Open::read_write));
  EXPECT_FALSE(os::File(path("no/a"), os::Open::open_or_create));
  EXPECT_EQ(errno, ENOENT);
  EXPECT_TRUE(os::File(path("a"), os::Open::create_new));
  EXPECT_FALSE(os::File(path("a"), os::Open::create_new));
  EXPECT_EQ(errno, EEXIST);
  write(path("a"), "kept");
  EXPECT_TRUE(os::File(path("a"), os::Open::open_or_create));
  EXPECT_EQ(read(path("a")), "kept");
}

TEST_F(Os, AFolderIsNoFile) {
  const os::File folder(folder_, os::Open::read);
  EXPECT_TRUE(!folder || folder.size() == -1);
  EXPECT_FALSE(os::File(folder_, os::Open::read_write));
}

TEST_F(Os, WhatIsOnlyReadIsNotWritten) {
  write(path("a"), "text");
  os::File file(path("a"), os::Open::read);
  EXPECT_EQ(file.write_at(0, "x", 1), -1);
  EXPECT_EQ(read(path("a")), "text");
}

TEST_F(Os, TheNamelessFileLeavesNoName) {
  os::File file = os::File::without_name(folder_);
  ASSERT_TRUE(file);
  EXPECT_EQ(file.write_at(0, "text", 4), 4);
  os::File moved = std::move(file);
  EXPECT_FALSE(file);
  char text[4];
  EXPECT_EQ(moved.read_at(0, text, 4), 4);
  EXPECT_EQ(std::memcmp(text, "text", 4), 0);
  moved.close();
  EXPECT_FALSE(moved);
  EXPECT_TRUE(names().empty());
  EXPECT_FALSE(os::File::without_name(path("no")));
}

TEST_F(Os, OneHoldsTheLock) {
  os::File first(path("lock"), os::Open::open_or_create), second(path("lock"), os::Open::open_or_create);
  EXPECT_EQ(first.write_at(0, "text", 4), 4);
  EXPECT_TRUE(first.lock());
  EXPECT_FALSE(second.lock());
  EXPECT_EQ(errno, EWOULDBLOCK);
  char text[4];  // a lock keeps nobody from reading
  EXPECT_EQ(second.read_at(0, text, 4), 4);
  std::thread waiting([&] { EXPECT_TRUE(second.wait_for_lock()); });
  first.close();
  waiting.join();
  EXPECT_FALSE(os::File(path("lock"), os::Open::open_or_create).lock());
  second.close();
  EXPECT_TRUE(os::File(path("lock"), os::Open::open_or_create).lock());
}

TEST_F(Os, KnowsWhatAPathLeadsTo) {
  write(path("a"), "text");
  uint64_t size = 0;
  EXPECT_EQ(os::kind_of(path("a")), os::Kind::file);
  EXPECT_EQ(os::kind_of(folder_), os::Kind::folder);
  EXPECT_EQ(os::kind_of(folder_ + "/"), os::Kind::folder);
  EXPECT_EQ(os::kind_of(path("b")), os::Kind::nothing);
  EXPECT_TRUE(os::exists(path("a")) && os::exists(folder_) && !os::exists(path("b")));
  EXPECT_TRUE(os::is_plain_file(path("a")) && !os::is_plain_file(folder_));
  EXPECT_TRUE(os::size_of(path("a"), size));
  EXPECT_EQ(size, 4u);
  EXPECT_FALSE(os::size_of(folder_, size) || os::size_of(path("b"), size));
  EXPECT_TRUE(os::can_write_into(folder_));
  EXPECT_FALSE(os::can_write_into(path("b")));
}

TEST_F(Os, RenamesWithAndWithoutReplacing) {
  write(path("a"), "a"), write(path("b"), "b");
  EXPECT_FALSE(os::rename_to_new(path("a"), path("b")));
  EXPECT_EQ(errno, EEXIST);
  EXPECT_EQ(read(path("b")), "b");
  EXPECT_TRUE(os::rename_to_new(path("a"), path("c")));
  EXPECT_TRUE(os::rename_replacing(path("c"), path("b")));
  EXPECT_EQ(read(path("b")), "a");
  EXPECT_EQ(names(), std::vector<std::string>{"b"});
  EXPECT_FALSE(os::rename_replacing(path("a"), path("b")));
  EXPECT_EQ(errno, ENOENT);
}

bool under_wine() {
  std::string why;
  void* const ntdll = os::load_library("ntdll.dll", why);
  return ntdll && os::find_symbol(ntdll, "wine_get_version");
}

// The AtomicFile is renamed while it is open, so that nobody can come between.
TEST_F(Os, OpenFilesAreRenamed) {
  write(path("old"), "old");
  os::File writer(path("new"), os::Open::create_new);
  EXPECT_EQ(writer.write_at(0, "new", 3), 3);
  EXPECT_TRUE(os::rename_replacing(path("new"), path("old"))) << errno;
  EXPECT_EQ(read(path("old")), "new");
  EXPECT_TRUE(os::rename_to_new(path("old"), path("c")));
  EXPECT_EQ(writer.write_at(3, "er", 2), 2);
  EXPECT_EQ(read(path("c")), "newer");
}

TEST_F(Os, ReadersKeepWhatIsReplacedOrRemoved) {
  if (under_wine()) GTEST_SKIP() << "Wine 8 does not replace or remove a file that is open";
  write(path("old"), "old"), write(path("new"), "new");
  const os::File old(path("old"), os::Open::read), fresh(path("new"), os::Open::read);
  EXPECT_TRUE(os::rename_replacing(path("new"), path("old"))) << errno;
  EXPECT_EQ(read(path("old")), "new");
  EXPECT_TRUE(os::remove_file(path("old")));
  EXPECT_FALSE(os::exists(path("old")));
  write(path("old"), "again");
  char text[3];
  EXPECT_EQ(old.read_at(0, text, 3), 3);
  EXPECT_EQ(std::string(text, 3), "old");
  EXPECT_EQ(fresh.read_at(0, text, 3), 3);
  EXPECT_EQ(std::string(text, 3), "new");
}

TEST_F(Os, MakesAndRemovesFolders) {
  EXPECT_FALSE(os::make_folder(folder_));
  EXPECT_EQ(errno, EEXIST);
  EXPECT_TRUE(os::make_folders(path("x/y/z")));
  EXPECT_TRUE(os::make_folders(path("x/y/z")));
  write(path("x/y/a"), "a");
  EXPECT_EQ(names(), std::vector<std::string>{"x"});
  EXPECT_FALSE(os::make_folders(path("x/y/a/b")));
  EXPECT_FALSE(os::remove_file(path("x")));
  EXPECT_TRUE(os::rename_replacing(path("x"), path("w")));
  EXPECT_TRUE(os::remove_tree(path("w")));
  EXPECT_TRUE(os::remove_tree(path("w")));
  EXPECT_TRUE(names().empty());
  std::vector<std::string> none;
  EXPECT_FALSE(os::list_folder(path("w"), none));
  EXPECT_EQ(errno, ENOENT);
}

TEST_F(Os, PathsAreUnicodeOfAnyLength) {
  std::string deep = folder_;
  for (int i = 0; i < 4; ++i)
    deep += "/\xC3\xA4\xE6\xBC\xA2\xF0\x9F\x98\x80-" + std::string(100, static_cast<char>('a' + i));
  ASSERT_TRUE(os::make_folders(deep)) << errno;
  const std::string file = deep + "/\xD1\x8F.gptq";
  write(file, "text");
  EXPECT_EQ(read(file), "text");
  std::vector<std::string> found;
  EXPECT_TRUE(os::list_folder(deep, found));
  EXPECT_EQ(found, std::vector<std::string>{"\xD1\x8F.gptq"});
  EXPECT_TRUE(os::rename_to_new(file, deep + "/b"));
  EXPECT_TRUE(os::kind_of(deep + "/b") == os::Kind::file && os::kind_of(deep) == os::Kind::folder);
  EXPECT_TRUE(os::File::without_name(deep));
  uint64_t free = 0;
  EXPECT_TRUE(os::free_bytes(deep, free));
  EXPECT_GT(free, 0u);
}

TEST_F(Os, FoldersOfPaths) {
  EXPECT_EQ(os::folder_of("a"), ".");
  EXPECT_EQ(os::folder_of("a/b"), "a/");
  EXPECT_EQ(os::folder_of("/a"), "/");
  write(path("a"), "a");
  const std::string full = os::full_path(folder_ + "/../" + std::filesystem::path(folder_).filename().string() + "/a");
  EXPECT_TRUE(full.ends_with(std::filesystem::path(folder_).filename().string() + "/a")) << full;
  EXPECT_EQ(full.find(".."), full.npos);
  EXPECT_EQ(os::full_path(path("b")), "");
}

TEST_F(Os, FreeRoomAndMemory) {
  uint64_t free = 0;
  EXPECT_TRUE(os::free_bytes(folder_, free));
  EXPECT_GT(free, 0u);
  EXPECT_FALSE(os::free_bytes(path("no"), free));
  EXPECT_GT(os::free_memory(), uint64_t{1} << 20);
}

TEST(OsRandom, BytesDiffer) {
  uint64_t a[2] = {}, b[2] = {};
  ASSERT_TRUE(os::random_bytes(a, sizeof a) && os::random_bytes(b, sizeof b));
  EXPECT_NE(std::memcmp(a, b, sizeof a), 0);
}

TEST(OsWait, EveryWakeUpArrives) {
  std::atomic<uint32_t> ball{0};
  constexpr uint32_t rounds = 20000;
  const auto play = [&](uint32_t mine) {
    for (uint32_t i = mine; i < rounds; i += 2) {
      for (uint32_t seen; (seen = ball.load()) != i;) os::wait_while(ball, seen);
      ball.store(i + 1);
      os::wake_one(ball);
    }
  };
  std::thread other([&] { play(1); });
  play(0);
  other.join();
  EXPECT_EQ(ball.load(), rounds);
}

TEST(OsLibrary, SaysWhyItCannotBeLoaded) {
  std::string why;
  EXPECT_EQ(os::load_library("no-such-library-of-gptq", why), nullptr);
  EXPECT_NE(why, "");
}

}  // namespace
}  // namespace gptq
