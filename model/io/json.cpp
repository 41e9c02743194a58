#include "model/io/json.h"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "model/io/file.h"

namespace vkflux::io {
namespace {

constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxOrderedKeys = 32768;  // an ordered object finds a key by walking all of them

// A text in which the words NaN, Infinity and -Infinity have become null, and the numbers they stand for: one
// entry for each null of the text, in order, nothing where it was written as null.
struct PlainJson {
  std::string text;
  std::vector<std::optional<double>> nulls;
};

PlainJson without_number_words(std::string_view text) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const std::array<std::pair<std::string_view, std::optional<double>>, 4> words{
      {{"null", {}},
       {"NaN", std::numeric_limits<double>::quiet_NaN()},
       {"Infinity", kInfinity},
       {"-Infinity", -kInfinity}}};
  PlainJson out;
  out.text.reserve(text.size() + text.size() / 8);
  bool quoted = false;
  for (size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (quoted && c == '\\' && i + 1 < text.size()) {
      out.text += text.substr(i, 2);
      i += 2;
      continue;
    }
    if (c == '"') quoted = !quoted;
    const auto word = std::find_if(words.begin(), words.end(), [&](const auto& w) {
      return !quoted && text.substr(i, w.first.size()) == w.first;
    });
    if (word == words.end()) {
      out.text += c;
      ++i;
      continue;
    }
    out.text += "null";
    out.nulls.push_back(word->second);
    i += word->first.size();
  }
  return out;
}

// Builds the tree from the parser's events. The library's own builder with a callback walks all siblings at
// the end of every object, which takes hours on a long list of them.
template <class T>
class TreeBuilder {
 public:
  /// nulls: what the nulls of the text stand for, in order (without_number_words()); empty: themselves.
  TreeBuilder(const std::string& origin, WholeNumbers big, std::vector<std::optional<double>> nulls)
      : origin_(origin), big_(big), nulls_(std::move(nulls)) {}
  T take() { return std::move(root_); }

  bool null() {
    const std::optional<double> number = null_ < nulls_.size() ? nulls_[null_++] : std::nullopt;
    return number ? leaf(*number) : leaf(nullptr);
  }
  bool boolean(bool v) { return leaf(v); }
  bool number_integer(int64_t v) { return leaf(v); }
  bool number_unsigned(uint64_t v) { return leaf(v); }
  bool number_float(double v, const std::string& text) {
    const bool whole = text.find_first_of(".eE") == std::string::npos;
    return whole && big_ == WholeNumbers::keep_digits ? leaf(text) : leaf(v);
  }
  bool string(std::string& v) { return leaf(std::move(v)); }
  bool binary(typename T::binary_t&) { return bad("binary data"); }
  bool start_object(size_t) { return open(T::object()); }
  bool start_array(size_t) { return open(T::array()); }
  bool key(std::string& k) {
    key_ = std::move(k);
    return true;
  }
  bool end_array() {
    path_.pop_back();
    return true;
  }
  bool end_object() {
    if constexpr (kOrdered) check_keys(path_.back()->template get_ref<typename T::object_t&>());
    path_.pop_back();
    return true;
  }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& e) {
    return bad("bad JSON: " + shown(e.what()));
  }

 private:
  static constexpr bool kOrdered = std::is_same_v<T, Json>;

  [[noreturn]] bool bad(const std::string& what) const {
    throw Error(ErrorCode::format, fmt::format("{}: {}", origin_, what));
  }
  [[noreturn]] void twice(const std::string& key) const {
    bad(fmt::format("the key \"{}\" appears twice", shown(key)));
  }

  bool leaf(T value) {
    add(std::move(value));
    return true;
  }
  bool open(T value) {
    if (path_.size() == kMaxDepth) bad("nested too deeply");
    path_.push_back(&add(std::move(value)));
    return true;
  }
  T& add(T value) {
    if (path_.empty()) return root_ = std::move(value);
    T& parent = *path_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return parent.back();
    }
    auto& object = parent.template get_ref<typename T::object_t&>();
    if constexpr (kOrdered) {
      if (object.size() == kMaxOrderedKeys) bad(fmt::format("an object with over {} keys", kMaxOrderedKeys));
      // Appended without a search; check_keys() finds doubles.
      return static_cast<typename T::object_t::Container&>(object)
          .emplace_back(std::move(key_), std::move(value))
          .second;
    } else {
      const auto [at, fresh] = object.try_emplace(std::move(key_), std::move(value));
      if (!fresh) twice(at->first);
      return at->second;
    }
  }

  void check_keys(const typename T::object_t& object) const {
    std::vector<const std::string*> keys;
    keys.reserve(object.size());
    for (const auto& entry : object) keys.push_back(&entry.first);
    std::sort(keys.begin(), keys.end(), [](const auto* a, const auto* b) { return *a < *b; });
    const auto doubled =
        std::adjacent_find(keys.begin(), keys.end(), [](const auto* a, const auto* b) { return *a == *b; });
    if (doubled != keys.end()) twice(**doubled);
  }

  const std::string& origin_;
  WholeNumbers big_;
  std::vector<std::optional<double>> nulls_;
  size_t null_ = 0;
  T root_;
  std::vector<T*> path_;  // the open arrays and objects
  std::string key_;
};

template <class T>
T parse(std::string_view text, const std::string& origin, WholeNumbers big) {
  PlainJson plain;
  if (text.find("NaN") != text.npos || text.find("Infinity") != text.npos) {
    plain = without_number_words(text);
    text = plain.text;
  }
  TreeBuilder<T> builder(origin, big, std::move(plain.nulls));
  T::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

}  // namespace

Json parse_json(std::string_view text, const std::string& origin, WholeNumbers big) {
  return parse<Json>(text, origin, big);
}

nlohmann::json parse_sorted_json(std::string_view text, const std::string& origin) {
  return parse<nlohmann::json>(text, origin, WholeNumbers::round);
}

Json read_json(const std::string& path, uint64_t max_bytes) {
  return parse_json(read_file(path, max_bytes), path);
}

}  // namespace vkflux::io
