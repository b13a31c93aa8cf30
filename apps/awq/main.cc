#include "cli.h"

namespace awq::cli {
namespace {

bool is_verb(const CLI::App& app, std::string_view word, std::string& verbs) {
  bool found = false;
  for (const CLI::App* c : app.get_subcommands({})) {
    found = found || c->get_name() == word;
    verbs += (verbs.empty() ? "" : ", ") + c->get_name();
  }
  return found;
}

int run(int argc, char** argv) {
  CLI::App app{
      "awq: 4-bit language models with AWQ. Quantize a float model, prove what it cost, run the result.\n"
      "MODEL is a folder (safetensors), a .gguf file, or a name that `awq pull` has fetched. Results go to stdout, "
      "everything else to stderr."};
  app.set_version_flag("--version", std::string(version()));
  app.require_subcommand(1);
  app.footer("Example:\n  awq quantize SmolLM2-135M.gguf -o smollm2-awq && awq chat smollm2-awq");
  add_quantize(app);
  add_plan(app);
  add_chat(app);
  add_generate(app);
  add_serve(app);
  add_eval(app);
  add_compare(app);
  add_inspect(app);
  add_pull(app);
  add_convert(app);
  add_verify(app);
  add_bench(app);
  add_doctor(app);
  add_calib(app);
  add_sensitivity(app);
  add_study(app);
  add_tokenize(app);
  add_render(app);
  if (std::string verbs; argc > 1 && argv[1][0] != '-' && !is_verb(app, argv[1], verbs)) {
    fmt::print(stderr, "\"{}\" is no verb of awq; it has: {}\nRun with --help for more information.\n", argv[1], verbs);
    return 2;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    const int code = app.exit(e, std::cout, std::cerr);
    return code == 0 ? 0 : 2;
  }
  return 0;
}

}  // namespace
}  // namespace awq::cli

int main(int argc, char** argv) {
  awq::cli::catch_interrupts();
  try {
    return awq::cli::run(argc, argv);
  } catch (const awq::Cancelled& e) {
    fmt::print(stderr, "stopped; {}\n", e.what());
    return 130;
  } catch (const awq::cli::Rejected& e) {
    fmt::print(stderr, "rejected: {}\n", e.what());
    return 3;
  } catch (const std::bad_alloc&) {
    fmt::print(stderr,
               "error: [memory] not enough memory. Close other programs, or use fewer --samples, a shorter --context "
               "or a smaller model\n");
  } catch (const std::exception& e) {
    fmt::print(stderr, "error: {}\n", e.what());
  }
  return 1;
}
