#include "model/text/chat_values.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "model/text/characters.h"
#include "vk/error.h"

namespace vkflux::chat {
namespace {

constexpr size_t kMostText = size_t{4} << 20;

int64_t whole(const Value& v) {
  if (v.is_boolean()) return v.get<bool>() ? 1 : 0;
  if (!v.is_number_integer()) bad("a whole number is needed, there is " + text(v));
  return v.get<int64_t>();
}

bool is_member(std::string_view set, char32_t c) {
  for (const char32_t s : to_characters(set)) {
    if (s == c) return true;
  }
  return false;
}

/// Without characters of `set` at its ends; null: white space.
std::string stripped(const std::string& s, const Value& set, bool left, bool right) {
  std::u32string c = to_characters(s);
  const auto gone = [&](char32_t x) {
    return set.is_string() ? is_member(set.get_ref<const std::string&>(), x) : is_space(x);
  };
  size_t from = 0, to = c.size();
  while (left && from < to && gone(c[from])) ++from;
  while (right && to > from && gone(c[to - 1])) --to;
  return to_utf8(std::u32string_view(c).substr(from, to - from));
}

std::string replaced(const std::string& s, const std::string& from, const std::string& to) {
  if (from.empty()) return s;
  std::string out;
  size_t at = 0;
  for (size_t found; (found = s.find(from, at)) != std::string::npos; at = found + from.size()) {
    out += s.substr(at, found - at) + to;
    if (out.size() > kMostText) bad("a text gets too long");
  }
  return out + s.substr(at);
}

std::string cased(std::string s, bool upper) {
  for (char& c : s) {
    if (upper && c >= 'a' && c <= 'z') c = static_cast<char>(c - 32);
    if (!upper && c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return s;
}

Value split(const std::string& s, const Value& separator, int64_t most) {
  Value out = Value::array();
  if (!separator.is_string()) {
    std::string word;
    for (const char32_t c : to_characters(s)) {
      if (!is_space(c)) {
        word += to_utf8(std::u32string(1, c));
      } else if (!word.empty()) {
        out.push_back(std::exchange(word, {}));
      }
    }
    if (!word.empty()) out.push_back(word);
    return out;
  }
  const auto& by = separator.get_ref<const std::string&>();
  if (by.empty()) bad("a text is split by an empty text");
  size_t at = 0;
  for (size_t found; most != 0 && (found = s.find(by, at)) != std::string::npos;
       at = found + by.size(), --most)
    out.push_back(s.substr(at, found - at));
  out.push_back(s.substr(at));
  return out;
}

Value joined(const Value& v, const std::string& by) {
  std::string out;
  bool first = true;
  for (const Value& e : elements(v)) {
    if (!first) out += by;
    out += text(e);
    first = false;
  }
  return out;
}

/// Python's repr, of what lists and dictionaries print.
std::string quoted(const Value& v) {
  if (!v.is_string()) return text(v);
  const auto& s = v.get_ref<const std::string&>();
  const char quote = s.find('\'') != std::string::npos && s.find('"') == std::string::npos ? '"' : '\'';
  std::string out(1, quote);
  for (const char c : s) {
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\r') {
      out += "\\r";
    } else {
      if (c == quote || c == '\\') out += '\\';
      out += c;
    }
  }
  return out + quote;
}

/// json.dumps: with spaces behind commas and colons.
std::string as_json(const Value& v) {
  if (v.is_array() || v.is_object()) {
    std::string out;
    for (const auto& [key, value] : v.items())
      out += (out.empty() ? "" : ", ") + (v.is_object() ? io::json_text(Value(key)) + ": " : "") +
             as_json(value);
    return v.is_array() ? "[" + out + "]" : "{" + out + "}";
  }
  return v.is_discarded() ? "null" : io::json_text(v);
}

}  // namespace

Value undefined() {
  return Value(Value::value_t::discarded);
}

Value Arguments::get(size_t place, const std::string& name, const Value& fallback) const {
  if (place < list.size()) return list[place];
  for (const auto& [key, value] : named) {
    if (key == name) return value;
  }
  return fallback;
}

void unknown(const char* what, const std::string& name) {
  throw Error(ErrorCode::unsupported,
              fmt::format("the chat template's {} \"{}\" isn't known", what, io::shown(name)));
}
void bad(const std::string& what) {
  throw Error(ErrorCode::format, "the chat template: " + what);
}

bool truth(const Value& v) {
  if (v.is_discarded() || v.is_null()) return false;
  if (v.is_boolean()) return v.get<bool>();
  if (v.is_number()) return v.get<double>() != 0;
  if (v.is_string()) return !v.get_ref<const std::string&>().empty();
  return !v.empty();
}

std::string text(const Value& v) {
  if (v.is_discarded()) return "";
  if (v.is_string()) return v.get<std::string>();
  if (v.is_null()) return "None";
  if (v.is_boolean()) return v.get<bool>() ? "True" : "False";
  if (v.is_array() || v.is_object()) {
    std::string out;
    for (const auto& [key, value] : v.items())
      out += (out.empty() ? "" : ", ") + (v.is_object() ? quoted(Value(key)) + ": " : "") + quoted(value);
    return v.is_array() ? "[" + out + "]" : "{" + out + "}";
  }
  return io::json_text(v);
}

bool equal(const Value& a, const Value& b) {
  if (a.is_discarded() || b.is_discarded()) return a.is_discarded() && b.is_discarded();
  if (a.is_boolean() && b.is_number()) return Value(a.get<bool>() ? 1 : 0) == b;
  if (b.is_boolean() && a.is_number()) return equal(b, a);
  return a == b;
}

bool contains(const Value& whole, const Value& part) {
  if (whole.is_string() && part.is_string())
    return whole.get_ref<const std::string&>().find(part.get_ref<const std::string&>()) != std::string::npos;
  if (whole.is_object()) return part.is_string() && whole.contains(part.get<std::string>());
  if (!whole.is_array()) bad("\"in\" needs a list, a dictionary or a text");
  return std::any_of(whole.begin(), whole.end(), [&](const Value& e) { return equal(e, part); });
}

std::vector<Value> elements(const Value& v) {
  std::vector<Value> out;
  if (v.is_array()) {
    for (const Value& e : v) out.push_back(e);
  } else if (v.is_object()) {
    for (const auto& [key, value] : v.items()) out.emplace_back(key);
  } else if (v.is_string()) {
    for (const char32_t c : to_characters(v.get_ref<const std::string&>()))
      out.emplace_back(to_utf8(std::u32string(1, c)));
  } else if (!v.is_discarded()) {
    bad(text(v) + " isn't something to go over");
  }
  return out;
}

Value member(const Value& object, const Value& key) {
  if (object.is_object() && key.is_string()) {
    const auto found = object.find(key.get_ref<const std::string&>());
    return found == object.end() ? undefined() : *found;
  }
  if ((object.is_array() || object.is_string()) && key.is_number_integer()) {
    const std::vector<Value> all = elements(object);
    const int64_t i = whole(key), at = i < 0 ? i + static_cast<int64_t>(all.size()) : i;
    return at < 0 || at >= static_cast<int64_t>(all.size()) ? undefined() : all[static_cast<size_t>(at)];
  }
  if (object.is_discarded()) bad(fmt::format("\"{}\" of something that isn't defined", text(key)));
  return undefined();
}

Value slice(const Value& v, const Value& from, const Value& to, const Value& step) {
  const std::vector<Value> all = elements(v);
  const auto n = static_cast<int64_t>(all.size()), by = step.is_null() ? 1 : whole(step);
  if (by == 0) bad("a slice steps by 0");
  const auto bound = [&](const Value& b, int64_t fallback) {
    if (b.is_null()) return fallback;
    const int64_t i = whole(b) < 0 ? whole(b) + n : whole(b);
    return by > 0 ? std::clamp<int64_t>(i, 0, n) : std::clamp<int64_t>(i, -1, n - 1);
  };
  const int64_t first = bound(from, by > 0 ? 0 : n - 1), last = bound(to, by > 0 ? n : -1);
  Value out = Value::array();
  for (int64_t i = first; by > 0 ? i < last : i > last; i += by) out.push_back(all[static_cast<size_t>(i)]);
  return v.is_string() ? joined(out, "") : out;
}

Value arithmetic(const std::string& op, const Value& a, const Value& b) {
  if (op == "~") return text(a) + text(b);
  if (op == "+" && a.is_string() && b.is_string()) return a.get<std::string>() + b.get<std::string>();
  if (op == "+" && a.is_array() && b.is_array()) {
    Value out = a;
    for (const Value& e : b) out.push_back(e);
    return out;
  }
  const auto number = [](const Value& v) { return v.is_number() || v.is_boolean(); };
  if (op == "*" && a.is_string() && b.is_number_integer()) {
    std::string out;
    const auto& s = a.get_ref<const std::string&>();
    const int64_t n = std::max<int64_t>(0, whole(b));
    if (static_cast<uint64_t>(n) > kMostText || s.size() * static_cast<size_t>(n) > kMostText)
      bad("a text gets too long");
    for (int64_t i = 0; i < n; ++i) out += s;
    return out;
  }
  if (!number(a) || !number(b)) bad(fmt::format("{} {} {} can't be computed", text(a), op, text(b)));
  const auto real = [](const Value& v) {
    return v.is_boolean() ? (v.get<bool>() ? 1.0 : 0.0) : v.get<double>();
  };
  const bool exact = !a.is_number_float() && !b.is_number_float();
  const double x = real(a), y = real(b);
  if ((op == "/" || op == "//" || op == "%") && y == 0) bad("a division by zero");
  const double result = op == "+"    ? x + y
                        : op == "-"  ? x - y
                        : op == "*"  ? x * y
                        : op == "/"  ? x / y
                        : op == "//" ? std::floor(x / y)
                                     : x - std::floor(x / y) * y;
  if (exact && op != "/" && std::abs(result) < 9e15) return static_cast<int64_t>(result);
  return result;
}

bool compare(const std::string& op, const Value& a, const Value& b) {
  if (op == "==") return equal(a, b);
  if (op == "!=") return !equal(a, b);
  if (op == "in") return contains(b, a);
  if (op == "not in") return !contains(b, a);
  if (!(a.is_string() && b.is_string()) && !(a.is_number() && b.is_number()))
    bad(fmt::format("{} {} {} can't be compared", text(a), op, text(b)));
  return op == "<" ? a < b : op == "<=" ? a <= b : op == ">" ? a > b : a >= b;
}

bool test(const std::string& name, const Value& v, const Arguments& a) {
  if (name == "defined") return !v.is_discarded();
  if (name == "undefined") return v.is_discarded();
  if (name == "none") return v.is_null();
  if (name == "string") return v.is_string();
  if (name == "mapping") return v.is_object();
  if (name == "sequence" || name == "iterable") return v.is_array() || v.is_object() || v.is_string();
  if (name == "number") return v.is_number() || v.is_boolean();
  if (name == "integer") return v.is_number_integer();
  if (name == "float") return v.is_number_float();
  if (name == "boolean") return v.is_boolean();
  if (name == "true") return v.is_boolean() && v.get<bool>();
  if (name == "false") return v.is_boolean() && !v.get<bool>();
  if (name == "odd") return whole(v) % 2 != 0;
  if (name == "even") return whole(v) % 2 == 0;
  if (name == "equalto" || name == "eq" || name == "sameas") return equal(v, a.get(0, "other", undefined()));
  if (name == "ne") return !equal(v, a.get(0, "other", undefined()));
  if (name == "in") return contains(a.get(0, "seq", undefined()), v);
  unknown("test", name);
}

namespace {

/// Those elements whose attribute passes a test, or doesn't.
Value selected(const Value& v, const Arguments& a, bool attribute, bool wanted) {
  Value out = Value::array();
  const size_t at = attribute ? 1 : 0;
  Arguments rest;
  for (size_t i = at + 1; i < a.list.size(); ++i) rest.list.push_back(a.list[i]);
  for (const Value& e : elements(v)) {
    const Value what = attribute ? member(e, a.get(0, "attr", undefined())) : e;
    const bool passes = a.list.size() > at ? test(text(a.list[at]), what, rest) : truth(what);
    if (passes == wanted) out.push_back(e);
  }
  return out;
}

Value mapped(const Value& v, const Arguments& a) {
  Value out = Value::array();
  const Value attribute = a.get(SIZE_MAX, "attribute", undefined());
  Arguments rest;
  for (size_t i = 1; i < a.list.size(); ++i) rest.list.push_back(a.list[i]);
  for (const Value& e : elements(v))
    out.push_back(attribute.is_string() ? member(e, attribute)
                                        : filter(text(a.get(0, "", undefined())), e, rest));
  return out;
}

}  // namespace

Value filter(const std::string& name, const Value& v, const Arguments& a) {
  const Value null;
  if (name == "trim") return stripped(text(v), a.get(0, "chars", null), true, true);
  if (name == "length" || name == "count") return static_cast<int64_t>(elements(v).size());
  if (name == "tojson") {
    if (!a.get(0, "indent", null).is_null()) unknown("filter with an indent", name);
    return as_json(v);
  }
  if (name == "upper" || name == "lower") return cased(text(v), name == "upper");
  if (name == "capitalize") {
    const std::string lower = cased(text(v), false);
    return cased(lower.substr(0, 1), true) + lower.substr(std::min<size_t>(1, lower.size()));
  }
  if (name == "string" || name == "safe") return text(v);
  if (name == "join") return joined(v, text(a.get(0, "d", "")));
  if (name == "default" || name == "d") {
    const bool falsy = truth(a.get(1, "boolean", false)) && !truth(v);
    return v.is_discarded() || falsy ? a.get(0, "default_value", "") : v;
  }
  if (name == "list") return elements(v);
  if (name == "first" || name == "last") return member(elements(v), name == "first" ? 0 : -1);
  if (name == "reverse") return slice(v, null, null, -1);
  if (name == "replace") return replaced(text(v), text(a.get(0, "old", "")), text(a.get(1, "new", "")));
  if (name == "int")
    return v.is_number() ? static_cast<int64_t>(v.get<double>())
                         : static_cast<int64_t>(parse_number(text(v)).value_or(0));
  if (name == "items") return method(v, "items", {});
  if (name == "selectattr" || name == "rejectattr") return selected(v, a, true, name == "selectattr");
  if (name == "select" || name == "reject") return selected(v, a, false, name == "select");
  if (name == "map") return mapped(v, a);
  unknown("filter", name);
}

Value method(const Value& v, const std::string& name, const Arguments& a) {
  const Value null;
  if (v.is_string()) {
    const auto& s = v.get_ref<const std::string&>();
    if (name == "strip" || name == "lstrip" || name == "rstrip")
      return stripped(s, a.get(0, "chars", null), name != "rstrip", name != "lstrip");
    if (name == "startswith" || name == "endswith") {
      const Value wanted = a.get(0, "", "");
      for (const Value& w : wanted.is_array() ? elements(wanted) : std::vector<Value>{wanted}) {
        if (name == "startswith" ? s.starts_with(text(w)) : s.ends_with(text(w))) return true;
      }
      return false;
    }
    if (name == "split") return split(s, a.get(0, "sep", null), whole(a.get(1, "maxsplit", -1)));
    if (name == "upper" || name == "lower") return cased(s, name == "upper");
    if (name == "replace") return replaced(s, text(a.get(0, "old", "")), text(a.get(1, "new", "")));
    if (name == "join") return joined(a.get(0, "", null), s);
  }
  if (v.is_object()) {
    if (name == "get") {
      const Value found = member(v, a.get(0, "", null));
      return found.is_discarded() ? a.get(1, "", null) : found;
    }
    if (name == "items" || name == "keys" || name == "values") {
      Value out = Value::array();
      for (const auto& [key, value] : v.items())
        out.push_back(name == "keys" ? Value(key) : name == "values" ? value : Value::array({key, value}));
      return out;
    }
  }
  unknown("method", name);
}

}  // namespace vkflux::chat
