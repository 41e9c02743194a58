#include "model/io/safetensors_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "vk/error.h"

namespace vkflux::io {
namespace {

constexpr size_t kMaxRank = 8;

// Receives the parser's events. The nesting that a header may have is fixed, so where we are is one enum.
class HeaderReader {
 public:
  HeaderReader(SafetensorsHeader& out, const std::string& path) : out_(out), path_(path) {}

  bool null() { return misplaced("null"); }
  bool boolean(bool) { return misplaced("true or false"); }
  bool number_integer(int64_t v) { return misplaced(fmt::format("{}", v)); }
  bool number_float(double, const std::string& text) { return misplaced(shown(text)); }
  bool binary(std::vector<uint8_t>&) { return misplaced("binary data"); }

  bool number_unsigned(uint64_t v) {
    if (place_ == Place::shape) {
      if (tensor_->shape.size() == kMaxRank)
        bad(fmt::format("its shape has more than {} dimensions", kMaxRank));
      if (v > INT64_MAX) bad(fmt::format("its shape holds {}, which is too large", v));
      tensor_->shape.push_back(static_cast<int64_t>(v));
    } else if (place_ == Place::offsets) {
      if (offsets_ == 2) bad("data_offsets has more than 2 numbers");
      (offsets_++ == 0 ? tensor_->begin : tensor_->end) = v;
    } else {
      return misplaced(fmt::format("{}", v));
    }
    return true;
  }

  bool string(std::string& v) {
    if (place_ == Place::metadata) {
      out_.metadata[field_] = v;
    } else if (place_ == Place::entry && field_ == "dtype") {
      const auto dtype = file_dtype(v);
      if (!dtype)
        bad(fmt::format("the dtype {} isn't supported{}", shown(v),
                        v == "F8_E8M0" || v == "F4"
                            ? "; files in mxfp8, mxfp4 or nvfp4 aren't read, take one in fp8, BF16 or GGUF"
                            : ""));
      tensor_->dtype = *dtype;
    } else {
      return misplaced(fmt::format("the string \"{}\"", shown(v)));
    }
    return true;
  }

  bool start_object(size_t) {
    if (place_ == Place::start) {
      place_ = Place::top;
    } else if (place_ == Place::top) {
      place_ = tensor_ ? Place::entry : Place::metadata;
      fields_.clear();
      offsets_ = 0;
    } else {
      return misplaced("an object");
    }
    return true;
  }

  bool key(std::string& k) {
    if (place_ == Place::top) {
      tensor_ = nullptr;
      name_.clear();
      if (k == "__metadata__") {
        if (has_metadata_) bad("the key __metadata__ appears twice");
        has_metadata_ = true;
        return true;
      }
      const auto [it, fresh] = out_.tensors.try_emplace(k);
      if (!fresh) bad(fmt::format("tensor {} appears twice", shown(k)));
      tensor_ = &it->second;
      tensor_->name = name_ = k;
      return true;
    }
    if (place_ == Place::metadata) {
      if (out_.metadata.count(k)) bad(fmt::format("the metadata key {} appears twice", shown(k)));
    } else {
      if (std::find(fields_.begin(), fields_.end(), k) != fields_.end())
        bad(fmt::format("its field {} appears twice", k));
      if (k != "dtype" && k != "shape" && k != "data_offsets") bad(fmt::format("unknown field {}", shown(k)));
      fields_.push_back(k);
    }
    field_ = k;
    return true;
  }

  bool end_object() {
    if (place_ == Place::entry) {
      for (const char* f : {"dtype", "shape", "data_offsets"}) {
        if (std::find(fields_.begin(), fields_.end(), f) == fields_.end())
          bad(fmt::format("{} is missing", f));
      }
    }
    place_ = place_ == Place::top ? Place::end : Place::top;
    return true;
  }

  bool start_array(size_t) {
    if (place_ != Place::entry || field_ == "dtype") return misplaced("a list");
    place_ = field_ == "shape" ? Place::shape : Place::offsets;
    return true;
  }

  bool end_array() {
    if (place_ == Place::offsets && offsets_ != 2) bad("data_offsets isn't a pair of offsets");
    place_ = Place::entry;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& e) {
    name_.clear();
    bad(fmt::format("bad JSON in the header near byte {}: {}", position, shown(e.what())));
  }

 private:
  enum class Place { start, top, metadata, entry, shape, offsets, end };

  [[noreturn]] void bad(const std::string& what) const {
    throw Error(ErrorCode::format, name_.empty()
                                       ? fmt::format("{}: {}", path_, what)
                                       : fmt::format("{}: tensor {}: {}", path_, shown(name_), what));
  }
  [[noreturn]] bool misplaced(const std::string& what) const {
    switch (place_) {
      case Place::metadata:
        bad(fmt::format("metadata {} is {}, a string is expected", shown(field_), what));
      case Place::shape:
        bad(fmt::format("its shape holds {}, only sizes are expected", what));
      case Place::offsets:
        bad(fmt::format("data_offsets holds {}, only offsets are expected", what));
      case Place::entry:
        bad(fmt::format("its field {} is {}", field_, what));
      default:
        bad(fmt::format("its entry is {}, an object is expected", what));
    }
  }

  SafetensorsHeader& out_;
  const std::string& path_;
  Place place_ = Place::start;
  bool has_metadata_ = false;
  TensorInfo* tensor_ = nullptr;
  std::string name_, field_;
  std::vector<std::string> fields_;
  int offsets_ = 0;
};

[[noreturn]] void bad(const std::string& path, const TensorInfo& t, const std::string& what) {
  throw Error(ErrorCode::format, fmt::format("{}: tensor {}: {}", path, shown(t.name), what));
}

void check_range(const std::string& path, const TensorInfo& t, uint64_t data_size) {
  uint64_t bytes = size_of(t.dtype);
  for (const int64_t d : t.shape) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(d), &bytes)) bad(path, t, "its size overflows");
  }
  if (t.begin > t.end || t.end > data_size) {
    bad(path, t, fmt::format("data [{}, {}) is outside the file's {} data bytes", t.begin, t.end, data_size));
  }
  if (t.end - t.begin != bytes) {
    bad(path, t,
        fmt::format("it has {} bytes, its shape [{}] in {} needs {}", t.end - t.begin,
                    fmt::join(t.shape, ", "), name(t.dtype), bytes));
  }
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view text, const std::string& path,
                                           uint64_t data_size) {
  if (text.empty() || text[0] != '{') {
    throw Error(ErrorCode::format, fmt::format("{}: its header is no JSON object", path));
  }
  SafetensorsHeader out;
  HeaderReader reader(out, path);
  nlohmann::json::sax_parse(text.begin(), text.end(), &reader);
  std::vector<const TensorInfo*> order;
  order.reserve(out.tensors.size());
  for (const auto& [key, t] : out.tensors) {
    check_range(path, t, data_size);
    order.push_back(&t);
  }
  std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return a->begin != b->begin ? a->begin < b->begin : a->end < b->end;
  });
  uint64_t at = 0;
  for (const TensorInfo* t : order) {
    if (t->begin != at) {
      bad(path, *t,
          fmt::format("its data {} the previous tensor's (it begins at {} instead of {})",
                      t->begin < at ? "overlaps" : "leaves a gap after", t->begin, at));
    }
    at = t->end;
  }
  if (at != data_size) {
    throw Error(ErrorCode::format, fmt::format("{}: {} bytes follow the last tensor", path, data_size - at));
  }
  return out;
}

}  // namespace vkflux::io
