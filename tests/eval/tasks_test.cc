#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <random>

#include "awq/error.h"
#include "eval/completion.h"
#include "eval/few_shot.h"
#include "eval/samples.h"
#include "eval/task_score.h"

namespace awq {
namespace {

class Files : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path file(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }
  std::string error_of(std::string_view task, const std::string& name, const std::string& text) const {
    try {
      read_items(find_task(task), file(name, text));
    } catch (const Error& e) {
      return e.what();
    }
    return "none";
  }
  std::vector<TaskItem> items(std::string_view task, const std::string& name, const std::string& text) const {
    return read_items(find_task(task), file(name, text));
  }
  const std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / ("awq-tasks-" + std::to_string(std::random_device()()));
};

using Texts = std::vector<std::string>;

struct TaskFiles : Files {};

TEST_F(TaskFiles, HellaSwagInBothForms) {
  const auto lines = items("hellaswag", "h.txt", "Sport: A man runs. he\n2\na\nb\nc d\ne\nCook: X\n0\n1\n2\n3\n4\n");
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].contexts, Texts{"Sport: A man runs. he"});
  EXPECT_EQ(lines[0].choices, (Texts{"a", "b", "c d", "e"}));
  EXPECT_EQ(lines[0].gold, 2u);
  // The second part of the context begins with a capital; brackets go, then double spaces.
  const auto published = items(
      "hellaswag", "h.jsonl",
      R"({"activity_label": "Making tea", "ctx_a": "[header] How to make tea [title] Boil water.", "ctx_b": "the WATER", "endings": [" is [step] hot.", "b", "c", "d"], "label": "1"})");
  EXPECT_EQ(published[0].contexts, Texts{"Making tea: How to make tea. Boil water. The water"});
  EXPECT_EQ(published[0].choices, (Texts{"is hot.", "b", "c", "d"}));
  EXPECT_EQ(published[0].gold, 1u);
}

TEST_F(TaskFiles, WinoGrandeHasAContextForEachOption) {
  const auto w = items(
      "winogrande", "w.jsonl",
      R"({"sentence": "The cup held less than the jug as the _ was small. ", "option1": "cup", "option2": "jug", "answer": "1"})");
  EXPECT_EQ(w[0].contexts,
            (Texts{"The cup held less than the jug as the cup", "The cup held less than the jug as the jug"}));
  EXPECT_EQ(w[0].choices, Texts{"was small."});
  EXPECT_EQ(w[0].gold, 0u);
  EXPECT_EQ(w[0].size(), 2u);
  EXPECT_EQ(shot(w[0]), "The cup held less than the jug as the cup was small.\n\n");
}

TEST_F(TaskFiles, LetteredChoicesInThreeForms) {
  const Texts choices = {"one", "two", "three"};
  const auto authors = items(
      "arc_easy", "a.jsonl",
      R"({"question": {"stem": "Q?", "choices": [{"text": "one", "label": "1"}, {"text": "two", "label": "2"}, {"text": "three", "label": "3"}]}, "answerKey": "3"})");
  const auto hub = items(
      "arc_challenge", "b.jsonl",
      R"({"question": "Q?", "choices": {"text": ["one", "two", "three"], "label": ["A", "B", "C"]}, "answerKey": "C"})");
  const auto made = items("arc_easy", "c.jsonl",
                          R"({"query": "Question: Q?\nAnswer:", "choices": ["one", "two", "three"], "gold": 2})");
  for (const auto& a : {authors, hub, made}) {
    EXPECT_EQ(a[0].contexts, Texts{"Question: Q?\nAnswer:"});
    EXPECT_EQ(a[0].choices, choices);
    EXPECT_EQ(a[0].gold, 2u);
  }
  const auto open = items(
      "openbookqa", "o.jsonl",
      R"({"question_stem": "Ice is", "choices": {"text": ["cold", "hot"], "label": ["A", "B"]}, "answerKey": " A"})");
  EXPECT_EQ(open[0].contexts, Texts{"Ice is"});
  EXPECT_EQ(open[0].gold, 0u);
}

TEST_F(TaskFiles, TheOtherTasks) {
  const auto p = items("piqa", "p.jsonl", R"({"goal": "dry", "sol1": "sun ", "sol2": "rain", "label": 0})");
  EXPECT_EQ(p[0].contexts, Texts{"Question: dry\nAnswer:"});
  EXPECT_EQ(p[0].choices, (Texts{"sun ", "rain"}));
  const auto b = items("boolq", "b.jsonl", "\n{\"question\": \"is it\", \"passage\": \"It is.\", \"answer\": true}\n");
  EXPECT_EQ(b[0].contexts, Texts{"It is.\nQuestion: is it?\nAnswer:"});
  EXPECT_EQ(b[0].choices[b[0].gold], "yes");
  const auto l = items("lambada_openai", "l.jsonl", R"({"text": "It was his dog"})");
  EXPECT_EQ(l[0].contexts, Texts{"It was his"});
  EXPECT_EQ(l[0].choices, Texts{" dog"});
  EXPECT_EQ(items("lambada_openai", "l2.jsonl", R"({"context": "It was his", "continuation": "dog"})")[0].choices,
            Texts{" dog"});
  const auto m = items("mmlu", "high_school_physics_test.csv", "\"What, \"\"now\"\"?\n\",1,2,3,4,D\r\nX,a,b,c,d,A\n");
  EXPECT_EQ(m[0].contexts, Texts{"What, \"now\"?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:"});
  EXPECT_EQ(m[0].gold, 3u);
  EXPECT_EQ(m[1].gold, 0u);
  EXPECT_EQ(find_task("mmlu").preamble("x/high_school_physics_test.csv"),
            "The following are multiple choice questions (with answers) about high school physics.\n\n");
  const auto t =
      items("truthfulqa_mc2", "t.json",
            R"([{"question": "Q?", "mc1_targets": {"z": 1, "b": 0}, "mc2_targets": {"z": 0, "a": 1, "b": 1}}])");
  EXPECT_TRUE(t[0].contexts[0].ends_with("Barcelona, Spain.\n\nQ: Q?\nA:"));
  EXPECT_EQ(t[0].choices, (Texts{"z", "a", "b"}));
  EXPECT_EQ(t[0].truths, (std::vector<uint8_t>{0, 1, 1}));
  const auto g = items("gsm8k", "g.jsonl", R"({"question": "1+1?", "answer": "It is 2.\n#### 2"})");
  EXPECT_EQ(shot(g[0]), "Question: 1+1?\nAnswer: It is 2.\n#### 2\n\n");
}

constexpr const char* kUnlabelled =
    "{\"goal\": \"g\", \"sol1\": \"a\", \"sol2\": \"b\"}\n\n{\"goal\": \"h\", \"sol1\": \"c\", \"sol2\": \"d\"}\n";

TEST_F(TaskFiles, PiqaWithItsLabelsApart) {
  file("valid-labels.lst", "1\n0\n");
  const auto p = items("piqa", "valid.jsonl", kUnlabelled);
  ASSERT_EQ(p.size(), 2u);
  EXPECT_EQ(p[0].gold, 1u);
  EXPECT_EQ(p[1].gold, 0u);
  EXPECT_EQ(labels_of(find_task("piqa"), folder_ / "valid.jsonl"), folder_ / "valid-labels.lst");
  file("own.jsonl", R"({"goal": "g", "sol1": "a", "sol2": "b", "label": 1})");
  EXPECT_EQ(labels_of(find_task("piqa"), folder_ / "own.jsonl"), "");
}

TEST_F(TaskFiles, BadLabelsAreNamedByLine) {
  const auto error = [&](const std::string& labels) {
    file("valid-labels.lst", labels);
    return error_of("piqa", "valid.jsonl", kUnlabelled);
  };
  const std::string where = "[eval] " + (folder_ / "valid").string();
  EXPECT_TRUE(error("1\n2\n").starts_with(where + "-labels.lst line 2: \"label\": expected a number from 0 to 1, got"));
  EXPECT_TRUE(error("1\n\n0\n").starts_with(where + "-labels.lst line 2: "));
  EXPECT_TRUE(error("1\n\xff\n").starts_with(where + "-labels.lst line 2: "));
  EXPECT_TRUE(error("1\n0\n1\n").starts_with(where + "-labels.lst line 3: \"label\": expected no more than 2"));
  EXPECT_TRUE(error("1\n").starts_with(where + ".jsonl line 3: \"label\": expected line 2 of "));
  EXPECT_TRUE(error("").starts_with(where + ".jsonl line 1: "));
  std::filesystem::remove(folder_ / "valid-labels.lst");
  EXPECT_TRUE(error_of("piqa", "valid.jsonl", kUnlabelled)
                  .starts_with(where + ".jsonl line 1: \"label\": expected this field, or labels in " +
                               where.substr(7) + "-labels.lst, got neither"));
  file("both-labels.lst", "1\n0\n");
  EXPECT_NE(error_of("piqa", "both.jsonl",
                     "{\"goal\": \"g\", \"sol1\": \"a\", \"sol2\": \"b\"}\n"
                     "{\"goal\": \"h\", \"sol1\": \"c\", \"sol2\": \"d\", \"label\": 1}\n")
                .find("both.jsonl line 2: \"label\": expected no such field"),
            std::string::npos);
}

TEST_F(TaskFiles, AFolderOfParts) {
  const Task& mmlu = find_task("mmlu");
  for (const char* name : {"virology_test.csv", "anatomy_test.csv", "anatomy_dev.csv", "README.txt"})
    file(name, "q,1,2,3,4,A\n");
  const auto files = part_files(mmlu, folder_);
  EXPECT_EQ(files, (std::vector<std::filesystem::path>{folder_ / "anatomy_test.csv", folder_ / "virology_test.csv"}));
  EXPECT_EQ(part_name(mmlu, files[0]), "anatomy");
  EXPECT_THROW(part_files(find_task("piqa"), folder_), Error);
  std::filesystem::create_directories(folder_ / "empty");
  EXPECT_THROW(part_files(mmlu, folder_ / "empty"), Error);
}

TEST_F(TaskFiles, BadDataIsNamedByLine) {
  const std::string good = R"({"goal": "g", "sol1": "a", "sol2": "b", "label": 0})";
  const auto piqa = [&](const std::string& line) { return error_of("piqa", "p.jsonl", good + "\n\n" + line); };
  const std::string where = "[eval] " + (folder_ / "p.jsonl").string() + " line 3: ";
  EXPECT_TRUE(piqa(R"({"goal": "g", "sol1": "a", "label": 0})")
                  .starts_with(where + "\"sol2\": expected this field, got none in"));
  EXPECT_TRUE(piqa(R"({"goal": "g", "sol1": "a", "sol2": "b", "label": 2})")
                  .starts_with(where + "\"label\": expected a number from 0 to 1, got 2"));
  for (const char* label :
       {"-1", "-9223372036854775808", "18446744073709551615", "\"99999999999999999999\"", "\"\"", "\"0x\""})
    EXPECT_TRUE(
        piqa(fmt::format(R"({{"goal": "g", "sol1": "a", "sol2": "b", "label": {}}})", label)).starts_with(where))
        << label;
  EXPECT_TRUE(piqa(R"({"goal": "g", "sol1": "a", "sol2": "", "label": 1})")
                  .starts_with(where + "\"sol2\": expected a text that is not empty"));
  EXPECT_TRUE(piqa("{\"goal\": \"\xff\"}").starts_with(where + "byte 0xff begins no UTF-8 character"));
  EXPECT_TRUE(piqa("{\"goal\": ").starts_with(where + "no valid JSON"));
  EXPECT_NE(error_of("hellaswag", "h.txt", "c\n4\na\nb\nc\nd\n")
                .find("h.txt line 1: \"second line\": expected a number from 0 to 3, got 4"),
            std::string::npos);
  EXPECT_NE(error_of("hellaswag", "h.txt", "c\n3\na\nb\nc\nd\nc\n").find("h.txt line 7: expected 6 lines"),
            std::string::npos);
  EXPECT_NE(error_of("mmlu", "m.csv", "q,1,2,3,4,A\nq,1,2,3,4,E\n")
                .find("m.csv line 2: \"column 6\": expected one of A, B, C, D"),
            std::string::npos);
  EXPECT_NE(error_of("mmlu", "m.csv", "q,1,2,3,4\n").find("line 1: \"column 6\": expected this column, got 5"),
            std::string::npos);
  EXPECT_NE(
      error_of("truthfulqa_mc1", "t.json", R"([{"question": "Q?", "mc1_targets": {"z": 0}}])").find("t.json entry 1: "),
      std::string::npos);
  EXPECT_NE(error_of("arc_easy", "a.jsonl", R"({"query": "q", "choices": ["a", ""], "gold": 0})")
                .find("texts that are not empty"),
            std::string::npos);
  EXPECT_NE(error_of("piqa", "p.txt", "hello").find("no entries of a data set"), std::string::npos);
}

// What Python 3.11 draws: random.Random(seed).sample(range(n), k), twice.
TEST(PythonRandomTest, DrawsWhatPythonDraws) {
  using Drawn = std::vector<size_t>;
  {
    PythonRandom r(1234U);
    EXPECT_EQ(r.sample(10042, 3), (Drawn{7220, 1914, 122}));
    EXPECT_EQ(r.sample(10042, 3), (Drawn{1485, 9539, 572}));
  }
  {
    PythonRandom r(1234U);
    EXPECT_EQ(r.sample(7, 2), (Drawn{6, 3}));
    EXPECT_EQ(r.sample(7, 2), (Drawn{0, 6}));
  }
  {
    PythonRandom r(0U);
    EXPECT_EQ(r.sample(100, 10), (Drawn{49, 97, 53, 5, 33, 65, 62, 51, 38, 61}));
    EXPECT_EQ(r.sample(100, 10), (Drawn{45, 74, 27, 64, 17, 36, 96, 12, 79, 32}));
  }
  {
    PythonRandom r(1099511627781UL);
    EXPECT_EQ(r.sample(500, 6), (Drawn{258, 264, 137, 339, 474, 14}));
    EXPECT_EQ(r.sample(500, 6), (Drawn{271, 388, 418, 427, 402, 489}));
  }
}

TEST(FewShotTest, NoItemIsItsOwnExample) {
  const Task& task = find_task("piqa");
  std::vector<TaskItem> pool;
  for (const char* name : {"a", "b", "c", "d"}) pool.push_back({.contexts = {name}, .choices = {"x", "y"}, .gold = 1});
  FewShot own(task, pool, true, 2, 1234);
  for (int round = 0; round < 20; ++round)
    for (const TaskItem& item : pool) {
      const std::string text = own.before(item);
      EXPECT_EQ(text.find(item.contexts[0] + " "), std::string::npos);
      EXPECT_EQ(text.size(), 2 * std::string("a y\n\n").size());
    }
  EXPECT_THROW(FewShot(task, pool, true, 4, 0), Error);
  EXPECT_NO_THROW(FewShot(task, pool, false, 4, 0));
  FewShot first(find_task("mmlu"), pool, false, 2, 0);
  EXPECT_EQ(first.before(pool[0]), "a y\n\nb y\n\n");
}

// Three choices of which 1 is the likeliest, and 2 by its length: -6 / 1, -4 / 2, -5 / 5 (five characters, ten bytes).
TEST(TaskScores, AccuracyByLikelihoodAndByCharacters) {
  const Task& task = find_task("piqa");
  const TaskItem item{.contexts = {"c"}, .choices = {"a", "bb", "äöüßé"}, .gold = 2};
  const std::vector<Likelihood> of = {{-6}, {-4}, {-5}};
  EXPECT_EQ(choice_scores(task, item, of), (std::vector<double>{0, 1}));
  TaskItem other = item;
  other.gold = 1;
  EXPECT_EQ(choice_scores(task, other, of), (std::vector<double>{1, 0}));
  // By bytes -5 / 10 would tie with -2 / 4: the first would win.
  const std::vector<Likelihood> close = {{-6}, {-1.2}, {-4}};  // -0.6 and -0.8 by characters, -0.4 by bytes
  EXPECT_EQ(choice_scores(task, item, close), (std::vector<double>{0, 0}));
  const std::vector<Likelihood> equal = {{-3}, {-3}, {-3}};
  EXPECT_EQ(choice_scores(task, other, equal)[0], 0);  // the first of equal ones
}

TEST(TaskScores, ShareOfTrueChoicesAndCompletions) {
  const TaskItem item{.contexts = {"c"}, .choices = {"a", "b", "c"}, .truths = {1, 0, 1}};
  const std::vector<Likelihood> of = {{std::log(0.1)}, {std::log(0.3)}, {std::log(0.2)}};
  EXPECT_NEAR(choice_scores(find_task("truthfulqa_mc2"), item, of)[0], 0.5, 1e-12);
  const std::vector<Likelihood> one = {{-2.5, false}};
  EXPECT_EQ(choice_scores(find_task("lambada_openai"), item, one), (std::vector<double>{0, -2.5}));
}

// Of 1, 1, 0, 1: mean 3/4, squares 3/4, error sqrt(3/4 / 3 / 4) = 1/4. Of -1, -3: mean -2, error sqrt(2 / 1 / 2) = 1.
TEST(TaskScores, MeansAndTheirErrors) {
  const Estimate acc = metric_of("acc", {1, 1, 0, 1});
  EXPECT_DOUBLE_EQ(acc.value, 0.75);
  EXPECT_DOUBLE_EQ(acc.standard_error, 0.25);
  const Estimate perplexity = metric_of("perplexity", {-1, -3});
  EXPECT_DOUBLE_EQ(perplexity.value, std::exp(2));
  EXPECT_DOUBLE_EQ(perplexity.standard_error, std::exp(2));
}

TEST(TaskScores, NumbersOfAnswers) {
  EXPECT_EQ(strict_number("so\n#### 1,225\n#### 7"), "1,225");
  EXPECT_EQ(strict_number("the answer is 12"), "[invalid]");
  EXPECT_EQ(flexible_number("3 and -4, then $1,200.50. Done"), "$1,200.50.");
  EXPECT_EQ(flexible_number("5 of 9"), "9");
  EXPECT_EQ(flexible_number("none"), "[invalid]");
  EXPECT_EQ(comparable_answer("It is $7.\n#### $1,225."), "1225");
  const TaskItem item{.contexts = {"q"}, .choices = {"3 * 4 = 12.\n#### 12"}};
  EXPECT_EQ(answer_scores(item, " 12 it is.\n#### 12"), (std::vector<double>{1, 1}));
  EXPECT_EQ(answer_scores(item, " It is $12."), (std::vector<double>{0, 1}));
  EXPECT_EQ(answer_scores(item, "#### 13, not 12"), (std::vector<double>{0, 1}));
}

TEST(SharedTokens, AreTheInputsThatAllChoicesBeginWith) {
  using Item = std::vector<ScoredTokens>;
  EXPECT_EQ(shared_tokens(Item{{{1, 2, 3, 4}, 2}, {{1, 2, 3, 5}, 2}}), 3u);
  EXPECT_EQ(shared_tokens(Item{{{1, 2, 3, 4}, 2}, {{1, 2}, 1}}), 1u);  // the last of a sequence is no input
  EXPECT_EQ(shared_tokens(Item{{{1, 2, 3}, 1}, {{4, 2, 3}, 1}}), 0u);
  EXPECT_EQ(shared_tokens(Item{{{1, 2, 3}, 1}}), 2u);
}

Tokenizer letters() {
  nlohmann::json vocab = {{"Ġ", 0}, {"a", 1}, {"b", 2}, {"Ġa", 3}, {"ab", 4}, {"<s>", 5}};
  const nlohmann::json j = {
      {"added_tokens",
       {{{"id", 5},
         {"content", "<s>"},
         {"special", true},
         {"single_word", false},
         {"lstrip", false},
         {"rstrip", false},
         {"normalized", false}}}},
      {"pre_tokenizer",
       {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}}},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"Ġ a", "a b"}}}}};
  return Tokenizer::from_json(j, {{"bos_token", "<s>"}});
}

TEST(EncodePair, MovesSpacesAndSplitsTheWhole) {
  const Tokenizer t = letters();
  const ScoredTokens plain = encode_pair(t, "b", " a", 100);
  EXPECT_EQ(plain.tokens, (std::vector<int32_t>{2, 3}));
  EXPECT_EQ(plain.scored, 1u);
  // The space that ends the context belongs to the word that follows it.
  EXPECT_EQ(encode_pair(t, "b ", "a", 100).tokens, plain.tokens);
  EXPECT_EQ(encode_pair(t, "b ", "a", 100).scored, 1u);
  // "ba" + "b" is b, ab as a whole; the context alone is b, a: what exceeds its two tokens is nothing.
  EXPECT_THROW(encode_pair(t, "ba", "b", 100), Error);
  // An empty context is BOS; one that the text has already is not put in again.
  EXPECT_EQ(encode_pair(t, "", "b", 100).tokens, (std::vector<int32_t>{5, 2}));
  EXPECT_EQ(encode_pair(t, "", "<s>b", 100).tokens, (std::vector<int32_t>{5, 2}));
  const ScoredTokens cut = encode_pair(t, "b b b", " a a", 3);
  EXPECT_EQ(cut.tokens, (std::vector<int32_t>{0, 2, 3, 3}));
  EXPECT_TRUE(cut.cut);
  EXPECT_EQ(cut.scored, 2u);
}

class Likelihoods : public testing::TestWithParam<const char*> {
 protected:
  std::unique_ptr<Checkpoint> source_ = Checkpoint::open(std::filesystem::path(AWQ_TEST_DIR) / "golden" / GetParam());
  Device device_{2, ""};
  Model model_ = load_model(*device_.backend, *source_);

  Likelihood alone(const ScoredTokens& s) {
    const auto kv = device_.backend->kv_cache(model_.spec.blocks);
    const Sequence all{kv.get(), 0, int(s.tokens.size())};
    const Tensor l =
        head_logits(*device_.backend, model_, hidden_forward(*device_.backend, model_, s.tokens, {&all, 1}));
    const auto vocab = size_t(l.shape()[1]);
    Likelihood sum;
    for (size_t t = s.tokens.size() - s.scored; t < s.tokens.size(); ++t) {
      const auto row = l.as<float>().subspan((t - 1) * vocab, vocab);
      double z = 0;
      for (float v : row) z += std::exp(double(v));
      sum.log_likelihood += double(row[size_t(s.tokens[t])]) - std::log(z);
      sum.greedy = sum.greedy && std::ranges::max_element(row) - row.begin() == s.tokens[t];
    }
    return sum;
  }
};

// Items of several lengths in one batch, whose choices share a beginning, differ from the first token on, or are one
// token; against each sequence by itself. Log-likelihoods of up to 9 tokens are sums of numbers around 5; logits are
// within 2.3e-5 of the largest of what they are exactly (kTolerance + kPairs of the golden test).
TEST_P(Likelihoods, OfChoicesThatShareABeginningAreThoseOfEachAlone) {
  std::mt19937 random(7);
  const auto draw = [&](size_t n) {
    std::vector<int32_t> t;
    while (t.size() < n) t.push_back(int32_t(random() % unsigned(source_->spec().vocab)));
    return t;
  };
  std::vector<std::vector<ScoredTokens>> items;
  for (const size_t context : {1u, 5u, 17u, 30u}) {
    const auto before = draw(context);
    auto& item = items.emplace_back();
    for (const size_t n : {3u, 1u, 9u}) {
      item.push_back({before, n});
      for (int32_t t : draw(n)) item.back().tokens.push_back(t);
    }
  }
  items.push_back({{draw(8), 3}, {draw(8), 3}});
  items.push_back({{draw(6), 5}});
  // One continuation is what the model would write.
  const auto prompt = draw(4);
  const auto kv = device_.backend->kv_cache(model_.spec.blocks);
  const Tensor last = prefill(*device_.backend, model_, *kv, 0, prompt);
  items.push_back({{prompt, 1}});
  items.back()[0].tokens.push_back(int32_t(std::ranges::max_element(last.as<float>()) - last.as<float>().begin()));

  const auto scores = LikelihoodScorer(device_, model_, DType::f32).score(items);
  ASSERT_EQ(scores.size(), items.size());
  for (size_t i = 0; i < items.size(); ++i)
    for (size_t c = 0; c < items[i].size(); ++c) {
      const Likelihood want = alone(items[i][c]);
      EXPECT_NEAR(scores[i][c].log_likelihood, want.log_likelihood, 2e-4) << i << " " << c;
      EXPECT_EQ(scores[i][c].greedy, want.greedy) << i << " " << c;
    }
  EXPECT_TRUE(scores.back()[0].greedy);
  EXPECT_FALSE(scores[0][2].greedy);
}

INSTANTIATE_TEST_SUITE_P(Families, Likelihoods, testing::Values("llama", "gemma3"));

struct SampleFiles : Files {};

TEST_F(SampleFiles, GoOnWithTheSameRunAndWithoutATornLine) {
  const auto path = folder_ / "s.jsonl";
  const nlohmann::ordered_json run = {{"task", "piqa"}}, other = {{"task", "arc"}};
  {
    SampleFile f(path, false);
    EXPECT_TRUE(f.begin(other, 2).empty());
    f.put({{"item", 0}, {"scores", {0, 0}}});
    f.begin(run, 2);
    f.put({{"item", 3}, {"scores", {1, 0}}});
    f.sync();
  }
  std::ofstream(path, std::ios::app) << R"({"item": 4, "scores": [1,)";
  EXPECT_THROW(SampleFile(path, false), Error);
  SampleFile f(path, true);
  const auto scores = f.begin(run, 2);
  ASSERT_EQ(scores.size(), 1u);
  EXPECT_EQ(scores.at(3), (std::vector<double>{1, 0}));
  EXPECT_EQ(f.begin({{"task", "none"}}, 2).size(), 0u);
  EXPECT_EQ(f.begin(run, 1).size(), 0u);  // another number of metrics
  f.sync();
  EXPECT_EQ(SampleFile(path, true).begin(other, 2).size(), 1u);
  for (const char* entry : {R"({"item": -1, "scores": [1, 0]})", R"({"item": "3", "scores": [1, 0]})",
                            R"({"item": 3, "scores": 1})", R"({"item": 3, "scores": ["a", 0]})", R"({"item": 3})"}) {
    SampleFile damaged(file("damaged.jsonl", std::string(R"({"run":{"task":"piqa"}})") + "\n" + entry + "\n"), true);
    EXPECT_THROW(damaged.begin(run, 2), Error) << entry;
  }
  // A file of another kind stays as it is, with or without a whole line.
  for (const char* text : {"notes", "notes\n", "{\"rune\": 1}\n"}) {
    EXPECT_THROW(SampleFile(file("other.jsonl", text), true), Error);
    EXPECT_EQ(read_text(folder_ / "other.jsonl"), text);
  }
}

}  // namespace
}  // namespace awq
