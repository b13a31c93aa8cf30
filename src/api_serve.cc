#include <chrono>
#include <optional>
#include <thread>

#include "awq/awq.h"
#include "base/check.h"
#include "base/memory.h"
#include "serve/app.h"

namespace awq {
namespace {

/// The folder's or file's name.
std::string name_of_model(const std::filesystem::path& path) {
  const std::filesystem::path p = std::filesystem::absolute(path).lexically_normal();
  return (p.has_filename() ? p : p.parent_path()).stem().string();
}

}  // namespace

void serve(const std::filesystem::path& path, const ServeOptions& o,
           const std::function<void(const ServeReport&)>& ready, const std::function<bool()>& stop,
           const OnProgress& progress) {
  const auto begin = std::chrono::steady_clock::now();
  Device device(o.device, Tiles::never);
  const std::unique_ptr<Checkpoint> checkpoint = Checkpoint::open(path);
  const TextSide text(*checkpoint);
  const Model model = load_model(*device.backend, *checkpoint, [&](int done, int total) {
    if (progress && !progress({"load", done, total})) throw Cancelled();
  });
  if (o.context > model.spec.max_context)
    fail("serve", "--context {}: the model was made for {} tokens; give no more", o.context, model.spec.max_context);
  const DType kv = kv_type(o.device.kv, kCacheType);
  const std::optional<int64_t> room = device.backend->kv_room(model.spec.blocks, kv);
  if (room && o.kv_bytes > *room)
    fail("serve", "--kv-memory {}: {} has {} bytes left for keys and values; give no more, or leave it out", o.kv_bytes,
         device.backend->kernels(), *room);
  const int64_t kv_bytes = o.kv_bytes ? o.kv_bytes : room.value_or(available_memory() / 4);
  const std::string name = o.name.empty() ? name_of_model(path) : o.name;
  std::optional<Service> service;
  service.emplace(device, model,
                  Batcher::Limits{.sequences = o.sequences, .context = o.context, .kv_bytes = kv_bytes, .kv = kv},
                  o.queue);
  App app(o, *service, {name, text, api_defaults(text.generation_config()), service->longest()});
  std::jthread watch([&](const std::stop_token& over) {
    while (!over.stop_requested() && !stop()) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    app.stop();
  });
  ready({.host = o.host,
         .model = name,
         .kernels = std::string(device.backend->kernels()),
         .placement = device.backend->placement(),
         .port = app.port(),
         .context = service->longest(),
         .threads = device.backend->threads(),
         .kv_bytes = kv_bytes,
         .load_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count()});
  app.run();
  service.reset();  // its events go to `app`
}

}  // namespace awq
