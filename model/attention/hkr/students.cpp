#include "model/attention/hkr/students.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "model/attention/hkr/made_for.h"
#include "model/io/decimal.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr const char* kFormat = "flux2_ttr_v2";
constexpr const char* kLayerPrefix = "layers.";
constexpr size_t kMaxFields = 4096;

using LayerTensors = std::map<std::string, std::string>;  // name in the layer -> name in the file

/// "single:7.kernel.phi_net_q.0.weight" -> the layer's name and the tensor's name in it; others -> empty
/// names.
std::pair<std::string, std::string> split(std::string_view name) {
  for (const std::string_view part : {".kernel.", ".conditioner.", ".alpha"}) {
    const size_t at = name.find(part);
    if (at == std::string_view::npos || at == 0 || (part.back() != '.' && at + part.size() != name.size()))
      continue;
    const std::string layer = layer_of_key(name.substr(0, at));
    // Another form isn't a layer's key.
    if (layer_key(layer) == name.substr(0, at)) return {layer, std::string(name.substr(at + 1))};
  }
  return {};
}

/// The students' tensors by layer, with or without the leading "layers.".
ByLayer<LayerTensors> layers_of(const io::SafetensorsFile& file) {
  ByLayer<LayerTensors> out;
  for (const auto& [full, info] : file.tensors()) {
    std::string_view name = full;
    if (name.starts_with("optimizer.") || name.starts_with("replay.")) continue;
    if (name.starts_with(kLayerPrefix)) name.remove_prefix(std::string_view(kLayerPrefix).size());
    const auto [layer, tensor] = split(name);
    if (!layer.empty() && !out[layer].emplace(tensor, full).second)
      throw Error(ErrorCode::format, fmt::format("{} has a second name in this file", io::shown(full)));
  }
  return out;
}

/// A number, or none for null, for "nan" and "inf" in words, and for numbers that aren't finite.
std::optional<double> finite(const io::Json& object, const std::string& key, const std::string& origin) {
  const auto it = object.is_object() ? object.find(key) : object.end();
  if (it == object.end() || it->is_null() || it->is_string()) return {};
  const auto x = io::get<double>(object, key, origin);
  return std::isfinite(x) ? std::optional(x) : std::nullopt;
}

io::Json number(const std::optional<double>& x) {
  return x && std::isfinite(*x) ? io::Json(*x) : io::Json(nullptr);
}

const io::Json& child(const io::Json& object, const std::string& key) {
  static const io::Json none = io::Json::object();
  const auto it = object.is_object() ? object.find(key) : object.end();
  return it != object.end() && it->is_object() ? *it : none;
}

/// The "ttr" object, or for files without one the plain metadata entries, each read as JSON where it is JSON.
io::Json fields_of(const io::SafetensorsFile& file) {
  const auto& metadata = file.metadata();
  if (const auto it = metadata.find("ttr"); it != metadata.end()) {
    io::Json fields = io::parse_json(it->second, "metadata \"ttr\"");
    if (!fields.is_object()) throw Error(ErrorCode::format, "metadata \"ttr\" is no JSON object");
    return fields;
  }
  if (metadata.size() > kMaxFields)
    throw Error(ErrorCode::format, fmt::format("over {} metadata entries", kMaxFields));
  io::Json fields = io::Json::object();
  for (const auto& [key, text] : metadata) {
    try {
      fields[key] = io::parse_json(text, key);
    } catch (const Error&) {
      fields[key] = text;
    }
  }
  return fields;
}

void check_format(const io::SafetensorsFile& file, const ByLayer<LayerTensors>& layers) {
  const auto it = file.metadata().find("format");
  // "pt" is what safetensors' own PyTorch writer puts there.
  if (it != file.metadata().end() && it->second != kFormat && it->second != "pt") {
    throw Error(ErrorCode::format,
                fmt::format("its format is \"{}\", students are \"{}\"", it->second, kFormat));
  }
  if (layers.empty()) {
    throw Error(ErrorCode::format,
                "no students: tensors named layers.single:<i>.kernel.phi_net_q.0.weight were expected");
  }
}

HkrConfig config_of(const io::SafetensorsFile& file, const LayerTensors& layer) {
  std::vector<std::pair<std::string, Shape>> shapes;
  for (const auto& [name, full] : layer) {
    const io::TensorInfo& info = file.info(full);
    if (info.shape.size() > Shape::kMaxRank) {
      throw Error(ErrorCode::format, fmt::format("{} has {} dimensions", full, info.shape.size()));
    }
    shapes.emplace_back(name, Shape(info.shape));
  }
  return infer_hkr_config(shapes);
}

HkrConfig common_config(const io::SafetensorsFile& file, const ByLayer<LayerTensors>& layers,
                        const io::Json& fields) {
  std::optional<HkrConfig> first;
  for (const auto& [layer, tensors] : layers) {
    const ErrorContext context(layer);
    const HkrConfig c = config_of(file, tensors);
    if (!first) first = c;
    const auto same = [](const char* what, int64_t here, int64_t there) {
      if (here == there) return;
      throw Error(ErrorCode::format, fmt::format("{} is {}, but {} in the first layer", what, here, there));
    };
    same("head_dim", c.head_dim, first->head_dim);
    same("feature_dim", c.feature_dim, first->feature_dim);
    same("the feature networks' width", c.width(), first->width());
    same("the feature networks' number of layers", c.layers, first->layers);
  }
  const auto stated = io::get_or<int64_t>(fields, "feature_dim", first->feature_dim, "metadata");
  if (stated != first->feature_dim) {
    throw Error(ErrorCode::format, fmt::format("feature_dim is {} by the metadata and {} by the tensors",
                                               stated, first->feature_dim));
  }
  return *first;
}

void check_model(const Students& s, const io::Json& fields, const BackboneLayout& expected) {
  constexpr const char* kThese = "these students";
  const AttentionLayer shape = replaceable_shape(expected);
  check_made_for(kThese, child(fields, "model"), expected);
  const auto same = [&](const char* what, int64_t file, int64_t want) {
    if (file != want) refuse_model(kThese, what, std::to_string(file), std::to_string(want));
  };
  same("head_dim", s.config.head_dim, shape.head_dim);
  for (const auto& [key, spec] : child(fields, "layer_specs").items()) {
    same("the number of heads", io::get_or<int64_t>(spec, "num_heads", shape.heads, key), shape.heads);
    same("head_dim", io::get_or<int64_t>(spec, "head_dim", shape.head_dim, key), shape.head_dim);
  }
  for (const auto& [name, student] : s.layers) {
    const bool there = std::any_of(expected.layers.begin(), expected.layers.end(),
                                   [&n = name](const auto& l) { return l.name == n && l.replaceable; });
    if (!there) {
      refuse_model(kThese, "a layer", name,
                   fmt::format("none of {} that may be replaced", expected.replaceable().size()));
    }
  }
}

HkrOptions options_of(const io::Json& f) {
  const std::string origin = "metadata \"ttr\"";
  HkrOptions o;
  const auto integer = [&](const char* key, int64_t fallback, int64_t least) {
    return std::max(least, io::get_or<int64_t>(f, key, fallback, origin));
  };
  o.landmarks.fraction = std::clamp(finite(f, "landmark_fraction", origin).value_or(0.08), 0.0, 1.0);
  o.landmarks.min = integer("landmark_min", o.landmarks.min, 1);
  o.landmarks.max = integer("landmark_max", o.landmarks.max, 0);
  o.landmarks.text_tokens_guess = integer("text_tokens_guess", o.landmarks.text_tokens_guess, 0);
  o.landmarks.qk_norm = io::get_or<bool>(f, "landmark_qk_norm", false, origin);
  o.query_chunk = integer("query_chunk_size", o.query_chunk, 1);
  o.key_chunk = integer("key_chunk_size", o.key_chunk, 1);
  o.alpha_max = static_cast<float>(std::clamp(finite(f, "alpha_max", origin).value_or(0.2), 0.0, 1.0));
  o.gamma = static_cast<float>(finite(f, "gamma", origin).value_or(2.0));
  o.adaptive = io::get_or<bool>(f, "adaptive_alpha", true, origin);
  o.feature_norm = io::get_or<bool>(f, "qk_norm", true, origin);
  return o;
}

/// layer_readiness first; the plain maps fill its gaps.
void read_state(Student& s, const io::Json& f, const std::string& key) {
  const std::string origin = "metadata \"ttr\"";
  const io::Json& own = child(child(f, "layer_readiness"), key);
  const auto pick = [&](const char* name, const char* map) {
    const std::optional<double> x = finite(own, name, origin);
    return x ? x : finite(child(f, map), key, origin);
  };
  Readiness& r = s.readiness;
  const auto criterion = [&](const char* name) {
    const std::optional<double> x = finite(own, name, origin);
    return x ? x : finite(f, name, origin);
  };
  r.criteria.threshold = criterion("readiness_threshold").value_or(r.criteria.threshold);
  const double updates = pick("update_count", "layer_update_count").value_or(0),
               least =
                   criterion("readiness_min_updates").value_or(static_cast<double>(r.criteria.min_updates));
  constexpr double kMost = 1e15;
  r.updates = static_cast<int64_t>(std::clamp(updates, 0.0, kMost));
  r.criteria.min_updates = static_cast<int64_t>(std::clamp(least, 0.0, kMost));
  r.ema_loss = pick("ema_loss", "layer_ema_loss");
  r.ema_cosine_dist = pick("ema_cosine_dist", "layer_ema_cosine_dist");
  const io::Json& flags = child(f, "layer_ready");
  r.ready = own.contains("ready") ? io::get<bool>(own, "ready", origin)
                                  : io::get_or<bool>(flags, key, false, origin);
  if (r.updates > 0 || r.ema_loss) r.refresh();
  s.last_loss =
      finite(child(f, "layer_last_loss"), key, origin).value_or(std::numeric_limits<double>::quiet_NaN());
}

std::shared_ptr<Student> read_student(Device& device, const io::SafetensorsFile& file,
                                      const LayerTensors& names, const Students& all,
                                      const std::string& alpha_format) {
  auto s = std::make_shared<Student>();
  s->layer = std::make_shared<HkrLayer>(all.config, all.options);
  for (const Param& p : parameters(*s->layer)) {
    const auto it = names.find(p.name);
    if (it == names.end()) throw Error(ErrorCode::format, fmt::format("{} is missing", p.name));
    const io::TensorInfo& info = file.info(it->second);
    std::vector<float> values = file.read_f32(it->second);
    if (static_cast<int64_t>(values.size()) != p.shape.numel()) {
      throw Error(ErrorCode::format, fmt::format("{} is {}, {} is expected", it->second,
                                                 Shape(info.shape).str(), p.shape.str()));
    }
    if (!std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); })) {
      throw Error(ErrorCode::format, fmt::format("{} holds values that aren't finite", it->second));
    }
    if (p.name == "alpha") values[0] = migrated_alpha(values[0], alpha_format);
    *p.tensor =
        Tensor::from(device, std::span<const float>(values), p.shape, DType::f32, MemoryClass::weights);
  }
  return s;
}

/// What of the file's JSON object has its own place in Students.
io::Json described(const Students& s) {
  io::Json f = s.fields.is_object() ? s.fields : io::Json::object();
  f["format"] = kFormat;
  f["alpha_format"] = "logit";
  f["feature_dim"] = s.config.feature_dim;
  f["feature_hidden"] = s.config.width();
  f["feature_layers"] = s.config.layers;
  f["query_chunk_size"] = s.options.query_chunk;
  f["key_chunk_size"] = s.options.key_chunk;
  f["landmark_fraction"] = s.options.landmarks.fraction;
  f["landmark_min"] = s.options.landmarks.min;
  f["landmark_max"] = s.options.landmarks.max;
  f["landmark_qk_norm"] = s.options.landmarks.qk_norm;
  f["text_tokens_guess"] = s.options.landmarks.text_tokens_guess;
  f["alpha_max"] = io::decimal(s.options.alpha_max);
  f["gamma"] = io::decimal(s.options.gamma);
  f["adaptive_alpha"] = s.options.adaptive;
  f["qk_norm"] = s.options.feature_norm;
  const AttentionLayer shape = replaceable_shape(s.model);
  f["max_safe_inference_loss"] = s.max_safe_loss;
  f["model"] = made_for(s.model);
  for (const char* map : {"layer_specs", "layer_ema_loss", "layer_ema_cosine_dist", "layer_update_count",
                          "layer_ready", "layer_last_loss", "layer_readiness"}) {
    f[map] = io::Json::object();
  }
  for (const auto& [layer, student] : s.layers) {
    const std::string key = layer_key(layer);
    const Readiness& r = student->readiness;
    f["layer_specs"][key] = {{"num_heads", shape.heads}, {"head_dim", shape.head_dim}};
    f["layer_ema_loss"][key] = number(r.ema_loss);
    f["layer_ema_cosine_dist"][key] = number(r.ema_cosine_dist);
    f["layer_update_count"][key] = r.updates;
    f["layer_ready"][key] = r.ready;
    f["layer_last_loss"][key] = number(student->last_loss);
    f["layer_readiness"][key] = {{"readiness_threshold", r.criteria.threshold},
                                 {"readiness_min_updates", r.criteria.min_updates},
                                 {"ema_loss", number(r.ema_loss)},
                                 {"ema_cosine_dist", number(r.ema_cosine_dist)},
                                 {"update_count", r.updates},
                                 {"ready", r.ready}};
  }
  return f;
}

}  // namespace

float migrated_alpha(float stored, const std::string& alpha_format) {
  const bool probability = alpha_format != "logit" && stored > 0 && stored < 1;
  return probability ? static_cast<float>(alpha_logit(static_cast<double>(stored))) : stored;
}

std::string Student::refusal(double max_safe_loss) const {
  if (!readiness.ready) return readiness.refusal();
  if (std::isfinite(last_loss) && max_safe_loss > 0 && last_loss > max_safe_loss)
    return fmt::format("its last training loss {:.4g} is above the safe {:.4g}", last_loss, max_safe_loss);
  return {};
}

namespace {

// The layers that may be replaced, in the model's order, that have a student for which `fits` holds.
template <class F>
std::vector<int> layers_where(const Students& s, const F& fits) {
  std::vector<int> out;
  const std::vector<int> places = s.model.replaceable();
  for (size_t l = 0; l < places.size(); ++l) {
    const auto found = s.layers.find(s.model.layers[static_cast<size_t>(places[l])].name);
    if (found != s.layers.end() && fits(*found->second)) out.push_back(static_cast<int>(l));
  }
  return out;
}

}  // namespace

std::vector<int> Students::distilled() const {
  return layers_where(*this, [](const Student&) { return true; });
}

std::vector<int> Students::ready() const {
  return layers_where(*this, [](const Student& s) { return s.readiness.ready; });
}

std::vector<int> Students::serving() const {
  return layers_where(*this, [&](const Student& s) { return s.refusal(max_safe_loss).empty(); });
}

Students load_students(Device& device, const std::string& path, const BackboneLayout& expected) {
  const ErrorContext context(path);
  const io::SafetensorsFile file(path);
  const ByLayer<LayerTensors> names = layers_of(file);
  check_format(file, names);
  Students s;
  s.fields = fields_of(file);
  s.model = expected;
  s.config = common_config(file, names, s.fields);
  s.options = options_of(s.fields);
  s.max_safe_loss = finite(s.fields, "max_safe_inference_loss", "metadata \"ttr\"").value_or(s.max_safe_loss);
  for (const auto& [name, tensors] : names) s.layers[name] = nullptr;
  check_model(s, s.fields, expected);
  const auto marked = file.metadata().find("alpha_format");
  const auto stated = io::get_or<std::string>(
      s.fields, "alpha_format", marked == file.metadata().end() ? "raw" : marked->second, "metadata");
  for (const auto& [name, tensors] : names) {
    const ErrorContext which(name);
    s.layers[name] = read_student(device, file, tensors, s, stated);
    read_state(*s.layers[name], s.fields, layer_key(name));
  }
  return s;
}

void append_students(const Students& students, io::FileDType dtype, std::vector<io::TensorData>& tensors,
                     std::map<std::string, std::string>& metadata) {
  for (const auto& [name, student] : students.layers) {
    for (const Param& p : parameters(*student->layer)) {
      const std::vector<float> values = p.tensor->to_host();
      tensors.push_back(io::tensor_data(kLayerPrefix + layer_key(name) + "." + p.name,
                                        {p.shape.begin(), p.shape.end()}, values,
                                        p.shape.rank() < 2 ? io::FileDType::f32 : dtype));
    }
  }
  metadata["format"] = kFormat;
  metadata["alpha_format"] = "logit";
  metadata["ttr"] = described(students).dump();
}

void save_students(const std::string& path, const Students& students, io::FileDType dtype) {
  std::vector<io::TensorData> tensors;
  std::map<std::string, std::string> metadata;
  append_students(students, dtype, tensors, metadata);
  io::write_safetensors(path, tensors, metadata);
}

Tensor HkrAttention::forward(const AttentionCall& call) {
  const HkrContext context{call.tokens.text, {}, call.step.sigma, call.step.cfg_scale};
  const Tensor& scalars = call.step.numbers[static_cast<size_t>(AttentionKind::hkr)];
  return student_->layer->forward({call.q, call.k, call.v, call.tokens.key_mask, context, scalars}).out;
}

std::string HkrAttention::refusal(const AttentionShape& shape) const {
  const int64_t made_for = student_->layer->config().head_dim;
  if (shape.head_dim != made_for) {
    return fmt::format("the student was made for heads of {}, this layer has {}", made_for, shape.head_dim);
  }
  return student_->refusal(max_safe_loss_);
}

bool HkrAttention::recordable(const TokenLayout& tokens, const StepInfo& step) const {
  return step.numbers[static_cast<size_t>(AttentionKind::hkr)].defined() && !tokens.key_mask.defined();
}

std::vector<float> HkrAttention::step_numbers(const StepInfo& step) const {
  return hkr_scalars(step.sigma, step.cfg_scale);
}

Cost HkrAttention::cost(const AttentionShape& shape) const {
  return hkr_cost(student_->layer->config(), student_->layer->options(), shape);
}

void install(const Students& students, AttentionBank& bank) {
  for (const int i : students.model.replaceable()) bank.set(i, AttentionKind::hkr, nullptr);
  for (const auto& [name, student] : students.layers) {
    bank.set(bank.index(name), AttentionKind::hkr,
             std::make_shared<HkrAttention>(student, students.max_safe_loss));
  }
}

}  // namespace vkflux
