#pragma once
// What the verbs share: stop flag, progress line, device options.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <string>

#include "awq/awq.h"

namespace awq::cli {

/// The work is done, but its result is not good enough: exit status 3.
struct Rejected : Error {
  using Error::Error;
};

/// Ctrl-C: the first asks the running work to stop, the second ends the program the hard way.
void catch_interrupts();
/// SIGTERM does the same from now on.
void catch_termination();
bool interrupted();
void clear_interrupt();

/// One line on stderr, rewritten in place on a terminal, a line now and then elsewhere. Silent for work under 2
/// seconds. Of a job of blocks: a bar, stage, time, time left, memory, last error.
class ProgressLine {
 public:
  ~ProgressLine();
  bool operator()(const Progress& p);  // false after Ctrl-C

 private:
  void print(const Progress& p, double elapsed);
  double left(const Progress& p) const;  // seconds; negative where nothing is known yet
  std::string stage_group_;
  int group_first_ = 0, last_done_ = 0;  // where the group began: not at 0 in a resumed job
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now(), group_begin_ = begin_,
                                        step_begin_ = begin_, printed_{};
  bool shown_ = false;
};

void add_device_options(CLI::App& app, DeviceOptions& device);
/// --activations and --kv, of verbs that run a model.
void add_run_options(CLI::App& app, DeviceOptions& device, const char* standard_kv);
std::string read_all(std::istream& in);
std::string read_file(const std::string& path);  // throws Error
/// An option or argument that names a model: a path, or a name that `awq pull` has fetched.
CLI::Option* add_model(CLI::App& app, const std::string& option, std::string& model, const std::string& text);
std::string human_bytes(uint64_t bytes);  // "83.9 MB"
std::string minutes(double seconds);      // "1:07"
/// "2.5G", "800M" or bytes; throws CLI::ValidationError
int64_t bytes_of(const std::string& text);
std::string json_text(std::string_view s);  // quoted and escaped

/// From now on memory of 1 MB and more goes back to the system when it is freed. Otherwise the allocator keeps pieces
/// of up to 32 MB, and what a process has in memory is up to half as much again as what it uses.
void return_freed_memory();
/// Options of QuantizeOptions that say what is made, and how much memory it may take.
void add_quantize_options(CLI::App& app, QuantizeOptions& options);

void add_quantize(CLI::App& app);
void add_plan(CLI::App& app);
void add_generate(CLI::App& app);
void add_chat(CLI::App& app);
void add_eval(CLI::App& app);
void add_compare(CLI::App& app);
void add_inspect(CLI::App& app);
void add_pull(CLI::App& app);
void add_doctor(CLI::App& app);
void add_convert(CLI::App& app);
void add_verify(CLI::App& app);
void add_bench(CLI::App& app);
void add_serve(CLI::App& app);
void add_calib(CLI::App& app);
void add_sensitivity(CLI::App& app);
void add_study(CLI::App& app);
void add_tokenize(CLI::App& app);
void add_render(CLI::App& app);

}  // namespace awq::cli
