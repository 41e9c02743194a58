// Values of chat templates, and what can be done with them: filters, tests, methods.
#pragma once

#include <string>
#include <vector>

#include "model/io/json.h"

namespace vkflux::chat {

/// JSON, where a discarded value stands for what isn't defined.
using Value = io::Json;
Value undefined();
struct Arguments {
  std::vector<Value> list;
  std::vector<std::pair<std::string, Value>> named;
  /// The argument of this place or name, else a fallback.
  Value get(size_t place, const std::string& name, const Value& fallback) const;
};

[[noreturn]] void unknown(const char* what, const std::string& name);
[[noreturn]] void bad(const std::string& what);

bool truth(const Value& v);
/// As Python prints it.
std::string text(const Value& v);
bool equal(const Value& a, const Value& b);
bool contains(const Value& whole, const Value& part);
/// What a loop goes over: elements, keys, characters.
std::vector<Value> elements(const Value& v);
Value member(const Value& object, const Value& key);
Value slice(const Value& v, const Value& from, const Value& to, const Value& step);
Value arithmetic(const std::string& op, const Value& a, const Value& b);
bool compare(const std::string& op, const Value& a, const Value& b);

bool test(const std::string& name, const Value& v, const Arguments& a);
Value filter(const std::string& name, const Value& v, const Arguments& a);
Value method(const Value& v, const std::string& name, const Arguments& a);

}  // namespace vkflux::chat
