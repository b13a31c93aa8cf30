#include "quantizer/job_folder.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "awq/error.h"

namespace awq {
namespace {

namespace fs = std::filesystem;

class JobFolderTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() /
            fmt::format("awq-job-{}-{}", ::getpid(), ::testing::UnitTest::GetInstance()->random_seed());
    fs::create_directories(root_);
  }
  void TearDown() override { fs::remove_all(root_); }
  fs::path out() const { return root_ / "out"; }
  fs::path folder() const { return root_ / "out.awq-job"; }
  static std::string message(const std::function<void()>& f) {
    try {
      f();
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  }
  static void write(const fs::path& file) { std::ofstream(file) << "x"; }
  fs::path root_;
};

TEST_F(JobFolderTest, LeavesNothingWhereNothingIsDone) {
  { JobFolder job(out(), "", JobStart::fresh); }
  EXPECT_FALSE(fs::exists(folder()));
  { JobFolder(out(), "", JobStart::resume); }  // nothing to go on with: it begins
  EXPECT_FALSE(fs::exists(folder()));
}

TEST_F(JobFolderTest, WhatIsDoneStaysUntilItIsThrownAway) {
  { JobFolder(out(), root_ / "scratch", JobStart::fresh).save("state.json", {{"blocks_done", 3}}); }
  EXPECT_EQ(
      message([&] { JobFolder(out(), "", JobStart::fresh); }),
      "[quantize] " + folder().string() +
          ": an unfinished job is there. Go on with it by --resume, or throw it away and begin anew by --restart");
  {
    JobFolder job(out(), root_ / "scratch", JobStart::resume);
    EXPECT_EQ(job.read("state.json")->at("blocks_done"), 3);
    write(job.scratch() / "hidden-0");
  }
  {
    JobFolder job(out(), root_ / "scratch", JobStart::restart);
    EXPECT_FALSE(job.read("state.json"));
    EXPECT_FALSE(fs::exists(job.scratch() / "hidden-0"));
  }
  EXPECT_FALSE(fs::exists(folder()));
}

TEST_F(JobFolderTest, AnotherJobIsRefusedByName) {
  {
    JobFolder job(out(), "", JobStart::fresh);
    job.identify({{"--seed", "1"}, {"config.json", "abc"}});
    job.save("state.json", {});
  }
  JobFolder(out(), "", JobStart::resume).identify({{"--seed", "1"}, {"config.json", "abc"}});
  EXPECT_EQ(message([&] {
              JobFolder(out(), "", JobStart::resume).identify({{"--seed", "2"}, {"config.json", "abc"}});
            }),
            "[resume] " + folder().string() +
                ": --seed was 1 and is 2. A job goes on only with what it began with; --restart begins anew and throws "
                "away what is done");
  EXPECT_TRUE(fs::exists(folder() / "state.json"));
}

TEST_F(JobFolderTest, OneProcessAtATime) {
  int ready[2], done[2];
  ASSERT_EQ(::pipe(ready) | ::pipe(done), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    JobFolder job(out(), "", JobStart::fresh);
    char c = 0;
    (void)!::write(ready[1], "r", 1);
    (void)!::read(done[0], &c, 1);
    ::_exit(0);  // as a kill: nothing is cleaned up
  }
  char c = 0;
  ASSERT_EQ(::read(ready[0], &c, 1), 1);
  EXPECT_EQ(message([&] { JobFolder(out(), "", JobStart::restart); }),
            fmt::format("[lock] {}: process {} is at work on it; wait for it or choose another output",
                        folder().string(), child));
  ASSERT_EQ(::write(done[1], "d", 1), 1);
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(fs::exists(folder()));
  { JobFolder(out(), "", JobStart::fresh); }  // the lock went with the process
  EXPECT_FALSE(fs::exists(folder()));
}

TEST_F(JobFolderTest, AnOutputThatStandsIsKnown) {
  JobFolder(out(), "", JobStart::fresh).save("state.json", {});
  fs::create_directory(folder() / "output");
  fs::create_directory(out());
  EXPECT_NE(message([&] { JobFolder(out(), "", JobStart::resume); }), "");  // another program's
  fs::remove(folder() / "output");
  JobFolder job(out(), "", JobStart::resume);
  EXPECT_TRUE(job.output_stands());
  job.remove();
  EXPECT_FALSE(fs::exists(folder()));
}

}  // namespace
}  // namespace awq
