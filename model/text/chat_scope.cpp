#include "model/text/chat_scope.h"

#include <array>
#include <ctime>

#include "model/io/file.h"
#include "vk/error.h"

namespace vkflux::chat {
namespace {

constexpr size_t kMostText = size_t{4} << 20, kMostSteps = 100'000;

std::string today(const std::string& format) {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  std::array<char, 256> text{};
  return {text.data(), std::strftime(text.data(), text.size(), format.c_str(), &local)};
}

}  // namespace

void Scope::step() {
  if (++steps > kMostSteps || out.size() > kMostText) bad("it doesn't end in good time");
}

Value call(Scope& s, const std::string& name, const Arguments& a) {
  if (const auto macro = s.macros.find(name); macro != s.macros.end()) {
    if (++s.depth > kMostDepth) bad("its macros call each other too deeply");
    const Macro m = macro->second;
    std::map<std::string, Value> own;
    for (size_t i = 0; i < m.parameters.size(); ++i) {
      const auto& [parameter, fallback] = m.parameters[i];
      own[parameter] = a.get(i, parameter, fallback ? fallback(s) : undefined());
    }
    // A macro sees the outermost variables and its own.
    std::vector<std::map<std::string, Value>> outside{s.levels.front(), std::move(own)};
    std::swap(outside, s.levels);
    std::string text = s.captured(*m.body);
    std::swap(outside, s.levels);
    --s.depth;
    return text;
  }
  if (name == "raise_exception")
    throw Error(ErrorCode::invalid_argument,
                "the chat template objects: " + io::shown(text(a.get(0, "", ""))));
  if (name == "strftime_now") return today(text(a.get(0, "", "")));
  if (name == "namespace" || name == "dict") {
    Value out = Value::object();
    for (const auto& [key, value] : a.named) out[key] = value;
    return out;
  }
  if (name == "range") {
    const bool one = a.list.size() < 2;
    const Value from = one ? Value(0) : a.list[0], to = a.get(one ? 0 : 1, "", 0), by = a.get(2, "", 1);
    if (!from.is_number_integer() || !to.is_number_integer() || !by.is_number_integer() || by == 0)
      bad("range needs whole numbers");
    Value out = Value::array();
    const auto n = by.get<int64_t>();
    for (auto i = from.get<int64_t>(); n > 0 ? i < to.get<int64_t>() : i > to.get<int64_t>(); i += n) {
      out.push_back(i);
      s.step();
    }
    return out;
  }
  unknown("function", name);
}

}  // namespace vkflux::chat
