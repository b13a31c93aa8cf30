#pragma once
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja_lexer.h"
#include "text/jinja_value.h"

namespace awq::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

enum class BinaryOp { add, sub, mul, div, floor_div, mod, pow };
enum class CompareOp { eq, ne, lt, le, gt, ge, in, not_in };

struct Expr {
  enum class Kind {
    literal,      // value
    name,         // text
    block,        // the text of the block that a block filter works on
    list,         // args
    tuple,        // args
    dict,         // args: key, value, key, value ...
    attribute,    // args[0].text
    item,         // args[0][args[1]]
    slice,        // args[0][args[1]:args[2]:args[3]]; each of the three may be null
    call,         // args[0](args[1] ..., named ...)
    filter,       // args[0] | text(args[1] ..., named ...)
    test,         // args[0] is text(args[1] ..., named ...)
    negate,       // -args[0]
    plus,         // +args[0]
    logical_not,  // not args[0]
    logical_and,
    logical_or,
    binary,       // args[0] op args[1]
    compare,      // args[0] compares[0] args[1] compares[1] args[2] ...
    concat,       // args[0] ~ args[1] ~ ...
    conditional,  // args[0] if args[1] else args[2]; args[2] may be null
  };
  Kind kind;
  Position at;
  std::string text;
  Value value;
  std::vector<ExprPtr> args;
  std::vector<std::pair<std::string, ExprPtr>> named;
  BinaryOp op = BinaryOp::add;
  std::vector<CompareOp> compares;
  int depth = 1;  // of the tree
};

struct Stmt;
using Body = std::vector<Stmt>;

struct Branch {
  ExprPtr condition;  // null: else
  Body body;
};

struct Parameter {
  std::string name;
  ExprPtr missing;  // may be null
};

struct Stmt {
  enum class Kind {
    data,          // text
    output,        // value
    if_branch,     // the first of branches that holds
    for_loop,      // target in value if condition: body, or otherwise
    set,           // target = value
    set_block,     // target = body, through the filters in value (may be null)
    macro,         // text(parameters): body
    call_block,    // value (a call) with body(parameters) as its caller
    filter_block,  // body, through the filters in value
    with_block,    // assignments, then body, in a scope of their own
    scope,         // body in a scope of its own
    break_loop,
    continue_loop
  };
  Kind kind = Kind::data;
  Position at{};
  std::string text{};
  ExprPtr target{};  // a name, an attribute of a name (namespaces), or a tuple of these
  ExprPtr value{};
  ExprPtr condition{};
  std::vector<Branch> branches{};
  std::vector<Parameter> parameters{};
  std::vector<std::pair<ExprPtr, ExprPtr>> assignments{};  // target, value
  Body body{}, otherwise{};
  bool uses_caller = false, uses_kwargs = false,
       uses_varargs = false;  // macro and call_block: names that the body mentions
};

}  // namespace awq::jinja
