// SPDX-License-Identifier: Apache-2.0
// gptq_quantize in processes that are killed, or whose files may not grow: what POSIX alone offers to tests.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "quantize_job.h"

namespace gptq::test {
namespace {

namespace fs = std::filesystem;

Bytes expected() {
  const Target target;
  Job job;
  EXPECT_EQ(job.run(dense_model(), target.path()), GPTQ_OK);
  return read_bytes(target.path());
}

TEST(Quantize, GoesOnWhereItWasKilled) {
  const Bytes wanted = expected();
  const Target target;
  for (const uint32_t at : {300u, 500u, 700u, 999u}) {
    const pid_t child = fork();
    if (child == 0) {
      Job job;
      job.on_progress = [&](uint32_t permille) { return permille >= at ? raise(SIGKILL) : 0; };
      job.run(dense_model(), target.path(), 1);
      _exit(0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status));
    EXPECT_FALSE(fs::exists(target.path()));
  }
  EXPECT_TRUE(fs::exists(target.path() + ".work/0.gptq"));
  fs::resize_file(target.path() + ".work/0.gptq", 100);  // and a file that a disk lost
  Job job;
  ASSERT_EQ(job.run(dense_model(), target.path()), GPTQ_OK);
  EXPECT_TRUE(read_bytes(target.path()) == wanted);
}

// The disk is full once a file reaches a size: of a layer's, and of the result alone.
TEST(Quantize, GoesOnWhenThereIsRoomAgain) {
  const Bytes wanted = expected();
  const size_t whole = wanted.size();
  const Target target;
  for (const size_t room : {size_t{4096}, whole - 512}) {
    const pid_t child = fork();
    if (child == 0) {
      signal(SIGXFSZ, SIG_IGN);
      const rlimit limit{room, room};
      setrlimit(RLIMIT_FSIZE, &limit);
      std::string message;
      Job job;
      const bool refused = job.run(dense_model(), target.path(), 1, 0, &message) == GPTQ_E_IO;
      _exit(refused && message.find("cannot write") != message.npos ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << room;
    EXPECT_FALSE(fs::exists(target.path()));
  }
  Job job;
  ASSERT_EQ(job.run(dense_model(), target.path()), GPTQ_OK);
  EXPECT_TRUE(read_bytes(target.path()) == wanted);
  EXPECT_EQ(target.entries(), 1u);
}

}  // namespace
}  // namespace gptq::test
