#include "text/jinja_parser.h"

#include <algorithm>
#include <charconv>

#include "base/check.h"

namespace awq::jinja {
namespace {

constexpr int kDeepestNesting = 200;  // brackets and blocks
constexpr int kDeepestTree = 400;     // with chains such as a + b + c, which lean to one side

using Names = std::initializer_list<std::string_view>;

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(lex(source)) {}

  Body run() {
    Body body = statements({});
    return body;
  }

 private:
  // --- tokens

  const Token& peek(size_t ahead = 0) const { return tokens_[std::min(next_ + ahead, tokens_.size() - 1)]; }
  const Token& take() {
    const Token& t = peek();
    if (next_ + 1 < tokens_.size()) ++next_;
    return t;
  }
  bool is_op(std::string_view op, size_t ahead = 0) const {
    return peek(ahead).kind == Token::Kind::op && peek(ahead).value == op;
  }
  bool is_name(std::string_view name, size_t ahead = 0) const {
    return peek(ahead).kind == Token::Kind::name && peek(ahead).value == name;
  }
  bool is_one_of(Names names) const {
    return peek().kind == Token::Kind::name && std::find(names.begin(), names.end(), peek().value) != names.end();
  }
  bool skip_op(std::string_view op) { return is_op(op) && (take(), true); }
  bool skip_name(std::string_view name) { return is_name(name) && (take(), true); }

  [[noreturn]] void error(std::string_view what) const { template_error(peek().at, what); }
  [[noreturn]] void unexpected(std::string_view expected) const {
    error(fmt::format("expected {}, got {}", expected, described(peek())));
  }

  static std::string described(const Token& t) {
    switch (t.kind) {
      case Token::Kind::end:
        return "the end of the template";
      case Token::Kind::tag_end:
        return "%}";
      case Token::Kind::output_end:
        return "}}";
      case Token::Kind::text:
        return "a string";
      default:
        return fmt::format("`{}`", t.value);
    }
  }

  void expect_op(std::string_view op) {
    if (!skip_op(op)) unexpected(fmt::format("`{}`", op));
  }
  std::string expect_name() {
    if (peek().kind != Token::Kind::name) unexpected("a name");
    return take().value;
  }
  void expect(Token::Kind kind, std::string_view what) {
    if (peek().kind != kind) unexpected(what);
    take();
  }

  // --- depth

  class Nested {
   public:
    explicit Nested(Parser& p) : p_(p) {
      if (++p_.nesting_ > kDeepestNesting) p_.error(fmt::format("more than {} levels of nesting", kDeepestNesting));
    }
    ~Nested() { --p_.nesting_; }
    Nested(const Nested&) = delete;
    Nested& operator=(const Nested&) = delete;

   private:
    Parser& p_;
  };

  ExprPtr make(Expr::Kind kind, Position at) const {
    auto e = std::make_unique<Expr>();
    e->kind = kind;
    e->at = at;
    return e;
  }
  void add(Expr& parent, ExprPtr child) const {
    if (child) grow(parent, *child);
    parent.args.push_back(std::move(child));
  }
  void grow(Expr& parent, const Expr& child) const {
    parent.depth = std::max(parent.depth, child.depth + 1);
    if (parent.depth > kDeepestTree)
      template_error(parent.at, fmt::format("an expression of more than {} levels", kDeepestTree));
  }
  ExprPtr make(Expr::Kind kind, Position at, ExprPtr a, ExprPtr b = nullptr) const {
    ExprPtr e = make(kind, at);
    add(*e, std::move(a));
    if (b) add(*e, std::move(b));
    return e;
  }

  // --- statements

  /// Until a tag whose name is in `ends`; that name is the next token then. Without ends, until the template's.
  Body statements(Names ends) {
    const Nested nested(*this);
    Body body;
    while (peek().kind != Token::Kind::end) {
      const Position at = peek().at;
      if (peek().kind == Token::Kind::data) {
        body.push_back(Stmt{.kind = Stmt::Kind::data, .at = at, .text = take().value});
      } else if (peek().kind == Token::Kind::output_begin) {
        take();
        body.push_back(Stmt{.kind = Stmt::Kind::output, .at = at});
        body.back().value = tuple_or_expression(true);
        expect(Token::Kind::output_end, "}}");
      } else {
        expect(Token::Kind::tag_begin, "a tag");
        if (is_one_of(ends)) return body;
        body.push_back(statement());
        expect(Token::Kind::tag_end, "%}");
      }
    }
    if (ends.size() > 0) error(fmt::format("expected {{% {} %}}, got the end of the template", *(ends.end() - 1)));
    return body;
  }

  /// The body of a tag up to one of `ends`, the last of which closes it.
  Body body_until(Names ends) {
    skip_op(":");
    expect(Token::Kind::tag_end, "%}");
    return statements(ends);
  }
  Body closed_body(std::string_view end) {
    Body body = body_until({end});
    take();
    return body;
  }
  /// A body that runs on its own: a loop around it cannot be left from inside.
  Body isolated_body(std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    Body body = closed_body(end);
    loops_ = loops;
    return body;
  }

  Stmt statement() {
    const Token tag = peek();
    if (tag.kind != Token::Kind::name) unexpected("the name of a tag");
    take();
    Stmt s{.kind = Stmt::Kind::scope, .at = tag.at};
    if (tag.value == "if")
      if_branches(s);
    else if (tag.value == "for")
      for_loop(s);
    else if (tag.value == "set")
      set(s);
    else if (tag.value == "macro")
      macro(s);
    else if (tag.value == "call")
      call_block(s);
    else if (tag.value == "filter")
      filter_block(s);
    else if (tag.value == "with")
      with_block(s);
    else if (tag.value == "generation")
      s.body = isolated_body("endgeneration");
    else if (tag.value == "break" || tag.value == "continue")
      loop_control(s, tag);
    else
      template_error(tag.at, fmt::format("the tag `{}` is unknown or not implemented", tag.value));
    return s;
  }

  void if_branches(Stmt& s) {
    s.kind = Stmt::Kind::if_branch;
    for (std::string closing = "elif"; closing == "elif"; closing = take().value) {
      s.branches.emplace_back();
      s.branches.back().condition = tuple_or_expression(false);
      s.branches.back().body = body_until({"elif", "else", "endif"});
      if (!is_name("else")) continue;
      take();
      s.branches.emplace_back();
      s.branches.back().body = closed_body("endif");
      return;
    }
  }

  void for_loop(Stmt& s) {
    s.kind = Stmt::Kind::for_loop;
    s.target = target(false);
    if (mentions_loop(*s.target)) template_error(s.target->at, "`loop` cannot be the variable of a loop");
    if (!skip_name("in")) unexpected("`in`");
    s.value = tuple_or_expression(false);
    if (skip_name("if")) s.condition = expression();
    if (is_name("recursive")) error("recursive loops are not implemented");
    ++loops_;
    s.body = body_until({"else", "endfor"});
    --loops_;
    if (take().value == "else") s.otherwise = closed_body("endfor");
  }

  static bool mentions_loop(const Expr& target) {
    return target.text == "loop" ||
           std::any_of(target.args.begin(), target.args.end(), [](const ExprPtr& e) { return mentions_loop(*e); });
  }

  void loop_control(Stmt& s, const Token& tag) const {
    s.kind = tag.value == "break" ? Stmt::Kind::break_loop : Stmt::Kind::continue_loop;
    if (loops_ == 0) template_error(tag.at, fmt::format("`{}` outside a loop", tag.value));
  }

  void set(Stmt& s) {
    s.target = target(true);
    if (skip_op("=")) {
      s.kind = Stmt::Kind::set;
      s.value = tuple_or_expression(true);
      return;
    }
    s.kind = Stmt::Kind::set_block;
    if (is_op("|")) s.value = filters(make(Expr::Kind::block, peek().at));
    s.body = isolated_body("endset");
  }

  void macro(Stmt& s) {
    s.kind = Stmt::Kind::macro;
    s.text = expect_name();
    s.parameters = signature();
    function_body(s, "endmacro");
  }

  void call_block(Stmt& s) {
    s.kind = Stmt::Kind::call_block;
    if (is_op("(")) s.parameters = signature();
    s.value = expression();
    if (s.value->kind != Expr::Kind::call) template_error(s.value->at, "{% call %} needs a call");
    function_body(s, "endcall");
  }

  /// Notes which of the implicit names the body mentions: a macro takes surplus arguments only if it does.
  void function_body(Stmt& s, std::string_view end) {
    const Mentions outer = std::exchange(mentions_, {});
    s.body = isolated_body(end);
    s.uses_caller = mentions_.caller;
    s.uses_kwargs = mentions_.kwargs;
    s.uses_varargs = mentions_.varargs;
    mentions_ = {outer.caller || mentions_.caller, outer.kwargs || mentions_.kwargs,
                 outer.varargs || mentions_.varargs};
  }

  std::vector<Parameter> signature() {
    std::vector<Parameter> parameters;
    expect_op("(");
    while (!is_op(")")) {
      if (!parameters.empty()) expect_op(",");
      Parameter p{expect_name(), nullptr};
      if (skip_op("="))
        p.missing = expression();
      else if (!parameters.empty() && parameters.back().missing)
        error("a parameter without a default follows one with a default");
      parameters.push_back(std::move(p));
    }
    take();
    return parameters;
  }

  void filter_block(Stmt& s) {
    s.kind = Stmt::Kind::filter_block;
    s.value = filters(filter(make(Expr::Kind::block, peek().at)));
    s.body = isolated_body("endfilter");
  }

  void with_block(Stmt& s) {
    s.kind = Stmt::Kind::with_block;
    while (peek().kind != Token::Kind::tag_end) {
      if (!s.assignments.empty()) expect_op(",");
      ExprPtr name = target(false);
      expect_op("=");
      s.assignments.emplace_back(std::move(name), expression());
    }
    s.body = closed_body("endwith");
  }

  /// What can stand left of `=` or `in`: names, tuples of names and, where asked, attributes of namespaces.
  ExprPtr target(bool with_attributes) {
    const Position at = peek().at;
    std::vector<ExprPtr> parts;
    bool is_tuple = false;
    while (true) {
      parts.push_back(single_target(with_attributes));
      if (!skip_op(",")) break;
      is_tuple = true;
      if (is_op("=") || is_op(")") || peek().kind == Token::Kind::tag_end) break;
    }
    if (!is_tuple) return std::move(parts[0]);
    ExprPtr tuple = make(Expr::Kind::tuple, at);
    for (ExprPtr& p : parts) add(*tuple, std::move(p));
    return tuple;
  }

  ExprPtr single_target(bool with_attributes) {
    const Nested nested(*this);
    const Position at = peek().at;
    if (skip_op("(")) {
      ExprPtr inner = target(with_attributes);
      expect_op(")");
      return inner;
    }
    ExprPtr e = make(Expr::Kind::name, at);
    e->text = expect_name();
    for (const std::string_view reserved : {"true", "false", "none", "True", "False", "None"})
      if (e->text == reserved) template_error(at, fmt::format("`{}` cannot be assigned", reserved));
    if (!with_attributes || !skip_op(".")) return e;
    ExprPtr attribute = make(Expr::Kind::attribute, at, std::move(e));
    attribute->text = expect_name();
    return attribute;
  }

  // --- expressions, loosest first

  ExprPtr tuple_or_expression(bool with_conditional, bool may_be_empty = false) {
    const Position at = peek().at;
    std::vector<ExprPtr> parts;
    bool is_tuple = false;
    while (!tuple_ends()) {
      parts.push_back(with_conditional ? expression() : logical_or());
      is_tuple = skip_op(",");
      if (!is_tuple) break;
    }
    if (parts.size() == 1 && !is_tuple) return std::move(parts[0]);
    if (parts.empty() && !may_be_empty) unexpected("an expression");
    ExprPtr tuple = make(Expr::Kind::tuple, at);
    for (ExprPtr& p : parts) add(*tuple, std::move(p));
    return tuple;
  }

  bool tuple_ends() const {
    return peek().kind == Token::Kind::output_end || peek().kind == Token::Kind::tag_end || is_op(")");
  }

  ExprPtr expression() {
    const Nested nested(*this);
    ExprPtr e = logical_or();
    while (is_name("if")) {
      const Position at = take().at;
      ExprPtr condition = logical_or();
      ExprPtr chosen = make(Expr::Kind::conditional, at, std::move(e), std::move(condition));
      add(*chosen, skip_name("else") ? expression() : nullptr);
      e = std::move(chosen);
    }
    return e;
  }

  ExprPtr logical_or() {
    ExprPtr left = logical_and();
    while (is_name("or")) {
      const Position at = take().at;
      left = make(Expr::Kind::logical_or, at, std::move(left), logical_and());
    }
    return left;
  }

  ExprPtr logical_and() {
    ExprPtr left = logical_not();
    while (is_name("and")) {
      const Position at = take().at;
      left = make(Expr::Kind::logical_and, at, std::move(left), logical_not());
    }
    return left;
  }

  ExprPtr logical_not() {
    if (!is_name("not")) return comparison();
    const Nested nested(*this);
    const Position at = take().at;
    return make(Expr::Kind::logical_not, at, logical_not());
  }

  std::optional<CompareOp> compare_op() {
    constexpr std::pair<std::string_view, CompareOp> ops[] = {{"==", CompareOp::eq}, {"!=", CompareOp::ne},
                                                              {"<", CompareOp::lt},  {"<=", CompareOp::le},
                                                              {">", CompareOp::gt},  {">=", CompareOp::ge}};
    for (const auto& op : ops)
      if (skip_op(op.first)) return op.second;
    if (skip_name("in")) return CompareOp::in;
    if (!is_name("not") || !is_name("in", 1)) return std::nullopt;
    take();
    take();
    return CompareOp::not_in;
  }

  ExprPtr comparison() {
    const Position at = peek().at;
    ExprPtr left = sum();
    std::optional<CompareOp> op = compare_op();
    if (!op) return left;
    ExprPtr e = make(Expr::Kind::compare, at, std::move(left));
    for (; op; op = compare_op()) {
      e->compares.push_back(*op);
      add(*e, sum());
    }
    return e;
  }

  using Level = ExprPtr (Parser::*)();
  ExprPtr left_associative(std::initializer_list<std::pair<std::string_view, BinaryOp>> ops, Level operand) {
    ExprPtr left = (this->*operand)();
    while (true) {
      const auto* found = std::find_if(ops.begin(), ops.end(), [&](const auto& op) { return is_op(op.first); });
      if (found == ops.end()) return left;
      const Position at = take().at;
      left = make(Expr::Kind::binary, at, std::move(left), (this->*operand)());
      left->op = found->second;
    }
  }

  ExprPtr sum() { return left_associative({{"+", BinaryOp::add}, {"-", BinaryOp::sub}}, &Parser::concatenation); }

  ExprPtr concatenation() {
    const Position at = peek().at;
    ExprPtr first = product();
    if (!is_op("~")) return first;
    ExprPtr e = make(Expr::Kind::concat, at, std::move(first));
    while (skip_op("~")) add(*e, product());
    return e;
  }

  ExprPtr product() {
    return left_associative(
        {{"*", BinaryOp::mul}, {"/", BinaryOp::div}, {"//", BinaryOp::floor_div}, {"%", BinaryOp::mod}},
        &Parser::power);
  }
  ExprPtr power() { return left_associative({{"**", BinaryOp::pow}}, &Parser::filtered_unary); }
  ExprPtr filtered_unary() { return unary(true); }

  ExprPtr unary(bool with_filters) {
    const Nested nested(*this);
    const Position at = peek().at;
    ExprPtr e;
    if (skip_op("-"))
      e = make(Expr::Kind::negate, at, unary(false));
    else if (skip_op("+"))
      e = make(Expr::Kind::plus, at, unary(false));
    else
      e = primary();
    e = postfix(std::move(e));
    return with_filters ? filters_and_tests(std::move(e)) : std::move(e);
  }

  ExprPtr literal(Position at, Value v) const {
    ExprPtr e = make(Expr::Kind::literal, at);
    e->value = std::move(v);
    return e;
  }

  ExprPtr primary() {
    const Token t = peek();
    switch (t.kind) {
      case Token::Kind::name:
        return name();
      case Token::Kind::text:
        return text();
      case Token::Kind::integer:
      case Token::Kind::real:
        return number();
      default:
        break;
    }
    if (is_op("[")) return list();
    if (is_op("{")) return dict();
    if (!skip_op("(")) unexpected("an expression");
    ExprPtr e = tuple_or_expression(true, true);
    expect_op(")");
    return e;
  }

  ExprPtr name() {
    const Token t = take();
    if (t.value == "true" || t.value == "True") return literal(t.at, Value(true));
    if (t.value == "false" || t.value == "False") return literal(t.at, Value(false));
    if (t.value == "none" || t.value == "None") return literal(t.at, Value::none());
    if (t.value == "caller") mentions_.caller = true;
    if (t.value == "kwargs") mentions_.kwargs = true;
    if (t.value == "varargs") mentions_.varargs = true;
    ExprPtr e = make(Expr::Kind::name, t.at);
    e->text = t.value;
    return e;
  }

  ExprPtr text() {
    const Position at = peek().at;
    std::string joined;
    while (peek().kind == Token::Kind::text) joined.append(take().value);
    return literal(at, Value(std::move(joined)));
  }

  ExprPtr number() {
    const Token t = take();
    const char* end = t.value.data() + t.value.size();
    int64_t i = 0;
    double d = 0;
    const auto result = t.kind == Token::Kind::integer ? std::from_chars(t.value.data(), end, i)
                                                       : std::from_chars(t.value.data(), end, d);
    if (result.ec != std::errc()) template_error(t.at, "the number is out of range");
    return literal(t.at, t.kind == Token::Kind::integer ? Value(i) : Value(d));
  }

  ExprPtr list() {
    ExprPtr e = make(Expr::Kind::list, take().at);
    while (!is_op("]")) {
      if (!e->args.empty()) expect_op(",");
      if (is_op("]")) break;
      add(*e, expression());
    }
    take();
    return e;
  }

  ExprPtr dict() {
    ExprPtr e = make(Expr::Kind::dict, take().at);
    while (!is_op("}")) {
      if (!e->args.empty()) expect_op(",");
      if (is_op("}")) break;
      add(*e, expression());
      expect_op(":");
      add(*e, expression());
    }
    take();
    return e;
  }

  ExprPtr postfix(ExprPtr e) {
    while (true) {
      if (is_op("."))
        e = attribute(std::move(e));
      else if (is_op("["))
        e = subscript(std::move(e));
      else if (is_op("("))
        e = call(std::move(e));
      else
        return e;
    }
  }

  ExprPtr attribute(ExprPtr object) {
    const Position at = take().at;
    if (peek().kind == Token::Kind::integer) return make(Expr::Kind::item, at, std::move(object), number());
    ExprPtr e = make(Expr::Kind::attribute, at, std::move(object));
    e->text = expect_name();
    return e;
  }

  ExprPtr subscript(ExprPtr object) {
    const Position at = take().at;
    ExprPtr e = is_op(":") ? nullptr : expression();
    if (is_op(":"))
      e = slice(at, std::move(object), std::move(e));
    else
      e = make(Expr::Kind::item, at, std::move(object), std::move(e));
    if (is_op(",")) error("several subscripts at once are not implemented");
    expect_op("]");
    return e;
  }

  ExprPtr slice(Position at, ExprPtr object, ExprPtr start) {
    ExprPtr e = make(Expr::Kind::slice, at, std::move(object));
    add(*e, std::move(start));
    for (int i = 0; i < 2; ++i) add(*e, skip_op(":") && !is_op(":") && !is_op("]") ? expression() : nullptr);
    return e;
  }

  ExprPtr call(ExprPtr function) {
    ExprPtr e = make(Expr::Kind::call, peek().at, std::move(function));
    arguments(*e);
    return e;
  }

  void arguments(Expr& e) {
    expect_op("(");
    while (!is_op(")")) {
      if (is_op("*") || is_op("**")) error("argument unpacking is not implemented");
      if (peek().kind == Token::Kind::name && is_op("=", 1))
        named_argument(e);
      else if (!e.named.empty())
        error("a positional argument follows a named one");
      else
        add(e, expression());
      if (!is_op(")")) expect_op(",");
    }
    take();
  }

  void named_argument(Expr& e) {
    std::string name = take().value;
    take();
    if (std::any_of(e.named.begin(), e.named.end(), [&](const auto& n) { return n.first == name; }))
      error(fmt::format("the argument `{}` is given twice", name));
    ExprPtr value = expression();
    grow(e, *value);
    e.named.emplace_back(std::move(name), std::move(value));
  }

  ExprPtr filters_and_tests(ExprPtr e) {
    while (true) {
      if (is_op("|"))
        e = filters(std::move(e));
      else if (is_name("is"))
        e = test(std::move(e));
      else if (is_op("("))
        e = call(std::move(e));
      else
        return e;
    }
  }

  ExprPtr filters(ExprPtr e) {
    while (skip_op("|")) e = filter(std::move(e));
    return e;
  }

  ExprPtr filter(ExprPtr input) {
    ExprPtr e = make(Expr::Kind::filter, peek().at, std::move(input));
    e->text = dotted_name();
    if (is_op("(")) arguments(*e);
    return e;
  }

  std::string dotted_name() {
    std::string name = expect_name();
    while (skip_op(".")) name.append(".").append(expect_name());
    return name;
  }

  ExprPtr test(ExprPtr input) {
    const Position at = take().at;
    const bool negated = skip_name("not");
    ExprPtr e = make(Expr::Kind::test, at, std::move(input));
    e->text = dotted_name();
    if (is_op("(")) {
      arguments(*e);
    } else if (starts_operand()) {
      if (is_name("is")) error("tests cannot be chained");
      add(*e, postfix(primary()));
    }
    return negated ? make(Expr::Kind::logical_not, at, std::move(e)) : std::move(e);
  }

  /// Whether the one argument of a test without brackets follows.
  bool starts_operand() const {
    switch (peek().kind) {
      case Token::Kind::name:
        return !is_one_of({"else", "or", "and"});
      case Token::Kind::text:
      case Token::Kind::integer:
      case Token::Kind::real:
        return true;
      default:
        return is_op("[") || is_op("{");
    }
  }

  struct Mentions {
    bool caller = false, kwargs = false, varargs = false;
  };

  std::vector<Token> tokens_;
  size_t next_ = 0;
  int nesting_ = 0, loops_ = 0;
  Mentions mentions_;
};

}  // namespace

Body parse(std::string_view source) { return Parser(source).run(); }

}  // namespace awq::jinja
