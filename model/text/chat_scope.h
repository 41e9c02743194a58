// What a chat template knows while it runs.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model/text/chat_values.h"

namespace vkflux::chat {

inline constexpr int kMostDepth = 150;

struct Scope;
using Expression = std::function<Value(Scope&)>;
using Statement = std::function<void(Scope&)>;
using Block = std::vector<Statement>;

struct Macro {
  std::vector<std::pair<std::string, Expression>> parameters;  // with defaults, or none
  std::shared_ptr<Block> body;
};
enum class Flow { on, next, stop };

/// Variables, the innermost last, and the text so far.
struct Scope {
  std::vector<std::map<std::string, Value>> levels;
  std::map<std::string, Macro> macros;
  std::string out;
  Flow flow = Flow::on;
  size_t steps = 0;
  int depth = 0;

  /// Error format after too many of them.
  void step();
  Value find(const std::string& name) const {
    for (auto level = levels.rbegin(); level != levels.rend(); ++level) {
      if (const auto it = level->find(name); it != level->end()) return it->second;
    }
    return undefined();
  }
  void print(const std::string& text) {
    out += text;
    step();
  }
  void run(const Block& block) {
    for (const Statement& s : block) {
      step();
      s(*this);
      if (flow != Flow::on) return;
    }
  }
  /// What a block prints, by itself.
  std::string captured(const Block& block) {
    std::string before = std::exchange(out, {});
    run(block);
    return std::exchange(out, std::move(before));
  }
};

/// A macro, or a function that all templates have.
Value call(Scope& s, const std::string& name, const Arguments& a);

}  // namespace vkflux::chat
