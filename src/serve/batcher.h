#pragma once
#include <deque>
#include <functional>
#include <list>
#include <optional>
#include <set>

#include "engine/runtime.h"
#include "engine/sampler.h"
#include "serve/page_store.h"

namespace awq {

/// A token that was chosen, or one of a prompt that is scored.
struct ServedToken {
  int32_t token = 0;
  float logprob = 0;  // natural; before temperature, penalties and biases
  /// The likeliest with theirs, likeliest first; as many as were asked for.
  std::vector<std::pair<int32_t, float>> top{};
};

enum class ServeEnd { stop, length, failed };

/// Called by the thread that runs Batcher::step, in order.
struct ServeEvents {
  std::function<void()> begun{};                              // it waits no longer
  std::function<void(const ServedToken&)> prompt_token{};     // from the second on, where the prompt is scored
  std::function<bool(const ServedToken&)> token{};            // false: it shall end here, with `stop`
  std::function<void(std::span<const float>)> embedding{};    // mean of the last hidden states
  std::function<void(ServeEnd, std::string_view why)> end{};  // the last call
};

struct ServeRequest {
  std::vector<int32_t> prompt;
  int max_tokens = 0;  // 0 with a scored prompt or an embedding: nothing is generated
  int min_tokens = 0;  // before these none of `ends` is chosen
  std::set<int32_t> ends{};
  SamplerOptions sampling{};
  int top_logprobs = -1;  // of each token; -1: logprobs are not computed
  bool score_prompt = false, embed = false;
  ServeEvents events{};
};

/// Continuous batching: requests come and go between steps; a step computes the next token of each that answers, and a
/// part of the prompts of those that do not yet. What a request is told depends on nothing but itself and its seed, bit
/// for bit, with a backend of Tiles::never. Not thread-safe.
class Batcher {
 public:
  struct Limits {
    int sequences = 64;     // at work at once
    int context = 0;        // of a prompt and its answer; 0: the model's
    int64_t kv_bytes = 0;   // of all caches and pages kept for others
    int step_tokens = 512;  // of prompts in a step where nobody answers
    int chunk_tokens = 0;   // of prompts in a step where somebody does; 0: so many that the step stays short
    DType kv = kCacheType;
  };
  struct Counts {
    int64_t prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0, preemptions = 0, steps = 0;
    int running = 0, waiting = 0;
    double kv_used = 0;  // share of kv_bytes
  };

  Batcher(Device& device, const Model& model, const Limits& limits);
  /// The longest prompt with its answer that fits: of the context and of the memory for keys and values.
  int longest() const;
  /// Throws Error where the prompt is empty, prompt and answer are longer than longest(), or a token is none of the
  /// model's. From any thread.
  void check(const ServeRequest& request) const;
  /// Of one that was checked.
  void add(uint64_t id, ServeRequest request);
  void cancel(uint64_t id);  // no event follows; unknown ones are ignored
  /// Ends all of them, with `failed`.
  void fail_all(std::string_view why);
  bool idle() const { return waiting_.empty() && running_.empty(); }
  void step();
  Counts counts() const;

 private:
  struct Job {
    uint64_t id;
    ServeRequest request;
    Sampler sampler;
    std::vector<int32_t> tokens;  // of the prompt and the answer
    int length = 0;               // see Sequence
    int done = 0;                 // positions in kv
    int planned = 0;              // that the step at work adds
    bool begun = false;
    int scored = 0;  // tokens of the prompt behind its first that events know
    std::unique_ptr<KvCache> kv{};
    std::vector<PageStore::Handle> shared{};  // its first pages, which others may have too
    std::vector<double> hidden{};             // their sum, of an embedding
    int prompt() const { return int(request.prompt.size()); }
    int pending() const { return int(tokens.size()) - done; }
    int generated() const { return int(tokens.size()) - prompt(); }
  };
  using Jobs = std::list<Job>;
  /// `tokens` of a job that a step computes.
  struct Part {
    Jobs::iterator job;
    int tokens;
  };

  void admit();
  void start(Job& job);
  std::vector<Part> plan();
  int prompt_room(int answering, int reading) const;
  bool make_room(Jobs::iterator job, int tokens);
  void preempt(Jobs::iterator job);
  int64_t pages_for(int64_t positions) const { return state_pages_ + (positions + page_ - 1) / page_; }
  int64_t pages_used() const;
  Tensor forward(const std::vector<Part>& parts);
  void publish(Job& job);
  void answer(const std::vector<Part>& parts, const Tensor& hidden);
  void score(Job& job, const Tensor& hidden);
  void embed(Job& job, const Tensor& hidden);
  /// The next token of an answer, or why there is none; on any thread, of different jobs at once.
  struct Choice {
    ServedToken token{};
    std::string why{};
  };
  Choice choose(Job& job, std::span<float> logits) const;
  void tell(Jobs::iterator it, const Choice& choice);
  void finish(Jobs::iterator job, ServeEnd end, std::string_view why = {});
  void timed(const std::vector<Part>& parts, double seconds);

  Device& device_;
  Backend& dev_;
  const Model& model_;
  Limits limits_;
  int page_;             // positions of one
  int64_t pages_;        // that there may be
  int64_t state_pages_;  // as many take as much memory as a sequence's states
  PageStore store_;
  Jobs waiting_, running_;  // in the order of their coming
  Counts counts_;
  double answer_seconds_ = 0, prompt_seconds_ = 0;  // of a step of answers alone; of a prompt's token beside them
};

}  // namespace awq
