#include "model/model_index.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "model/io/decimal.h"
#include "vk/error.h"

namespace vkflux {
namespace {

const char* const kOrigin = "model_index.json";
constexpr int64_t kMaxTextTokens = 4096;

int64_t positive(const io::Json& json, const char* key, int64_t fallback) {
  const auto v = io::get_or<int64_t>(json, key, fallback, kOrigin);
  if (v < 1 || v > 1 << 20) throw Error(ErrorCode::format, fmt::format("{}: \"{}\" is {}", kOrigin, key, v));
  return v;
}

}  // namespace

io::Json read_model_index(const ModelFiles& files) {
  return files.index.empty() ? io::Json::object() : io::read_json(files.index);
}

io::Json read_config(const ModelFiles::Part& part) {
  return part.config.empty() ? io::Json::object() : io::read_json(part.config);
}

std::string pipeline_of(const io::Json& index) {
  return io::get_or<std::string>(index, "_class_name", "", kOrigin);
}

void apply_recommended(SamplingDefaults& d, const io::Json& index) {
  const auto it = index.find("vkflux");
  if (it == index.end()) return;
  d.steps = positive(*it, "steps", d.steps);
  d.cfg = io::get_or<float>(*it, "cfg", d.cfg, kOrigin);
  d.guidance = io::get_or<float>(*it, "guidance", d.guidance, kOrigin);
  if (!std::isfinite(d.cfg) || !std::isfinite(d.guidance))
    throw Error(ErrorCode::format, fmt::format("{}: cfg and guidance must be finite", kOrigin));
  if (!it->contains("size") || !(*it)["size"].is_array()) {
    d.width = d.height = positive(*it, "size", d.width);
    return;
  }
  const auto size = io::get<std::vector<int64_t>>(*it, "size", kOrigin);
  if (size.size() != 2 || size[0] < 1 || size[1] < 1 || std::max(size[0], size[1]) > 1 << 16)
    throw Error(ErrorCode::format, fmt::format("{}: \"size\" must be a number or [width, height]", kOrigin));
  d.width = size[0];
  d.height = size[1];
}

int64_t text_tokens(const io::Json& index, int64_t fallback, int64_t wanted) {
  const auto check = [](ErrorCode code, int64_t tokens) {
    if (tokens < 1 || tokens > kMaxTextTokens)
      throw Error(code, fmt::format("{} text tokens: 1 to {} are possible", tokens, kMaxTextTokens));
    return tokens;
  };
  if (wanted != 0) return check(ErrorCode::invalid_argument, wanted);
  const auto ours = index.is_object() ? index.find("vkflux") : index.end();
  if (ours != index.end() && ours->is_object() && ours->contains("txt_tokens"))
    fallback = io::get<int64_t>(*ours, "txt_tokens", kOrigin);
  return check(ErrorCode::format, fallback);
}

io::Json model_index(const std::string& pipeline, const io::Json& parts, const SamplingDefaults& d) {
  io::Json out{{"_class_name", pipeline}};
  out.update(parts);
  out["vkflux"] = {{"steps", d.steps},
                   {"cfg", io::decimal(d.cfg)},
                   {"guidance", io::decimal(d.guidance)},
                   {"size", io::Json::array({d.width, d.height})},
                   {"txt_tokens", d.txt_tokens}};
  return out;
}

}  // namespace vkflux
