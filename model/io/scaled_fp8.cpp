#include "model/io/scaled_fp8.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <vector>

#include "model/io/file.h"
#include "model/io/json.h"
#include "vk/error.h"

namespace vkflux::io {
namespace {

constexpr std::string_view kMetadata = "_quantization_metadata", kMarker = "scaled_fp8",
                           kPrefix = "model.diffusion_model.";
constexpr std::array<std::string_view, 2> kScales{".scale_weight", ".weight_scale"};
constexpr std::array<std::string_view, 2> kInputScales{".scale_input", ".input_scale"};

[[noreturn]] void bad(const TensorSource& file, const std::string& what) {
  throw Error(ErrorCode::format, fmt::format("{}: {}", file.path(), what));
}
[[noreturn]] void unread(const TensorSource& file, const std::string& layer, std::string_view format) {
  throw Error(ErrorCode::unsupported,
              fmt::format("{}: {} is quantised as {}, which isn't read; take a file of this model in fp8 "
                          "(plain or scaled), BF16, F16 or GGUF",
                          file.path(), shown(layer), shown(format)));
}

bool is_f8(FileDType t) {
  return t == FileDType::f8_e4m3 || t == FileDType::f8_e5m2;
}

// The part of a name before `ending`; empty: it doesn't end so.
std::string before(const std::string& name, std::string_view ending) {
  return name.ends_with(ending) ? name.substr(0, name.size() - ending.size()) : std::string();
}

// Looked up by rows, never multiplied with: their fp8 values may come without a scale.
bool is_table(const std::string& weight) {
  return weight.find("shared.") != weight.npos || weight.find("embed") != weight.npos;
}

// A layer's format, from the JSON that says it.
void check_format(const TensorSource& file, const std::string& layer, const Json& json) {
  const auto format = json.is_object() ? json.find("format") : json.end();
  if (!json.is_object() || format == json.end() || !format->is_string())
    bad(file, fmt::format("the quantisation of {} is {}, an object with a \"format\" is expected",
                          shown(layer), shown(json_text(json))));
  const auto& text = format->get_ref<const std::string&>();
  const bool e4m3 = text == "float8_e4m3fn", e5m2 = text == "float8_e5m2";
  if (!e4m3 && !e5m2) unread(file, layer, text);
  const std::string weight = layer + ".weight";
  if (!file.has(weight)) return;  // of a part that was taken out of the file
  const FileDType want = e4m3 ? FileDType::f8_e4m3 : FileDType::f8_e5m2, have = file.info(weight).dtype;
  if (have != want)
    bad(file, fmt::format("{} is {}, its quantisation says {}", shown(weight), name(have), text));
}

// Names there may lack the prefix that the tensors have, or have one that the tensors lack.
std::string layer_in(const TensorSource& file, const std::string& listed) {
  if (file.has(listed + ".weight")) return listed;
  if (file.has(std::string(kPrefix) + listed + ".weight")) return std::string(kPrefix) + listed;
  return listed.starts_with(kPrefix) ? listed.substr(kPrefix.size()) : listed;
}

void check_metadata(const TensorSource& file, const std::string& text) {
  const std::string origin = fmt::format("{}: the metadata {}", file.path(), kMetadata);
  const Json json = parse_json(text, origin);
  const auto layers = json.is_object() ? json.find("layers") : json.end();
  if (!json.is_object() || layers == json.end() || !layers->is_object())
    throw Error(ErrorCode::format, origin + ": an object with \"layers\" is expected");
  for (const auto& [listed, entry] : layers->items()) check_format(file, layer_in(file, listed), entry);
}

void check_layer_tensor(const TensorSource& file, const std::string& layer, const TensorInfo& t) {
  constexpr uint64_t kMost = 64 << 10;
  if (t.dtype != FileDType::u8 || t.bytes() > kMost)
    bad(file, fmt::format("{} is {} of {} bytes, a short JSON text in U8 is expected", shown(t.name),
                          name(t.dtype), t.bytes()));
  const std::vector<std::byte> raw = file.read_bytes(t.name);
  const std::string text(reinterpret_cast<const char*>(raw.data()), raw.size());
  check_format(file, layer, parse_json(text, fmt::format("{}: {}", file.path(), shown(t.name))));
}

float scale_in(const TensorSource& file, const std::string& tensor) {
  const TensorInfo& t = file.info(tensor);
  if (!is_float(t.dtype) || size_of(t.dtype) == 1 || block_values(t.dtype) > 1)
    bad(file, fmt::format("{} is {}, a scale in F32 is expected", shown(tensor), name(t.dtype)));
  if (t.numel() != 1)
    bad(file, fmt::format("{} has {} numbers, one scale for the whole weight is expected", shown(tensor),
                          t.numel()));
  const float scale = file.read_f32(tensor)[0];
  if (!std::isfinite(scale) || !(scale > 0))
    bad(file, fmt::format("{} is {}, a finite positive scale is expected", shown(tensor), scale));
  return scale;
}

}  // namespace

ScaledFp8 read_scaled_fp8(const TensorSource& file) {
  ScaledFp8 out;
  std::vector<std::string> marked;  // prefixes of weights that need a scale
  const auto metadata = file.metadata().find(std::string(kMetadata));
  if (metadata != file.metadata().end()) {
    check_metadata(file, metadata->second);
    marked.push_back("");
  }
  for (const auto& [name, info] : file.tensors()) {
    if (name == kMarker || name.ends_with(std::string(1, '.').append(kMarker))) {
      marked.push_back(name.substr(0, name.size() - kMarker.size()));
      out.aside.insert(name);
    }
    if (name.ends_with(".weight_scale_2")) unread(file, name.substr(0, name.size() - 15), "nvfp4");
    const std::string layer = before(name, ".comfy_quant");
    if (!layer.empty()) {
      check_layer_tensor(file, layer, info);
      out.aside.insert(name);
      marked.push_back("");
    }
    for (const std::string_view ending : kInputScales) {
      if (!before(name, ending).empty()) out.aside.insert(name);
    }
    for (const std::string_view ending : kScales) {
      const std::string of = before(name, ending);
      if (of.empty()) continue;
      out.aside.insert(name);
      marked.push_back("");
      const std::string weight = of + ".weight";
      if (!file.has(weight)) continue;  // of a part that was taken out of the file
      const FileDType t = file.info(weight).dtype;
      if (!is_float(t)) unread(file, weight, fmt::format("{} with scales", io::name(t)));
      const float scale = scale_in(file, name);
      if (!is_f8(t) && scale != 1)
        bad(file, fmt::format("{} is {} and has the scale {}; only fp8 weights have scales", shown(weight),
                              io::name(t), scale));
      if (is_f8(t) && !out.scales.emplace(weight, scale).second)
        bad(file, fmt::format("{} has two scales", shown(weight)));
    }
  }
  for (const auto& [name, info] : file.tensors()) {
    if (!is_f8(info.dtype) || info.shape.size() < 2 || !name.ends_with(".weight") || is_table(name) ||
        out.scales.count(name))
      continue;
    for (const std::string& prefix : marked) {
      if (name.starts_with(prefix))
        bad(file, fmt::format("{} is {} and has no scale, although the file is one of scaled fp8",
                              shown(name), io::name(info.dtype)));
    }
  }
  return out;
}

}  // namespace vkflux::io
