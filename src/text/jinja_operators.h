#pragma once
// What operators do to values; as in Python.
#include "text/jinja_ast.h"

namespace awq::jinja {

Value arithmetic(Budget& budget, BinaryOp op, const Value& a, const Value& b);
bool holds(Budget& budget, CompareOp op, const Value& a, const Value& b);
Value negate(const Value& v);
Value positive(const Value& v);

/// Python's slice: the positions that start:stop:step selects of n.
std::vector<int64_t> slice_positions(int64_t n, std::optional<int64_t> start, std::optional<int64_t> stop,
                                     std::optional<int64_t> step);
Value slice_of(Budget& budget, const Value& v, std::optional<int64_t> start, std::optional<int64_t> stop,
               std::optional<int64_t> step);
/// With HTML's characters escaped, unless it is marked safe.
MarkedText escaped(const Value& text);
/// str.replace.
MarkedText replaced(Budget& budget, const MarkedText& s, const std::string& from, const MarkedText& to, int64_t limit);
/// The character or entry at a position, counted from the end if negative.
std::optional<Value> entry_at(const Value& v, int64_t position);

}  // namespace awq::jinja
