#include "cli.h"

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>

namespace awq::cli {
namespace {

// A signal handler may touch what is lock-free and nothing else.
std::atomic<int> g_interrupts = 0;
static_assert(std::atomic<int>::is_always_lock_free);

void on_interrupt(int signal) {
  if (++g_interrupts > 1) {
    std::signal(signal, SIG_DFL);
    raise(signal);
  }
}

}  // namespace

// Without SA_RESTART, so that waiting for a line of input ends too.
void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  sigaction(SIGINT, &action, nullptr);
}
void catch_termination() {
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  sigaction(SIGTERM, &action, nullptr);
}
bool interrupted() { return g_interrupts > 0; }
void clear_interrupt() { g_interrupts = 0; }

std::string minutes(double seconds) {
  const long s = std::lround(seconds);
  return s < 3600 ? fmt::format("{}:{:02}", s / 60, s % 60)
                  : fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

std::string human_bytes(uint64_t bytes) {
  return bytes < 1000000000 ? fmt::format("{:.1f} MB", double(bytes) / 1e6)
                            : fmt::format("{:.2f} GB", double(bytes) / 1e9);
}

void return_freed_memory() {
#ifdef __GLIBC__
  ::mallopt(M_MMAP_THRESHOLD, 1 << 20);
#endif
}

int64_t bytes_of(const std::string& text) {
  size_t end = 0;
  double value = 0;
  try {
    value = std::stod(text, &end);
  } catch (const std::exception&) {  // end stays 0
  }
  const std::string unit = text.substr(end);
  const double factor = unit.empty() ? 1 : unit == "K" ? 1e3 : unit == "M" ? 1e6 : unit == "G" ? 1e9 : 0;
  if (end == 0 || factor == 0 || !(value * factor >= 1 && value * factor < 1e18))
    throw CLI::ValidationError(fmt::format("\"{}\" is no amount of memory; give bytes, or as 800M or 2.5G", text));
  return int64_t(value * factor);
}

std::string json_text(std::string_view s) {
  return nlohmann::json(s).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

bool ProgressLine::operator()(const Progress& p) {
  // The stages of a block share one clock, so that the time left is that of all blocks.
  const bool block_stage = p.stage == "calibrate" || p.stage == "search" || p.stage == "write";
  const std::string group = block_stage ? "blocks" : std::string(p.stage);
  const auto now = std::chrono::steady_clock::now();
  if (group != stage_group_) {
    stage_group_ = group;
    group_begin_ = step_begin_ = now;
    group_first_ = last_done_ = p.done;
  }
  if (p.done != last_done_) {
    last_done_ = p.done;
    step_begin_ = now;
  }
  const double quiet = isatty(STDERR_FILENO) ? 0.1 : 10;
  if (now - begin_ > std::chrono::seconds(2) && now - printed_ > std::chrono::duration<double>(quiet)) {
    print(p, std::chrono::duration<double>(now - begin_).count());
    printed_ = now;
  }
  return !interrupted();
}

// The steps that are done took so long each; the one at work takes as long, or what it has taken already.
double ProgressLine::left(const Progress& p) const {
  const int done = p.done - group_first_;
  if (done <= 0) return -1;
  using Seconds = std::chrono::duration<double>;
  const double a_step = Seconds(step_begin_ - group_begin_).count() / done;
  const double at_work = Seconds(std::chrono::steady_clock::now() - step_begin_).count();
  return a_step * (p.total - p.done) - std::min(a_step, at_work);
}

void ProgressLine::print(const Progress& p, double elapsed) {
  const bool terminal = isatty(STDERR_FILENO);
  std::string line;
  if (terminal && p.total > 0 && p.resident) {
    const int full = 20 * p.done / p.total;
    line = fmt::format("[{}{}] ", std::string(size_t(full), '#'), std::string(size_t(20 - full), '-'));
  }
  line += fmt::format("{} {}/{}, {} elapsed", p.stage, p.done, p.total, minutes(elapsed));
  if (const double rest = left(p); rest >= 0) line += fmt::format(", {} left", minutes(rest));
  if (p.resident) line += fmt::format(", {} in memory", human_bytes(uint64_t(p.resident)));
  if (p.last_error >= 0) line += fmt::format(", error of the last block {:.5f}", p.last_error);
  fmt::print(stderr, "{}{}{}", terminal ? "\r\033[K" : "", line, terminal ? "" : "\n");
  std::fflush(stderr);
  shown_ = shown_ || terminal;
}

ProgressLine::~ProgressLine() {
  if (shown_) fmt::print(stderr, "\r\033[K");
}

void add_device_options(CLI::App& app, DeviceOptions& device) {
  app.add_option("--threads", device.threads, "Threads; default: one per physical core")
      ->check([](const std::string& text) {
        const bool number = !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
        return number && text.find_first_not_of('0') != std::string::npos
                   ? std::string()
                   : fmt::format("\"{}\" is no number of threads; give 1 to {}, or leave it out", text, max_threads());
      });
  app.add_option("--isa", device.isa, "Kernel set by name; default: the best this CPU has, or AWQ_ISA");
}

void add_run_options(CLI::App& app, DeviceOptions& device, const char* standard_kv) {
  app.add_option("--device", device.device, "cpu (default) or cuda: the first GPU; `awq doctor` says what there is");
  app.add_option(
         "--gpu-layers", device.gpu_layers,
         "With --device cuda: blocks on the GPU, the model's last ones and its head; default: as many as fit its "
         "memory beside keys and values of 4096 tokens. The CPU computes the others")
      ->check(CLI::PositiveNumber);
  app.add_option("--activations", device.activations,
                 "For 4-bit products: int16 (default, exact to 2^-16), int8 (faster, less exact), bf16 (faster where "
                 "tiles multiply long prompts); on a GPU f16 (default) or bf16");
  app.add_option("--kv", device.kv,
                 fmt::format("Keys and values are kept in f32, f16, bf16, int8 or fp8; default: {}", standard_kv));
}

std::string read_all(std::istream& in) {
  std::string text;
  std::array<char, 1 << 16> chunk;
  while (in.read(chunk.data(), chunk.size()) || in.gcount() > 0)
    text.append(chunk.data(), static_cast<size_t>(in.gcount()));
  return text;
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw Error(fmt::format("[open] {}: the file cannot be read. Does it exist?", path));
  return read_all(in);
}

}  // namespace awq::cli
