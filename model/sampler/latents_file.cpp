#include "model/sampler/latents_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "model/io/safetensors.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr int64_t kMostCells = int64_t{1} << 31;

io::TensorData data_of(const char* name, const Tensor& x) {
  return io::tensor_data(name, {x.shape().begin(), x.shape().end()}, x.to_host());
}

/// A tensor that may be a latent.
bool fits(const io::TensorInfo& info) {
  return info.shape.size() >= 2 && info.shape.size() <= 4 && io::is_float(info.dtype) &&
         std::all_of(info.shape.begin(), info.shape.end(), [](int64_t d) { return d > 0; }) &&
         info.numel() <= kMostCells;
}

std::string listed(const io::TensorSource& file) {
  std::string out;
  size_t n = 0;
  for (const auto& [name, info] : file.tensors()) {
    if (++n > 4) return out + ", ...";
    out += fmt::format("{}\"{}\" {}", out.empty() ? "" : ", ", io::shown(name), Shape(info.shape).str());
  }
  return out.empty() ? "no tensor" : out;
}

/// The name of the tensor that is wanted; the only one that can be meant where the name is another.
std::string name_of(const io::TensorSource& file, LatentKind wanted) {
  const std::string own = wanted == LatentKind::noise ? "noise" : "latents";
  if (file.has("latent_tensor")) {
    throw Error(ErrorCode::unsupported,
                fmt::format("{}: a latent of ComfyUI (\"latent_tensor\") holds the autoencoder's own values: "
                            "multiply (x - shift_factor) by scaling_factor and store it as \"{}\"",
                            file.path(), own));
  }
  if (file.has(own)) return own;
  std::string only;
  for (const auto& [name, info] : file.tensors()) {
    if (name == "sigmas" || !fits(info)) continue;
    if (!only.empty()) only = "\n";  // no tensor's name
    if (only.empty()) only = name;
  }
  if (only.empty() || only == "\n") {
    throw Error(ErrorCode::format,
                fmt::format("{} has {}: a tensor \"{}\" [B, C, h, w] or [B, tokens, channels] is needed",
                            file.path(), listed(file), own));
  }
  return only;
}

int64_t number_in(const std::map<std::string, std::string>& settings, const char* key) {
  const auto it = settings.find(key);
  if (it == settings.end()) return 0;
  int64_t out = 0;
  const char* end = it->second.data() + it->second.size();
  const auto [at, error] = std::from_chars(it->second.data(), end, out);
  return error == std::errc() && at == end && out > 0 && out <= 1 << 20 ? out : 0;
}

}  // namespace

void LatentsFile::save(const std::string& path) const {
  std::vector<io::TensorData> tensors;
  if (latents.defined()) tensors.push_back(data_of("latents", latents));
  if (noise.defined()) tensors.push_back(data_of("noise", noise));
  if (!levels.empty()) {
    const std::vector<float> sigmas(levels.begin(), levels.end());
    tensors.push_back(io::tensor_data("sigmas", {static_cast<int64_t>(sigmas.size())}, sigmas));
  }
  io::write_safetensors(path, tensors, settings);
}

LatentsFile read_latents(Device& device, const std::string& path, LatentKind wanted,
                         const LatentGeometry& geometry, int64_t pixels_per_cell, int64_t width,
                         int64_t height) {
  const io::SafetensorsFile file(path);
  LatentsFile out;
  out.settings = file.metadata();
  const std::string name = name_of(file, wanted);
  const std::vector<int64_t>& shape = file.info(name).shape;
  const auto wrong = [&](const std::string& why) {
    throw Error(ErrorCode::format,
                fmt::format("{}: \"{}\" {}: {}", path, io::shown(name), Shape(shape).str(), why));
  };
  if (!fits(file.info(name))) wrong("this is no latent");
  const std::vector<float> values = file.read_f32(name);
  if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); }))
    wrong("it has values that aren't finite");
  const int64_t p = geometry.patch, c = geometry.channels, packed = geometry.token_channels();
  // Three dimensions that may be either are packed, as diffusers gives them.
  const bool packs = shape.size() < 4 && shape.back() == packed;
  Tensor x;
  if (!packs) {
    const size_t first = shape.size() == 4 ? 1 : 0;
    if (shape.size() < 3 || shape[first] != c || shape[first + 1] % p || shape[first + 2] % p)
      wrong(fmt::format("the model has latents of {} channels, in patches of {}, or tokens of {} channels", c,
                        p, packed));
    x = Tensor::from(device, std::span<const float>(values),
                     {first ? shape[0] : 1, shape[first], shape[first + 1], shape[first + 2]});
  } else {
    const int64_t batch = shape.size() == 3 ? shape[0] : 1, tokens = shape[shape.size() - 2];
    const int64_t w = width ? width : number_in(out.settings, "width"),
                  h = height ? height : number_in(out.settings, "height");
    const int64_t unit = pixels_per_cell * p;
    int64_t columns = w / unit, rows = h / unit;
    if (!w || !h) columns = rows = std::llround(std::sqrt(static_cast<double>(tokens)));
    if (columns * rows != tokens)
      wrong(fmt::format("{} tokens aren't a picture of {}x{} of them: give --size", tokens, columns, rows));
    x = geometry.unpack(Tensor::from(device, std::span<const float>(values), {batch, tokens, packed}),
                        rows * p, columns * p);
  }
  (wanted == LatentKind::noise ? out.noise : out.latents) = x;
  if (file.has("sigmas") && io::is_float(file.info("sigmas").dtype)) out.levels = file.read_f64("sigmas");
  return out;
}

}  // namespace vkflux
