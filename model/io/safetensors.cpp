#include "model/io/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <numeric>

#include "autograd/tensor.h"
#include "model/io/json.h"

namespace vkflux::io {
namespace {

constexpr uint64_t kMaxHeader = 100'000'000;
struct DTypeRow {
  FileDType dtype;
  std::string_view name;
  size_t size;
};
constexpr std::array<DTypeRow, 15> kDTypes{{{FileDType::f64, "F64", 8},
                                            {FileDType::f32, "F32", 4},
                                            {FileDType::f16, "F16", 2},
                                            {FileDType::bf16, "BF16", 2},
                                            {FileDType::f8_e4m3, "F8_E4M3", 1},
                                            {FileDType::f8_e5m2, "F8_E5M2", 1},
                                            {FileDType::i64, "I64", 8},
                                            {FileDType::i32, "I32", 4},
                                            {FileDType::i16, "I16", 2},
                                            {FileDType::i8, "I8", 1},
                                            {FileDType::u64, "U64", 8},
                                            {FileDType::u32, "U32", 4},
                                            {FileDType::u16, "U16", 2},
                                            {FileDType::u8, "U8", 1},
                                            {FileDType::boolean, "BOOL", 1}}};

const DTypeRow& row(FileDType t) {
  return *std::find_if(kDTypes.begin(), kDTypes.end(), [&](const auto& r) { return r.dtype == t; });
}

[[noreturn]] void bad(const std::string& path, const std::string& what) {
  throw Error(ErrorCode::format, fmt::format("{}: {}", path, what));
}

void refuse_other_formats(const std::string& path) {
  const std::string ext = std::filesystem::path(path).extension().string();
  for (const char* pickle : {".ckpt", ".pt", ".pth", ".bin", ".pkl"}) {
    if (ext == pickle) {
      throw Error(
          ErrorCode::unsupported,
          path +
              ": pickle files can run code when they are read and are refused; convert it to .safetensors");
    }
  }
  for (const char* other : {".gguf", ".onnx"}) {
    if (ext == other)
      throw Error(ErrorCode::unsupported,
                  fmt::format("{}: {} files aren't read; use .safetensors", path, ext));
  }
}

TensorInfo parse_entry(const std::string& path, const std::string& name, const Json& entry,
                       uint64_t data_size) {
  const std::string origin = fmt::format("{}: tensor {}", path, name);
  if (!entry.is_object()) bad(origin, "its entry is no JSON object");
  TensorInfo t;
  t.name = name;
  const auto dtype = get<std::string>(entry, "dtype", origin);
  const auto found =
      std::find_if(kDTypes.begin(), kDTypes.end(), [&](const auto& r) { return r.name == dtype; });
  if (found == kDTypes.end()) bad(origin, fmt::format("the dtype {} isn't supported", dtype));
  t.dtype = found->dtype;
  const Json shape = get<Json>(entry, "shape", origin), offsets = get<Json>(entry, "data_offsets", origin);
  if (!shape.is_array() || shape.size() > 8) bad(origin, "its shape isn't a list of at most 8 numbers");
  uint64_t bytes = found->size;
  for (const Json& d : shape) {
    if (!d.is_number_unsigned() || d.get<uint64_t>() > INT64_MAX)
      bad(origin, "its shape holds something else than sizes");
    if (__builtin_mul_overflow(bytes, d.get<uint64_t>(), &bytes)) bad(origin, "its size overflows");
    t.shape.push_back(static_cast<int64_t>(d.get<uint64_t>()));
  }
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned()) {
    bad(origin, "data_offsets isn't a pair of offsets");
  }
  t.begin = offsets[0].get<uint64_t>();
  t.end = offsets[1].get<uint64_t>();
  if (t.begin > t.end || t.end > data_size) {
    bad(origin, fmt::format("data [{}, {}) is outside the file's {} data bytes", t.begin, t.end, data_size));
  }
  if (t.end - t.begin != bytes)
    bad(origin, fmt::format("{} bytes for a tensor that needs {}", t.end - t.begin, bytes));
  return t;
}

int64_t decode_int(FileDType t, const std::byte* p) {
  const auto as = [&]<class T>(T v) {
    std::memcpy(&v, p, sizeof(T));
    return static_cast<int64_t>(v);
  };
  switch (t) {
    case FileDType::i64:
      return as(int64_t{});
    case FileDType::i32:
      return as(int32_t{});
    case FileDType::i16:
      return as(int16_t{});
    case FileDType::i8:
      return as(int8_t{});
    case FileDType::u64:
      return as(uint64_t{});
    case FileDType::u32:
      return as(uint32_t{});
    case FileDType::u16:
      return as(uint16_t{});
    default:
      return as(uint8_t{});
  }
}

bool is_float(FileDType t) {
  return t <= FileDType::f8_e5m2;
}

float decode_e4m3(uint8_t b) {
  const int e = b >> 3 & 15, m = b & 7;
  if (e == 15 && m == 7) return NAN;
  const float x =
      e ? std::ldexp(1.0f + static_cast<float>(m) / 8, e - 7) : std::ldexp(static_cast<float>(m), -9);
  return b & 0x80 ? -x : x;
}

}  // namespace

size_t size_of(FileDType t) {
  return row(t).size;
}
std::string_view name(FileDType t) {
  return row(t).name;
}

int64_t TensorInfo::numel() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

std::vector<float> decode_f32(FileDType dtype, std::span<const std::byte> bytes) {
  const size_t size = size_of(dtype), n = bytes.size() / size;
  std::vector<float> out(n);
  for (size_t i = 0; i < n; ++i) {
    const std::byte* p = bytes.data() + i * size;
    uint16_t h = 0;
    double d = 0;
    switch (dtype) {
      case FileDType::f32:
        std::memcpy(&out[i], p, 4);
        break;
      case FileDType::f64:
        std::memcpy(&d, p, 8);
        out[i] = static_cast<float>(d);
        break;
      case FileDType::f16:
      case FileDType::bf16:
        std::memcpy(&h, p, 2);
        out[i] = dtype == FileDType::f16 ? from_f16(h) : from_bf16(h);
        break;
      case FileDType::f8_e4m3:
        out[i] = decode_e4m3(std::to_integer<uint8_t>(*p));
        break;
      case FileDType::f8_e5m2:
        out[i] = from_f16(static_cast<uint16_t>(std::to_integer<uint16_t>(*p) << 8));
        break;
      default:
        throw Error(ErrorCode::format, fmt::format("{} values aren't floating-point numbers", name(dtype)));
    }
  }
  return out;
}

SafetensorsFile::SafetensorsFile(const std::string& path)
    : path_(path), file_((refuse_other_formats(path), path)) {
  uint64_t n = 0;
  if (file_.size() < 8) bad(path, "too short for a safetensors file");
  file_.read(0, std::as_writable_bytes(std::span(&n, 1)));
  if (n == 0 || n > kMaxHeader || n > file_.size() - 8) {
    bad(path, fmt::format("its header claims {} bytes, the file has {}", n, file_.size()));
  }
  std::string text(n, '\0');
  file_.read(8, std::as_writable_bytes(std::span(text)));
  if (text[0] != '{') bad(path, "its header is no JSON object");
  const Json header = parse_json(text, path);
  data_start_ = 8 + n;
  const uint64_t data_size = file_.size() - data_start_;
  std::vector<const TensorInfo*> order;
  for (const auto& [key, entry] : header.items()) {
    if (key == "__metadata__") {
      if (!entry.is_object()) bad(path, "__metadata__ is no JSON object");
      for (const auto& [k, v] : entry.items()) {
        if (!v.is_string()) bad(path, fmt::format("metadata {} is no string", k));
        metadata_[k] = v.get<std::string>();
      }
      continue;
    }
    const auto it = tensors_.emplace(key, parse_entry(path, key, entry, data_size)).first;
    order.push_back(&it->second);
  }
  std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return a->begin != b->begin ? a->begin < b->begin : a->end < b->end;
  });
  uint64_t at = 0;
  for (const TensorInfo* t : order) {
    if (t->begin != at) {
      bad(path, fmt::format("tensor {}: its data {} the previous tensor's ({} instead of {})", t->name,
                            t->begin < at ? "overlaps" : "leaves a gap after", t->begin, at));
    }
    at = t->end;
  }
  if (at != data_size) bad(path, fmt::format("{} bytes follow the last tensor", data_size - at));
}

const TensorInfo& SafetensorsFile::info(const std::string& name) const {
  const auto it = tensors_.find(name);
  if (it != tensors_.end()) return it->second;
  std::vector<std::string> names;
  for (const auto& [k, v] : tensors_) names.push_back(k);
  bad(path_, fmt::format("tensor {} is missing{}", name, nearest(name, names)));
}

void SafetensorsFile::read(const TensorInfo& t, uint64_t offset, std::span<std::byte> out) const {
  if (offset > t.end - t.begin || out.size() > t.end - t.begin - offset)
    bad(path_, "a read beyond tensor " + t.name);
  file_.read(data_start_ + t.begin + offset, out);
}

std::vector<std::byte> SafetensorsFile::read_bytes(const std::string& name) const {
  const TensorInfo& t = info(name);
  std::vector<std::byte> out(t.end - t.begin);
  read(t, 0, out);
  return out;
}

std::vector<float> SafetensorsFile::read_f32(const std::string& name) const {
  const TensorInfo& t = info(name);
  if (!is_float(t.dtype))
    bad(path_, fmt::format("tensor {} is {}, a floating-point one is needed", name, io::name(t.dtype)));
  return decode_f32(t.dtype, read_bytes(name));
}

std::vector<int32_t> SafetensorsFile::read_i32(const std::string& name) const {
  const TensorInfo& t = info(name);
  if (is_float(t.dtype))
    bad(path_, fmt::format("tensor {} is {}, an integer one is needed", name, io::name(t.dtype)));
  const std::vector<std::byte> raw = read_bytes(name);
  std::vector<int32_t> out(raw.size() / size_of(t.dtype));
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t v = decode_int(t.dtype, raw.data() + i * size_of(t.dtype));
    if (v < INT32_MIN || v > INT32_MAX)
      bad(path_, fmt::format("tensor {} holds {}, which doesn't fit 32 bits", name, v));
    out[i] = static_cast<int32_t>(v);
  }
  return out;
}

Checkpoint::Checkpoint(const std::string& path) : path_(path) {
  namespace fs = std::filesystem;
  std::string file = path;
  if (fs::is_directory(path)) {
    file.clear();
    for (const char* stem : {"diffusion_pytorch_model", "model"}) {
      for (const char* ext : {".safetensors", ".safetensors.index.json"}) {
        const fs::path p = fs::path(path) / (std::string(stem) + ext);
        if (file.empty() && fs::exists(p)) file = p.string();
      }
    }
    if (file.empty()) {
      throw Error(
          ErrorCode::io,
          path + ": this folder has neither diffusion_pytorch_model.safetensors nor model.safetensors");
    }
  }
  if (!file.ends_with(".index.json")) {
    add(file, nullptr);
    return;
  }
  const Json index = read_json(file);
  const Json map = get<Json>(index, "weight_map", file);
  if (!map.is_object()) bad(file, "weight_map is no JSON object");
  std::map<std::string, std::vector<std::string>> shards;
  for (const auto& [tensor, shard] : map.items()) {
    if (!shard.is_string()) bad(file, fmt::format("the shard of {} is no string", tensor));
    const fs::path p(shard.get<std::string>());
    if (p.is_absolute() || p.empty() ||
        std::any_of(p.begin(), p.end(), [](const auto& part) { return part == ".."; })) {
      bad(file, fmt::format("the shard path {} leaves the folder", p.string()));
    }
    shards[(fs::path(file).parent_path() / p).string()].push_back(tensor);
  }
  if (shards.empty()) bad(file, "weight_map is empty");
  for (const auto& [shard, names] : shards) add(shard, &names);
}

void Checkpoint::add(const std::string& file, const std::vector<std::string>* expected) {
  files_.push_back(std::make_unique<SafetensorsFile>(file));
  const SafetensorsFile& f = *files_.back();
  if (expected) {
    for (const std::string& n : *expected) f.info(n);
  }
  for (const auto& [n, t] : f.tensors()) {
    if (!tensors_.emplace(n, t).second) bad(file, fmt::format("tensor {} is also in another shard", n));
    owner_[n] = files_.size() - 1;
  }
}

const TensorInfo& Checkpoint::info(const std::string& name) const {
  const auto it = tensors_.find(name);
  if (it != tensors_.end()) return it->second;
  std::vector<std::string> names;
  for (const auto& [k, v] : tensors_) names.push_back(k);
  bad(path_, fmt::format("tensor {} is missing{}", name, nearest(name, names)));
}

void Checkpoint::read(const TensorInfo& t, uint64_t offset, std::span<std::byte> out) const {
  files_[owner_.at(t.name)]->read(t, offset, out);
}

std::vector<float> Checkpoint::read_f32(const std::string& name) const {
  const TensorInfo& t = info(name);
  return files_[owner_.at(t.name)]->read_f32(name);
}

TensorData tensor_data(std::string name, std::vector<int64_t> shape, std::span<const float> values,
                       FileDType dtype) {
  TensorData t{std::move(name), dtype, std::move(shape), {}};
  t.bytes.resize(values.size() * size_of(dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    if (dtype == FileDType::f32) {
      std::memcpy(t.bytes.data() + 4 * i, &values[i], 4);
    } else {
      const uint16_t h = dtype == FileDType::f16 ? to_f16(values[i]) : to_bf16(values[i]);
      std::memcpy(t.bytes.data() + 2 * i, &h, 2);
    }
  }
  return t;
}

void write_safetensors(const std::string& path, const std::vector<TensorData>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<const TensorData*> order;
  for (const TensorData& t : tensors) order.push_back(&t);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) { return a->name < b->name; });
  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t at = 0;
  for (const TensorData* t : order) {
    if (header.contains(t->name))
      throw Error(ErrorCode::invalid_argument, fmt::format("{}: {} twice", path, t->name));
    header[t->name] = {
        {"dtype", name(t->dtype)}, {"shape", t->shape}, {"data_offsets", {at, at + t->bytes.size()}}};
    at += t->bytes.size();
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t n = text.size();
  atomic_write(path, [&](const Sink& sink) {
    sink(std::as_bytes(std::span(&n, 1)));
    sink(std::as_bytes(std::span(text.data(), text.size())));
    for (const TensorData* t : order) sink(t->bytes);
  });
}

std::string nearest(const std::string& name, const std::vector<std::string>& candidates) {
  const auto distance = [&](const std::string& other) {
    std::vector<size_t> d(other.size() + 1);
    std::iota(d.begin(), d.end(), size_t{0});
    for (size_t i = 1; i <= name.size(); ++i) {
      size_t diagonal = d[0];
      d[0] = i;
      for (size_t j = 1; j <= other.size(); ++j) {
        const size_t up = d[j];
        d[j] = std::min({up + 1, d[j - 1] + 1, diagonal + (name[i - 1] != other[j - 1])});
        diagonal = up;
      }
    }
    return d.back();
  };
  std::vector<std::pair<size_t, std::string>> ranked;
  const size_t limit =
      std::min<size_t>(candidates.size(), 4096);  // enough to be helpful, bounded for hostile files
  for (size_t i = 0; i < limit && name.size() < 512; ++i) {
    if (candidates[i].size() < 512) ranked.emplace_back(distance(candidates[i]), candidates[i]);
  }
  std::sort(ranked.begin(), ranked.end());
  std::string out;
  for (size_t i = 0; i < std::min<size_t>(3, ranked.size()); ++i) {
    if (ranked[i].first <= name.size() / 2) out += (out.empty() ? "; nearest: " : ", ") + ranked[i].second;
  }
  return out;
}

}  // namespace vkflux::io
