#include "model/text/chat_template.h"

#include <fmt/format.h>

#include <array>
#include <functional>
#include <utility>
#include <vector>

#include "model/text/chat_lexer.h"
#include "model/text/chat_scope.h"
#include "vk/error.h"

namespace vkflux {
namespace {

using namespace chat;

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}
  Block whole() {
    Block block = body({});
    if (now().kind != Token::end) bad(fmt::format("\"{}\" closes nothing", io::shown(now().value)));
    return block;
  }

 private:
  const Token& now() const { return tokens_[at_]; }
  bool is(Token::Kind kind, std::string_view value) const {
    return now().kind == kind && now().value == value;
  }
  bool take(Token::Kind kind, std::string_view value) {
    const bool found = is(kind, value);
    at_ += found ? 1 : 0;
    return found;
  }
  bool mark(std::string_view m) { return take(Token::mark, m); }
  bool word(std::string_view w) { return take(Token::name, w); }
  void need(Token::Kind kind, const char* what) {
    if (now().kind != kind)
      bad(fmt::format("\"{}\" stands where {} is expected", io::shown(now().value), what));
    ++at_;
  }
  void need_mark(std::string_view m) {
    if (!mark(m)) bad(fmt::format("\"{}\" stands where \"{}\" is expected", io::shown(now().value), m));
  }
  std::string name() {
    need(Token::name, "a name");
    return tokens_[at_ - 1].value;
  }
  void close() { need(Token::close_do, "the end of the tag"); }
  struct Deeper {
    int& depth;
    explicit Deeper(int& d) : depth(d) {
      if (++depth > kMostDepth) bad("it is nested too deeply");
    }
    ~Deeper() { --depth; }
  };

  /// Statements up to a tag with one of these names, which stays.
  Block body(const std::vector<std::string_view>& ends) {
    const Deeper deeper(depth_);
    Block block;
    while (now().kind != Token::end) {
      if (now().kind == Token::text) {
        block.push_back([text = tokens_[at_++].value](Scope& s) { s.print(text); });
      } else if (now().kind == Token::open_print) {
        ++at_;
        block.push_back([e = expression()](Scope& s) { s.print(chat::text(e(s))); });
        need(Token::close_print, "}}");
      } else {
        need(Token::open_do, "a tag");
        for (const std::string_view end : ends) {
          if (now().kind == Token::name && now().value == end) return block;
        }
        statement(block);
      }
    }
    if (!ends.empty()) bad(fmt::format("{} is missing", ends.back()));
    return block;
  }

  void statement(Block& block) {
    const std::string what = name();
    if (what == "if") {
      block.push_back(if_());
    } else if (what == "for") {
      block.push_back(for_());
    } else if (what == "set") {
      block.push_back(set_());
    } else if (what == "macro") {
      block.push_back(macro_());
    } else if (what == "break" || what == "continue") {
      close();
      block.push_back([flow = what == "break" ? Flow::stop : Flow::next](Scope& s) { s.flow = flow; });
    } else if (what == "generation" || what == "endgeneration") {
      close();  // they only mark what a model wrote
    } else {
      unknown("statement", what);
    }
  }

  Statement if_() {
    std::vector<std::pair<Expression, Block>> branches;
    Block otherwise;
    do {
      Expression condition = expression();
      close();
      branches.emplace_back(std::move(condition), body({"elif", "else", "endif"}));
    } while (word("elif"));
    if (word("else")) {
      close();
      otherwise = body({"endif"});
    }
    name();
    close();
    return [branches = std::move(branches), otherwise = std::move(otherwise)](Scope& s) {
      for (const auto& [condition, block] : branches) {
        if (truth(condition(s))) return s.run(block);
      }
      s.run(otherwise);
    };
  }

  Statement for_() {
    std::vector<std::string> names{name()};
    while (mark(",")) names.push_back(name());
    if (!word("in")) bad("a for without in");
    Expression over = either();
    Expression condition = word("if") ? expression() : Expression();
    close();
    Block block = body({"else", "endfor"}), otherwise;
    if (word("else")) {
      close();
      otherwise = body({"endfor"});
    }
    name();
    close();
    return [=](Scope& s) {
      const auto bind = [&](const Value& e) {
        if (names.size() == 1) {
          s.levels.back()[names[0]] = e;
        } else {
          for (size_t i = 0; i < names.size(); ++i)
            s.levels.back()[names[i]] = member(e, static_cast<int64_t>(i));
        }
      };
      s.levels.emplace_back();
      std::vector<Value> all;
      for (const Value& e : elements(over(s))) {
        s.step();
        bind(e);
        if (!condition || truth(condition(s))) all.push_back(e);
      }
      const size_t n = all.size();
      for (size_t i = 0; i < n && s.flow != Flow::stop; ++i) {
        s.levels.back().clear();
        bind(all[i]);
        s.levels.back()["loop"] = {{"index", i + 1},
                                   {"index0", i},
                                   {"revindex", n - i},
                                   {"revindex0", n - i - 1},
                                   {"first", i == 0},
                                   {"last", i + 1 == n},
                                   {"length", n},
                                   {"previtem", i > 0 ? all[i - 1] : undefined()},
                                   {"nextitem", i + 1 < n ? all[i + 1] : undefined()}};
        s.run(block);
        if (s.flow == Flow::next) s.flow = Flow::on;
      }
      s.flow = Flow::on;
      s.levels.pop_back();
      if (n == 0) s.run(otherwise);
    };
  }

  Statement set_() {
    std::vector<std::string> names{name()};
    const std::string field = mark(".") ? name() : "";
    while (mark(",")) names.push_back(name());
    Expression value;
    if (mark("=")) {
      value = expression();
      close();
    } else {
      close();
      value = [block = body({"endset"})](Scope& s) { return Value(s.captured(block)); };
      name();
      close();
    }
    return [=](Scope& s) {
      const Value v = value(s);
      if (field.empty()) {
        for (size_t i = 0; i < names.size(); ++i)
          s.levels.back()[names[i]] = names.size() == 1 ? v : member(v, static_cast<int64_t>(i));
        return;
      }
      for (auto level = s.levels.rbegin(); level != s.levels.rend(); ++level) {
        const auto it = level->find(names[0]);
        if (it == level->end() || !it->second.is_object()) continue;
        it->second[field] = v;
        return;
      }
      bad(fmt::format("{} is no namespace", names[0]));
    };
  }

  Statement macro_() {
    const std::string called = name();
    Macro m;
    need_mark("(");
    while (!mark(")")) {
      std::string parameter = name();
      m.parameters.emplace_back(std::move(parameter), mark("=") ? expression() : Expression());
      if (!is(Token::mark, ")")) need_mark(",");
    }
    close();
    m.body = std::make_shared<Block>(body({"endmacro"}));
    name();
    close();
    return [called, m](Scope& s) { s.macros[called] = m; };
  }

  Expression expression() {
    const Deeper deeper(depth_);
    Expression e = either();
    while (word("if")) {
      Expression condition = either(),
                 otherwise = word("else") ? expression() : [](Scope&) { return undefined(); };
      e = [=](Scope& s) { return truth(condition(s)) ? e(s) : otherwise(s); };
    }
    return e;
  }
  Expression either() {
    Expression a = both();
    while (word("or"))
      a = [a, b = both()](Scope& s) {
        Value v = a(s);
        return truth(v) ? v : b(s);
      };
    return a;
  }
  Expression both() {
    Expression a = negation();
    while (word("and"))
      a = [a, b = negation()](Scope& s) {
        Value v = a(s);
        return truth(v) ? b(s) : v;
      };
    return a;
  }
  Expression negation() {
    const Deeper deeper(depth_);
    if (word("not")) return [a = negation()](Scope& s) { return Value(!truth(a(s))); };
    return comparison();
  }
  Expression comparison() {
    Expression a = binary(0);
    while (true) {
      std::string op;
      for (const char* m : {"==", "!=", "<=", ">=", "<", ">"}) {
        if (op.empty() && mark(m)) op = m;
      }
      if (op.empty() && word("in")) op = "in";
      if (op.empty() && is(Token::name, "not") && tokens_[at_ + 1].value == "in") at_ += 2, op = "not in";
      if (op.empty()) return a;
      a = [op, a, b = binary(0)](Scope& s) { return Value(compare(op, a(s), b(s))); };
    }
  }
  Expression binary(size_t level) {
    static const std::array<std::vector<const char*>, 3> kLevels{{{"+", "-"}, {"~"}, {"*", "//", "/", "%"}}};
    if (level == kLevels.size()) return unary();
    Expression a = binary(level + 1);
    while (true) {
      std::string op;
      for (const char* m : kLevels[level]) {
        if (op.empty() && mark(m)) op = m;
      }
      if (op.empty()) return a;
      a = [op, a, b = binary(level + 1)](Scope& s) { return arithmetic(op, a(s), b(s)); };
    }
  }
  Expression unary() {
    const Deeper deeper(depth_);
    if (mark("-")) return [a = unary()](Scope& s) { return arithmetic("-", 0, a(s)); };
    if (mark("+")) return unary();
    Expression e = postfix(primary());
    while (true) {
      if (mark("|")) {
        const std::string f = name();
        e = [e, f, a = is(Token::mark, "(") ? arguments() : Given{}](Scope& s) {
          return filter(f, e(s), a(s));
        };
      } else if (word("is")) {
        const bool negative = word("not");
        const std::string t = name();
        Given a;
        if (is(Token::mark, "(")) {
          a = arguments();
        } else if (now().kind == Token::string || now().kind == Token::number) {
          a.list.push_back(primary());
        }
        e = [=](Scope& s) { return Value(test(t, e(s), a(s)) != negative); };
      } else {
        return e;
      }
    }
  }

  struct Given {
    std::vector<Expression> list;
    std::vector<std::pair<std::string, Expression>> named;
    Arguments operator()(Scope& s) const {
      Arguments out;
      for (const Expression& e : list) out.list.push_back(e(s));
      for (const auto& [key, e] : named) out.named.emplace_back(key, e(s));
      return out;
    }
  };
  Given arguments() {
    Given out;
    need_mark("(");
    while (!mark(")")) {
      if (now().kind == Token::name && tokens_[at_ + 1].kind == Token::mark &&
          tokens_[at_ + 1].value == "=") {
        std::string key = name();
        ++at_;
        out.named.emplace_back(std::move(key), expression());
      } else {
        out.list.push_back(expression());
      }
      if (!is(Token::mark, ")")) need_mark(",");
    }
    return out;
  }

  Expression postfix(Expression e) {
    while (true) {
      if (mark(".")) {
        const std::string key = now().kind == Token::number ? tokens_[at_++].value : name();
        if (is(Token::mark, "(")) {
          e = [e, key, a = arguments()](Scope& s) { return method(e(s), key, a(s)); };
        } else {
          e = [e, key](Scope& s) { return member(e(s), key); };
        }
      } else if (mark("[")) {
        e = subscript(e);
      } else {
        return e;
      }
    }
  }
  Expression subscript(const Expression& e) {
    std::array<Expression, 3> part;
    size_t n = 0;
    bool sliced = false;
    while (!mark("]")) {
      if (mark(":")) {
        sliced = true;
        if (++n > 2) bad("a slice of too many parts");
      } else {
        part[n] = expression();
      }
    }
    if (!sliced && !part[0]) bad("an empty subscript");
    if (!sliced) return [e, key = part[0]](Scope& s) { return member(e(s), key(s)); };
    return [e, part](Scope& s) {
      const auto value = [&](size_t i) { return part[i] ? part[i](s) : Value(); };
      return slice(e(s), value(0), value(1), value(2));
    };
  }

  Expression primary() {
    const Token t = now();
    ++at_;
    if (t.kind == Token::string) {
      std::string text = t.value;
      while (now().kind == Token::string) text += tokens_[at_++].value;
      return [text](Scope&) { return Value(text); };
    }
    if (t.kind == Token::number) {
      const Value v = io::parse_json(t.value, "the chat template");
      return [v](Scope&) { return v; };
    }
    if (t.kind == Token::name) return named(t.value);
    if (t.kind == Token::mark && t.value == "(") return bracketed(")", false);
    if (t.kind == Token::mark && t.value == "[") return bracketed("]", true);
    if (t.kind == Token::mark && t.value == "{") return dictionary();
    bad(fmt::format("\"{}\" stands where a value is expected", io::shown(t.value)));
  }
  Expression named(const std::string& n) {
    if (n == "true" || n == "True") return [](Scope&) { return Value(true); };
    if (n == "false" || n == "False") return [](Scope&) { return Value(false); };
    if (n == "none" || n == "None") return [](Scope&) { return Value(); };
    if (is(Token::mark, "(")) return [n, a = arguments()](Scope& s) { return call(s, n, a(s)); };
    return [n](Scope& s) { return s.find(n); };
  }
  /// A list, a tuple, or something in brackets.
  Expression bracketed(std::string_view end, bool list) {
    std::vector<Expression> all;
    while (!mark(end)) {
      all.push_back(expression());
      if (is(Token::mark, end)) continue;
      need_mark(",");
      list = true;
    }
    if (!list && all.size() == 1) return all[0];
    return [all](Scope& s) {
      Value out = Value::array();
      for (const Expression& e : all) out.push_back(e(s));
      return out;
    };
  }
  Expression dictionary() {
    std::vector<std::pair<Expression, Expression>> all;
    while (!mark("}")) {
      Expression key = expression();
      need_mark(":");
      all.emplace_back(std::move(key), expression());
      if (!is(Token::mark, "}")) need_mark(",");
    }
    return [all](Scope& s) {
      Value out = Value::object();
      for (const auto& [key, value] : all) out[chat::text(key(s))] = value(s);
      return out;
    };
  }

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

struct ChatTemplate::Program {
  Block block;
};

namespace {

/// A newline at the end isn't part of it, and lines end in one way.
std::string cleaned(const std::string& source) {
  std::string out;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

}  // namespace

ChatTemplate::ChatTemplate(const std::string& source)
    : program_(new Program{Parser(tokens_of(cleaned(source))).whole()}) {}
ChatTemplate::~ChatTemplate() = default;

std::string ChatTemplate::render(const io::Json& variables) const {
  Scope s;
  s.levels.emplace_back();
  for (const auto& [key, value] : variables.items()) s.levels.back()[key] = value;
  s.run(program_->block);
  return std::move(s.out);
}

}  // namespace vkflux
