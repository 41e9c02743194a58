#include "model/io/gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <type_traits>
#include <vector>

#include "vk/error.h"

namespace vkflux::io {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr uint64_t kMaxString = uint64_t{1} << 30, kMaxName = 127, kDefaultAlignment = 32;
constexpr uint32_t kMaxRank = 4;

struct GgmlType {
  uint32_t id;
  std::string_view name;
  std::optional<FileDType> dtype;  // absent: not read
};
constexpr std::array kTypes{GgmlType{0, "F32", FileDType::f32},
                            GgmlType{1, "F16", FileDType::f16},
                            GgmlType{2, "Q4_0", FileDType::q4_0},
                            GgmlType{3, "Q4_1", FileDType::q4_1},
                            GgmlType{6, "Q5_0", FileDType::q5_0},
                            GgmlType{7, "Q5_1", FileDType::q5_1},
                            GgmlType{8, "Q8_0", FileDType::q8_0},
                            GgmlType{9, "Q8_1", {}},
                            GgmlType{10, "Q2_K", FileDType::q2_k},
                            GgmlType{11, "Q3_K", FileDType::q3_k},
                            GgmlType{12, "Q4_K", FileDType::q4_k},
                            GgmlType{13, "Q5_K", FileDType::q5_k},
                            GgmlType{14, "Q6_K", FileDType::q6_k},
                            GgmlType{15, "Q8_K", {}},
                            GgmlType{16, "IQ2_XXS", {}},
                            GgmlType{17, "IQ2_XS", {}},
                            GgmlType{18, "IQ3_XXS", {}},
                            GgmlType{19, "IQ1_S", {}},
                            GgmlType{20, "IQ4_NL", {}},
                            GgmlType{21, "IQ3_S", {}},
                            GgmlType{22, "IQ2_S", {}},
                            GgmlType{23, "IQ4_XS", {}},
                            GgmlType{24, "I8", FileDType::i8},
                            GgmlType{25, "I16", FileDType::i16},
                            GgmlType{26, "I32", FileDType::i32},
                            GgmlType{27, "I64", FileDType::i64},
                            GgmlType{28, "F64", FileDType::f64},
                            GgmlType{29, "IQ1_M", {}},
                            GgmlType{30, "BF16", FileDType::bf16},
                            GgmlType{34, "TQ1_0", {}},
                            GgmlType{35, "TQ2_0", {}},
                            GgmlType{39, "MXFP4", {}},
                            GgmlType{40, "NVFP4", {}}};

[[noreturn]] void bad(const std::string& path, const std::string& what) {
  throw Error(ErrorCode::format, fmt::format("{}: {}", path, what));
}

// Reads forward through a buffer; every step is checked against the file's end.
class Cursor {
 public:
  Cursor(const ReadFile& file, const std::string& path) : file_(file), path_(path) {}

  uint64_t at() const { return at_; }
  uint64_t left() const { return file_.size() - at_; }

  void bytes(std::span<std::byte> out) {
    if (out.size() > left()) {
      bad(path_, fmt::format("the file ends within its header, at byte {}: it is cut short or damaged",
                             file_.size()));
    }
    for (size_t done = 0; done < out.size();) {
      if (at_ < begin_ || at_ >= begin_ + filled_) {
        begin_ = at_;
        filled_ = std::min<uint64_t>(buffer_.size(), left());
        file_.read(begin_, std::span(buffer_).first(filled_));
      }
      const uint64_t n = std::min<uint64_t>(begin_ + filled_ - at_, out.size() - done);
      std::memcpy(out.data() + done, buffer_.data() + (at_ - begin_), n);
      at_ += n, done += n;
    }
  }
  template <class T>
  T number() {
    std::array<std::byte, sizeof(T)> raw;
    bytes(raw);
    return std::bit_cast<T>(raw);
  }
  std::string text(const char* what) {
    const auto n = number<uint64_t>();
    if (n > std::min(left(), kMaxString))
      bad(path_, fmt::format("{} claims {} bytes, {} are left in the file", what, n, left()));
    std::string out(n, '\0');
    bytes(std::as_writable_bytes(std::span(out)));
    return out;
  }

 private:
  const ReadFile& file_;
  const std::string& path_;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(size_t{64} << 10);
  uint64_t at_ = 0, begin_ = 0, filled_ = 0;
};

constexpr uint32_t kString = 8, kArray = 9;

// Bytes that one value of the type takes at least; 0: no such type.
uint64_t least_bytes(uint32_t type) {
  constexpr std::array<uint64_t, 13> kBytes{1, 1, 2, 2, 4, 4, 4, 1, 8, 0, 8, 8, 8};
  return type < kBytes.size() ? kBytes[type] : 0;
}

Json scalar(Cursor& in, uint32_t type, const std::string& path, const std::string& key) {
  switch (type) {
    case 0:
      return in.number<uint8_t>();
    case 1:
      return in.number<int8_t>();
    case 2:
      return in.number<uint16_t>();
    case 3:
      return in.number<int16_t>();
    case 4:
      return in.number<uint32_t>();
    case 5:
      return in.number<int32_t>();
    case 6:
      return in.number<float>();
    case 7:
      return in.number<uint8_t>() != 0;
    case kString:
      return in.text("a text");
    case 10:
      return in.number<uint64_t>();
    case 11:
      return in.number<int64_t>();
    case 12:
      return in.number<double>();
    default:
      bad(path, fmt::format("the value of {} has the unknown type {}", shown(key), type));
  }
}

Json value_of(Cursor& in, const std::string& path, const std::string& key) {
  const auto type = in.number<uint32_t>();
  if (type != kArray) return scalar(in, type, path, key);
  const auto element = in.number<uint32_t>();
  const auto count = in.number<uint64_t>();
  const uint64_t least = least_bytes(element);
  if (least == 0) bad(path, fmt::format("{} is an array of type {}, which can't be", shown(key), element));
  if (count > in.left() / least)
    bad(path, fmt::format("the array {} claims {} elements, {} bytes are left in the file", shown(key), count,
                          in.left()));
  Json out = Json::array();
  for (uint64_t i = 0; i < count; ++i) out.push_back(scalar(in, element, path, key));
  return out;
}

uint64_t alignment_of(const Json& values, const std::string& path) {
  const auto found = values.find("general.alignment");
  if (found == values.end()) return kDefaultAlignment;
  const uint64_t a = found->is_number_unsigned() ? found->get<uint64_t>() : 0;
  if (!std::has_single_bit(a) || a > UINT32_MAX)
    bad(path, fmt::format("general.alignment is {}, a power of two is expected", found->dump()));
  return a;
}

FileDType dtype_of(uint32_t id, const std::string& path, const std::string& tensor) {
  const auto row = std::find_if(kTypes.begin(), kTypes.end(), [&](const GgmlType& t) { return t.id == id; });
  if (row == kTypes.end()) bad(path, fmt::format("tensor {}: unknown type {}", shown(tensor), id));
  if (!row->dtype) {
    throw Error(
        ErrorCode::unsupported,
        fmt::format("{}: tensor {} is {}, which isn't read: use a file in Q8_0, Q2_K to Q6_K, Q4_0, Q4_1, "
                    "Q5_0, Q5_1, F16 or BF16",
                    path, shown(tensor), row->name));
  }
  return *row->dtype;
}

TensorInfo tensor_of(Cursor& in, const std::string& path, uint64_t alignment) {
  TensorInfo t;
  t.name = in.text("a tensor's name");
  const auto wrong = [&](const std::string& what) {
    bad(path, fmt::format("tensor {}: {}", shown(t.name), what));
  };
  if (t.name.size() > kMaxName)
    wrong(fmt::format("its name has {} bytes, {} is the limit", t.name.size(), kMaxName));
  const auto rank = in.number<uint32_t>();
  if (rank > kMaxRank) wrong(fmt::format("it has {} dimensions, {} is the limit", rank, kMaxRank));
  uint64_t numel = 1;
  for (uint32_t i = 0; i < rank; ++i) {
    const auto d = in.number<uint64_t>();
    if (d > INT64_MAX || __builtin_mul_overflow(numel, d, &numel) || numel > INT64_MAX)
      wrong("its size overflows");
    t.shape.insert(t.shape.begin(), static_cast<int64_t>(d));
  }
  t.dtype = dtype_of(in.number<uint32_t>(), path, t.name);
  const auto block = static_cast<uint64_t>(block_values(t.dtype));
  const uint64_t row = t.shape.empty() ? 1 : static_cast<uint64_t>(t.shape.back());
  if (row % block != 0)
    wrong(fmt::format("its rows of {} values are no whole blocks of {} as {} has them", row, block,
                      name(t.dtype)));
  t.begin = in.number<uint64_t>();
  if (t.begin % alignment != 0)
    wrong(fmt::format("its data begins at {}, which is no multiple of {}", t.begin, alignment));
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(numel / block, size_of(t.dtype), &bytes) ||
      __builtin_add_overflow(t.begin, bytes, &t.end))
    wrong("its size overflows");
  return t;
}

// What a writer reshaped to fit its blocks gets its shape back.
void restore_shape(TensorInfo& t, const Json& values, const std::string& path) {
  const auto found = values.find("comfy.gguf.orig_shape." + t.name);
  if (found == values.end()) return;
  std::vector<int64_t> shape;
  int64_t numel = 1;
  bool ok = found->is_array() && found->size() <= 8;
  for (size_t i = 0; ok && i < found->size(); ++i) {
    const Json& d = (*found)[i];
    ok = d.is_number_integer() && d.get<int64_t>() >= 0 &&
         !__builtin_mul_overflow(numel, d.get<int64_t>(), &numel);
    if (ok) shape.push_back(d.get<int64_t>());
  }
  if (!ok || numel != t.numel())
    bad(path, fmt::format("comfy.gguf.orig_shape.{} is {}, which doesn't fit the tensor's {} values",
                          shown(t.name), shown(found->dump()), t.numel()));
  t.shape = std::move(shape);
}

void check_ranges(const std::map<std::string, TensorInfo>& tensors, const std::string& path,
                  uint64_t data_size) {
  std::vector<const TensorInfo*> order;
  for (const auto& [name, t] : tensors) order.push_back(&t);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return a->begin != b->begin ? a->begin < b->begin : a->end < b->end;
  });
  uint64_t at = 0;
  for (const TensorInfo* t : order) {
    if (t->end > data_size)
      bad(path,
          fmt::format("tensor {}: data [{}, {}) is beyond the file's {} data bytes: the file is cut short",
                      shown(t->name), t->begin, t->end, data_size));
    if (t->begin < at)
      bad(path, fmt::format("tensor {}: its data overlaps the previous tensor's", shown(t->name)));
    at = t->end;
  }
}

void check_start(Cursor& in, const std::string& path) {
  std::array<char, 4> magic{};
  in.bytes(std::as_writable_bytes(std::span(magic)));
  if (std::string_view(magic.data(), magic.size()) != kMagic) bad(path, "it doesn't begin as GGUF files do");
  const auto version = in.number<uint32_t>();
  if (version != 0 && (version & 0xffffu) == 0)
    bad(path, "its numbers are big-endian; only little-endian files are read");
  if (version != 2 && version != 3)
    bad(path, fmt::format("it is GGUF version {}, 2 and 3 are read", version));
}

}  // namespace

std::optional<uint32_t> gguf_type(FileDType t) {
  const auto row =
      std::find_if(kTypes.begin(), kTypes.end(), [&](const GgmlType& r) { return r.dtype == t; });
  return row == kTypes.end() ? std::nullopt : std::optional(row->id);
}

bool is_gguf(std::string_view start) {
  return start.starts_with(kMagic);
}

GgufFile::GgufFile(const std::string& path) : TensorSource(path), file_(path), values_(Json::object()) {
  Cursor in(file_, path);
  check_start(in, path);
  const auto tensors = in.number<uint64_t>(), values = in.number<uint64_t>();
  // A tensor takes 24 bytes of the header at least, a value 13.
  if (tensors > in.left() / 24 || values > in.left() / 13)
    bad(path, fmt::format("it claims {} tensors and {} values, more than its {} bytes can hold", tensors,
                          values, file_.size()));
  for (uint64_t i = 0; i < values; ++i) {
    const std::string key = in.text("a key");
    if (values_.contains(key)) bad(path, fmt::format("the key {} appears twice", shown(key)));
    Json v = value_of(in, path, key);
    if (!v.is_array()) metadata_[key] = v.is_string() ? v.get<std::string>() : v.dump();
    values_[key] = std::move(v);
  }
  const uint64_t alignment = alignment_of(values_, path);
  for (uint64_t i = 0; i < tensors; ++i) {
    TensorInfo t = tensor_of(in, path, alignment);
    restore_shape(t, values_, path);
    std::string name = t.name;
    if (!tensors_.emplace(name, std::move(t)).second)
      bad(path, fmt::format("tensor {} appears twice", shown(name)));
  }
  data_start_ = (in.at() + alignment - 1) / alignment * alignment;
  check_ranges(tensors_, path, file_.size() - std::min(file_.size(), data_start_));
}

void GgufFile::read_range(const TensorInfo& t, uint64_t offset, std::span<std::byte> out) const {
  file_.read(data_start_ + t.begin + offset, out);
}

}  // namespace vkflux::io
