#include "eval/answer_prompts.h"

#include "base/check.h"
#include "eval/record.h"

namespace awq {
namespace {

constexpr const char *kReasoning = "reasoning", *kCode = "code", *kDialogue = "dialogue", *kPlain = "text";

struct BuiltIn {
  const char *kind, *text;
};

// clang-format off: one prompt a line
constexpr BuiltIn kBuiltIn[] = {
    {kReasoning,
     "A farmer has 3 fields with 14 rows of cabbages each, and every row has 9 cabbages. How many cabbages are there? "
     "Think step by step."},
    {kCode, "def median(values):\n    \"\"\"The median of a list of numbers, which need not be sorted.\"\"\"\n"},
    {kDialogue, "I have to give a talk next week and I am very nervous. What can I do?"},
    {kReasoning,
     "A bus leaves at 8:40 and arrives at 11:15. How many minutes does the journey take? Explain how you found it."},
    {kCode, "// Reverses the words of a sentence in place.\nvoid reverse_words(std::string& s) {\n"},
    {kDialogue, "Tell me about the history of the bicycle in a few paragraphs."},
    {kReasoning,
     "Lena is twice as old as Tom. In six years the two will be 48 together. How old is Lena now? Show your work."},
    {kCode,
     "import csv\n\ndef total_by_customer(path):\n    \"\"\"Sums the column 'amount' for each 'customer' of a CSV "
     "file.\"\"\"\n"},
    {kDialogue,
     "My neighbour plays loud music at night. Write a friendly letter that asks for quiet after ten o'clock."},
    {kReasoning,
     "A coat costs 120 dollars. It is reduced by 25 percent, and then by another 10 dollars. What is its price? Go "
     "through it step by step."},
    {kCode,
     "class Stack:\n    \"\"\"A stack with push, pop and the smallest element in constant time.\"\"\"\n\n    def "
     "__init__(self):\n"},
    {kDialogue, "What is the difference between a moth and a butterfly?"},
    {kReasoning,
     "Five machines make 5 parts in 5 minutes. How many minutes do 50 machines need for 50 parts? Give your reasons."},
    {kCode, "function debounce(callback, milliseconds) {\n  // Calls back once, when nothing has come for a while.\n"},
    {kDialogue, "Plan a day in a city with an old harbour for a family with two small children."},
    {kReasoning,
     "A tank holds 240 litres. One pipe fills 12 litres a minute, and a leak loses 4 litres a minute. After how many "
     "minutes is the empty tank full?"},
    {kCode, "-- The three products that sold most in each month of last year\nSELECT"},
    {kDialogue, "Explain to a child why the moon changes its shape."},
    {kReasoning,
     "There are 7 red, 5 green and 8 blue balls in a box. How many must you take without looking to be sure of two of "
     "one colour? Explain."},
    {kCode, "fn is_balanced(text: &str) -> bool {\n    // Whether every bracket is closed, and in the right order.\n"},
    {kDialogue, "I would like to learn to cook. Which three dishes should I begin with, and why?"},
    {kReasoning,
     "The sum of three consecutive whole numbers is 84. What is the largest of them? Write down the steps."},
    {kCode, "#!/usr/bin/env bash\n# Finds files above 100 MB below a folder and lists them, the largest first.\n"},
    {kDialogue, "Write a short story about a lighthouse keeper who finds a letter."},
};
// clang-format on

nlohmann::ordered_json one_message(const std::string& text) {
  return nlohmann::ordered_json::array({{{"role", "user"}, {"content", text}}});
}

std::string kind_of(const Record& r) {
  if (!r.has("kind")) return kPlain;
  std::string kind = r.text("kind");
  for (const char* known : {kReasoning, kCode, kDialogue, kPlain})
    if (kind == known) return kind;
  r.bad("kind", fmt::format("{}, {}, {} or {}", kReasoning, kCode, kDialogue, kPlain), "\"" + kind + "\"");
}

AnswerPrompt prompt_in(const Record& r) {
  if (r.is_cells()) return {.kind = kPlain, .text = r.cell(0)};
  AnswerPrompt p{.kind = kind_of(r), .text = ""};
  if (!r.has("messages")) {
    p.text = r.text("prompt");
    return p;
  }
  p.messages = nlohmann::ordered_json::array();
  for (const Record& m : r.entries("messages")) {
    p.text = m.any("content");
    p.messages.push_back({{"role", m.text("role")}, {"content", p.text}});
  }
  return p;
}

}  // namespace

std::vector<AnswerPrompt> built_in_prompts(int count) {
  if (count > int(std::size(kBuiltIn)))
    fail("compare", "--answers {}: there are {} built-in prompts; give a file for more", count, std::size(kBuiltIn));
  std::vector<AnswerPrompt> all;
  for (const BuiltIn& b : std::span(kBuiltIn).first(size_t(count))) {
    all.push_back({.kind = b.kind, .text = b.text});
    if (b.kind != std::string_view(kCode)) all.back().messages = one_message(b.text);
  }
  return all;
}

std::vector<AnswerPrompt> read_prompts(const std::filesystem::path& file) {
  std::vector<AnswerPrompt> all;
  for (const Record& r : read_records(file, 1)) all.push_back(prompt_in(r));
  return all;
}

std::vector<int32_t> encode_prompt(const AnswerPrompt& p, const TextSide& text) {
  if (!p.messages.is_null() && text.has_template()) return text.encode_chat(p.messages, true);
  return text.tokenizer().encode(p.text, true, false);
}

}  // namespace awq
