#include "serve/batcher.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/check.h"

namespace awq {
namespace {

constexpr int kLeastChunk = 16;       // a prompt's tokens in a step, at least
constexpr double kLongestStep = 2.5;  // times one without a prompt: who reads the answers waits no longer
constexpr int kScoredRows = 32;
constexpr double kRecent = 0.1;  // weight of the last step in means

std::vector<std::pair<int32_t, float>> likeliest(std::span<const float> logits, double log_sum, int n) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto better = [&](int32_t a, int32_t b) {
    return std::pair(-logits[size_t(a)], a) < std::pair(-logits[size_t(b)], b);
  };
  const auto end = order.begin() + std::min<ptrdiff_t>(n, ptrdiff_t(order.size()));
  std::partial_sort(order.begin(), end, order.end(), better);
  std::vector<std::pair<int32_t, float>> top;
  for (auto it = order.begin(); it != end; ++it) top.emplace_back(*it, float(double(logits[size_t(*it)]) - log_sum));
  return top;
}

/// `count`: of top logprobs; -1: no logprobs.
ServedToken described(const kernels::KernelSet& k, int32_t token, std::span<const float> logits, int count) {
  ServedToken t{.token = token};
  if (count < 0) return t;
  const double log_sum = k.log_sum_exp(logits.data(), int32_t(logits.size()));
  t.logprob = float(double(logits[size_t(token)]) - log_sum);
  if (count > 0) t.top = likeliest(logits, log_sum, count);
  return t;
}

}  // namespace

Batcher::Batcher(Device& device, const Model& model, const Limits& limits)
    : device_(device),
      dev_(*device.backend),
      model_(model),
      limits_(limits),
      page_(dev_.kv_cache(model.spec.blocks, limits.kv)->page_positions()),
      store_(page_) {
  const auto kv = dev_.kv_cache(model.spec.blocks, limits.kv);
  const int64_t first = kv->bytes_for(page_), states = std::max<int64_t>(0, 2 * first - kv->bytes_for(2 * page_)),
                bytes = std::max<int64_t>(1, first - states);
  pages_ = limits.kv_bytes / bytes;
  state_pages_ = (states + bytes - 1) / bytes;
  if (pages_ <= state_pages_)
    fail("serve", "{} bytes for keys and values are less than the {} of {} tokens; give more with --kv-memory",
         limits.kv_bytes, first, page_);
}

int Batcher::longest() const {
  const int most = limits_.context ? std::min(limits_.context, model_.spec.max_context) : model_.spec.max_context;
  return int(std::min<int64_t>(most, (pages_ - state_pages_) * page_));
}

void Batcher::check(const ServeRequest& request) const {
  if (request.prompt.empty()) fail("serve", "the prompt is empty; give at least one token of text");
  const int64_t length = int64_t(request.prompt.size()) + request.max_tokens;
  if (request.max_tokens < 0 || length > longest())
    fail("serve", "a prompt of {} tokens with an answer of {} is longer than the {} that there is room for",
         request.prompt.size(), request.max_tokens, longest());
  const auto known = [this](int32_t t) { return t >= 0 && t < model_.head->rows(); };
  const auto require = [&](int32_t t) {
    if (!known(t)) fail("serve", "token {}: the model has tokens 0 to {}", t, model_.head->rows() - 1);
  };
  std::ranges::for_each(request.prompt, require);
  for (const auto& [token, by] : request.sampling.bias) require(token);
}

void Batcher::add(uint64_t id, ServeRequest request) {
  Sampler sampler(request.sampling);
  std::vector<int32_t> tokens = request.prompt;
  waiting_.push_back({.id = id,
                      .request = std::move(request),
                      .sampler = std::move(sampler),
                      .tokens = std::move(tokens),
                      .length = 0});
  waiting_.back().length = int(waiting_.back().tokens.size()) + waiting_.back().request.max_tokens;
}

void Batcher::cancel(uint64_t id) {
  const auto same = [id](const Job& job) { return job.id == id; };
  std::erase_if(waiting_, same);
  std::erase_if(running_, same);
}

void Batcher::fail_all(std::string_view why) {
  running_.splice(running_.end(), waiting_);
  while (!running_.empty()) finish(running_.begin(), ServeEnd::failed, why);
}

void Batcher::step() {
  admit();
  const std::vector<Part> parts = plan();
  if (parts.empty()) return;
  const auto begin = std::chrono::steady_clock::now();
  const Tensor hidden = forward(parts);
  answer(parts, hidden);
  timed(parts, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  ++counts_.steps;
}

Batcher::Counts Batcher::counts() const {
  Counts c = counts_;
  c.running = int(running_.size()), c.waiting = int(waiting_.size());
  c.kv_used = double(pages_used()) / double(pages_);
  return c;
}

// With a page to begin in; more come as it goes on, by preempting younger ones if need be.
void Batcher::admit() {
  while (!waiting_.empty() && int(running_.size()) < limits_.sequences) {
    while (pages_used() + state_pages_ >= pages_ && store_.drop_one()) {
    }
    if (pages_used() + state_pages_ >= pages_) return;
    start(waiting_.front());
    running_.splice(running_.end(), waiting_, waiting_.begin());
  }
}

void Batcher::start(Job& job) {
  if (!std::exchange(job.begun, true) && job.request.events.begun) job.request.events.begun();
  job.kv = dev_.kv_cache(model_.spec.blocks, limits_.kv);
  if (job.request.score_prompt || job.request.embed || model_.spec.recurrent()) return;  // every position is needed
  // The last token is computed in any case: its logits are needed.
  job.shared = store_.find(regime(model_.spec, job.length), std::span(job.tokens).first(job.tokens.size() - 1));
  for (size_t i = 0; i < job.shared.size(); ++i) job.kv->put_page(int64_t(i), job.shared[i]->blocks);
  job.done = int(job.shared.size()) * page_;
  if (!job.generated()) counts_.cached_tokens += job.done;
}

int64_t Batcher::pages_used() const {
  int64_t n = store_.pages();
  for (const Job& job : running_) n += pages_for(job.done + job.planned) - int64_t(job.shared.size());
  return n;
}

// The room for prompts is shared alike by those that have one to read.
std::vector<Batcher::Part> Batcher::plan() {
  const auto reads = [](const Job& job) { return job.pending() > 1 || !job.done; };
  const auto reading = int(std::ranges::count_if(running_, reads));
  const int room = reading ? prompt_room(int(running_.size()) - reading, reading) : 0;
  std::vector<Part> parts;
  for (auto job = running_.begin(); job != running_.end(); ++job) {
    const int tokens = reads(*job) ? std::min(job->pending(), room) : 1;
    if (!make_room(job, tokens)) {  // there is none even without those that came later
      preempt(job);
      break;
    }
    parts.push_back({job, tokens});
    job->planned = tokens;
  }
  return parts;
}

int Batcher::prompt_room(int answering, int reading) const {
  int all = limits_.step_tokens;
  if (answering && limits_.chunk_tokens) all = limits_.chunk_tokens;
  if (answering && !limits_.chunk_tokens && prompt_seconds_ > 0)
    all = std::min(all, int((kLongestStep - 1) * answer_seconds_ / prompt_seconds_));
  return std::max(kLeastChunk, all / reading);
}

/// Whether there is memory for so many more tokens, which may have been the youngest jobs'.
bool Batcher::make_room(Jobs::iterator job, int tokens) {
  const int64_t more = pages_for(job->done + tokens) - pages_for(job->done);
  while (pages_used() + more > pages_) {
    if (store_.drop_one()) continue;
    const auto youngest = std::prev(running_.end());
    if (youngest == job) return false;
    preempt(youngest);
  }
  return true;
}

/// Its tokens are kept, its keys and values computed again when it is its turn.
void Batcher::preempt(Jobs::iterator job) {
  job->kv.reset();
  job->shared.clear();
  job->hidden.clear();
  job->done = 0;
  ++counts_.preemptions;
  waiting_.splice(waiting_.begin(), running_, job);
}

Tensor Batcher::forward(const std::vector<Part>& parts) {
  std::vector<Sequence> batch;
  std::vector<int32_t> tokens;
  for (const Part& p : parts) {
    batch.push_back({p.job->kv.get(), p.job->done, p.tokens, p.job->length});
    tokens.insert(tokens.end(), p.job->tokens.begin() + p.job->done, p.job->tokens.begin() + p.job->done + p.tokens);
  }
  return step_forward(dev_, model_, tokens, batch, {});
}

/// Full pages become everybody's; what somebody else computed alike takes the place of its own. States are of all that
/// was before, of which a page has nothing.
void Batcher::publish(Job& job) {
  if (model_.spec.recurrent()) return;
  while (int64_t(job.shared.size() + 1) * page_ <= job.done) {
    const auto i = int64_t(job.shared.size());
    const std::span<const int32_t> tokens = std::span(job.tokens).subspan(size_t(i * page_), size_t(page_));
    const PageStore::Handle before = job.shared.empty() ? nullptr : job.shared.back();
    job.shared.push_back(store_.put(regime(model_.spec, job.length), before, tokens, job.kv->page(i)));
    job.kv->put_page(i, job.shared.back()->blocks);
  }
}

void Batcher::answer(const std::vector<Part>& parts, const Tensor& hidden) {
  Tensor last = dev_.empty({int64_t(parts.size()), model_.spec.dim});
  int64_t row = 0, n = 0;
  std::vector<Part> ready;
  for (const Part& p : parts) {
    Job& job = *p.job;
    const Tensor own = hidden.rows(row, row + p.tokens);
    row += p.tokens;
    if (job.request.score_prompt) score(job, own);
    if (job.request.embed) embed(job, own);
    job.done += p.tokens, job.planned = 0;
    if (!job.generated()) counts_.prompt_tokens += p.tokens;
    publish(job);
    if (job.pending()) continue;
    ready.push_back(p);
    Tensor to = last.rows(n, n + 1);
    const int32_t row_of_last = p.tokens - 1;
    dev_.embed(own, {&row_of_last, 1}, 1, to);  // a copy, wherever the device has its tensors
    ++n;
  }
  if (ready.empty()) return;
  Tensor logits = head_logits(dev_, model_, last.rows(0, n));
  std::vector<Choice> choices(ready.size());
  device_.pool.each(n, [&](int64_t i) {
    Job& job = *ready[size_t(i)].job;
    if (job.request.max_tokens) choices[size_t(i)] = choose(job, logits.rows(i, i + 1).as<float>());
  });
  for (size_t i = 0; i < ready.size(); ++i) tell(ready[i].job, choices[i]);
}

// A few rows at once: logits of a whole part could be hundreds of megabytes.
void Batcher::score(Job& job, const Tensor& hidden) {
  const int last = std::min(job.done + int(hidden.shape()[0]), job.prompt() - 1);  // behind it the answer begins
  for (int first = std::max(job.done, job.scored); first < last; first += kScoredRows) {
    const int end = std::min(first + kScoredRows, last);
    const Tensor logits = head_logits(dev_, model_, hidden.rows(first - job.done, end - job.done));
    for (int at = first; at < end; ++at)
      job.request.events.prompt_token(described(device_.kernels, job.tokens[size_t(at) + 1],
                                                logits.rows(at - first, at - first + 1).as<float>(),
                                                job.request.top_logprobs));
  }
  job.scored = std::max(job.scored, last);
}

void Batcher::embed(Job& job, const Tensor& states) {
  const Tensor hidden = dev_.host(states);
  const int64_t dim = hidden.shape()[1];
  job.hidden.resize(size_t(dim));
  for (int64_t i = 0; i < hidden.shape().elements(); ++i)
    job.hidden[size_t(i % dim)] += double(hidden.as<float>()[size_t(i)]);
  if (job.pending() > int(hidden.shape()[0])) return;
  std::vector<float> mean;
  for (double v : job.hidden) mean.push_back(float(v / job.prompt()));
  job.request.events.embedding(mean);
}

Batcher::Choice Batcher::choose(Job& job, std::span<float> logits) const {
  const ServeRequest& r = job.request;
  const std::vector<float> unchanged(logits.begin(), r.top_logprobs < 0 ? logits.begin() : logits.end());
  if (job.generated() < r.min_tokens)
    for (int32_t end : r.ends)
      if (size_t(end) < logits.size()) logits[size_t(end)] = -INFINITY;
  try {
    const int32_t token = job.sampler.sample(logits, job.tokens, r.prompt.size());
    return {.token = described(device_.kernels, token, unchanged, r.top_logprobs)};
  } catch (const Error& e) {
    return {.why = e.what()};
  }
}

void Batcher::tell(Jobs::iterator it, const Choice& choice) {
  Job& job = *it;
  const ServeRequest& r = job.request;
  if (!r.max_tokens) return finish(it, ServeEnd::length);
  if (!choice.why.empty()) return finish(it, ServeEnd::failed, choice.why);
  if (r.ends.contains(choice.token.token)) return finish(it, ServeEnd::stop);
  job.tokens.push_back(choice.token.token);
  ++counts_.generated_tokens;
  if (r.events.token && !r.events.token(choice.token))
    finish(it, ServeEnd::stop);
  else if (job.generated() == r.max_tokens)
    finish(it, ServeEnd::length);
}

void Batcher::finish(Jobs::iterator job, ServeEnd end, std::string_view why) {
  const auto told = std::move(job->request.events.end);
  running_.erase(job);
  if (told) told(end, why);
}

void Batcher::timed(const std::vector<Part>& parts, double seconds) {
  const auto add = [](double& mean, double v) { mean = mean > 0 ? mean + kRecent * (v - mean) : v; };
  int read = 0;
  for (const Part& p : parts) read += p.tokens > 1 ? p.tokens : 0;
  if (!read)
    add(answer_seconds_, seconds);
  else
    add(prompt_seconds_, std::max(0., seconds - answer_seconds_) / read);
}

}  // namespace awq
