// `awq serve`: OpenAI's API over HTTP.
#include <sys/resource.h>

#include "cli.h"

namespace awq::cli {
namespace {

constexpr rlim_t kOtherFiles = 64;

/// A connection is a file, and shells allow 1024.
void allow_connections(int connections) {
  rlimit files{};
  const rlim_t wanted = rlim_t(connections) + kOtherFiles;
  if (getrlimit(RLIMIT_NOFILE, &files) || files.rlim_cur >= wanted) return;
  files.rlim_cur = std::min(wanted, files.rlim_max);
  setrlimit(RLIMIT_NOFILE, &files);
  if (files.rlim_cur < wanted)
    fmt::print(stderr, "warning: [serve] {} connections at most: this process may open {} files; see `ulimit -n`\n",
               files.rlim_cur - std::min(kOtherFiles, files.rlim_cur), files.rlim_cur);
}

struct ServeFlags {
  std::string model;
  ServeOptions serve;
  bool no_log = false;
};

void run_serve(ServeFlags& o) {
  o.serve.access_log = !o.no_log;
  catch_termination();
  return_freed_memory();
  allow_connections(o.serve.connections);
  ProgressLine progress;
  serve(
      o.model, o.serve,
      [&](const ServeReport& r) {
        if (!r.placement.empty()) fmt::print(stderr, "{}\n", r.placement);
        fmt::print(stderr,
                   "{} on http://{}:{}, ready after {:.2f} s: {} threads, {}, context {}, {} for keys and values\n",
                   r.model, r.host, r.port, r.load_seconds, r.threads, r.kernels, r.context,
                   human_bytes(uint64_t(r.kv_bytes)));
      },
      [] { return interrupted(); }, [&](const Progress& p) { return progress(p); });
}

}  // namespace

void add_serve(CLI::App& app) {
  auto o = std::make_shared<ServeFlags>();
  CLI::App* c = app.add_subcommand("serve", "Answer requests over HTTP, as OpenAI's API has them");
  add_model(*c, "MODEL", o->model, "Quantized or float model: a folder or a .gguf file")->required();
  c->add_option("--host", o->serve.host, "Address to listen on; 0.0.0.0: everybody's, then give --api-key")
      ->capture_default_str();
  c->add_option("--port", o->serve.port, "Port; 0: any that is free")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  c->add_option("--api-key", o->serve.api_key, "That requests must bring as a bearer token; default: none")
      ->envname("AWQ_API_KEY");
  c->add_option("--name", o->serve.name, "Of the model in the API; default: its folder's");
  c->add_option("--cors", o->serve.cors, "Origin whose pages may read replies, such as https://example.org; *: any")
      ->type_name("ORIGIN");
  c->add_option("--context", o->serve.context, "Longest prompt with its answer, in tokens; default: the model's")
      ->check(CLI::PositiveNumber);
  c->add_option("--max-seconds", o->serve.answer_seconds, "That a request may take; default: as long as it does")
      ->check(CLI::PositiveNumber);
  c->add_option("--sequences", o->serve.sequences, "Answered at once")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  c->add_option("--queue", o->serve.queue, "Requests that may wait; more get 503")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  c->add_option_function<std::string>(
       "--kv-memory", [o](const std::string& s) { o->serve.kv_bytes = bytes_of(s); },
       "Memory for keys and values, as 2.5G; default: a quarter of what is free, on a GPU all that is left")
      ->type_name("BYTES");
  c->add_option("--max-body", o->serve.body_bytes, "Largest request, in bytes")
      ->check(CLI::Range(size_t(1024), size_t(1) << 30))
      ->capture_default_str();
  c->add_option("--connections", o->serve.connections, "Open at once; more are closed")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  c->add_option("--drain", o->serve.drain_seconds, "Seconds that answers at work have after a stop")
      ->check(CLI::Range(0, 86400))
      ->capture_default_str();
  c->add_flag("--no-log", o->no_log, "No line a request on stderr; default: JSON lines without texts");
  add_device_options(*c, o->serve.device);
  add_run_options(*c, o->serve.device, "bf16");
  c->footer(
      "Example:\n  awq serve smollm2-awq --port 8000\nCtrl-C or SIGTERM: what is being answered is finished, then it "
      "ends.");
  c->callback([o] { run_serve(*o); });
}

}  // namespace awq::cli
