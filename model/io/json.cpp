#include "model/io/json.h"

#include <algorithm>
#include <vector>

#include "model/io/file.h"

namespace vkflux::io {
namespace {

constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxOrderedKeys = 32768;  // an ordered object finds a key by walking all of them

// Builds the tree from the parser's events. The library's own builder with a callback walks all siblings at
// the end of every object, which takes hours on a long list of them.
template <class T>
class TreeBuilder {
 public:
  explicit TreeBuilder(const std::string& origin) : origin_(origin) {}
  T take() { return std::move(root_); }

  bool null() { return leaf(nullptr); }
  bool boolean(bool v) { return leaf(v); }
  bool number_integer(int64_t v) { return leaf(v); }
  bool number_unsigned(uint64_t v) { return leaf(v); }
  bool number_float(double v, const std::string&) { return leaf(v); }
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
  T root_;
  std::vector<T*> path_;  // the open arrays and objects
  std::string key_;
};

template <class T>
T parse(std::string_view text, const std::string& origin) {
  TreeBuilder<T> builder(origin);
  T::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

}  // namespace

std::string valid_utf8(const std::string& text) {
  return Json::parse(json_text(Json(text))).get<std::string>();
}

Json parse_json(std::string_view text, const std::string& origin) {
  return parse<Json>(text, origin);
}

nlohmann::json parse_sorted_json(std::string_view text, const std::string& origin) {
  return parse<nlohmann::json>(text, origin);
}

Json read_json(const std::string& path, uint64_t max_bytes) {
  return parse_json(read_file(path, max_bytes), path);
}

}  // namespace vkflux::io
