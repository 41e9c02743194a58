#include "model/routing/controller.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "model/attention/hkr/made_for.h"
#include "model/attention/hkr/scalar_embedding.h"
#include "model/load.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr const char* kFormat = "flux2_ttr_controller_v1";
constexpr int64_t kMostLayers = 4096, kMostWidth = 1 << 16;

/// Sinusoids of one number of each input, [S, E].
Tensor embed(Device& device, std::span<const RouteInput> inputs, double (*value)(const RouteInput&),
             int64_t dim) {
  std::vector<float> host;
  for (const RouteInput& in : inputs) {
    const std::vector<float> row = scalar_embedding(static_cast<float>(value(in)), dim);
    host.insert(host.end(), row.begin(), row.end());
  }
  return Tensor::from(device, std::span<const float>(host),
                      {static_cast<int64_t>(inputs.size()), scalar_embedding_width(dim)});
}

int64_t integer(const io::SafetensorsFile& file, const char* key, int64_t fallback) {
  const auto it = file.metadata().find(key);
  if (it == file.metadata().end()) return fallback;
  const std::string& text = it->second;
  int64_t value = 0;
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (fault != std::errc() || end != text.data() + text.size()) {
    throw Error(ErrorCode::format, fmt::format("metadata {} is '{}', a number was expected", key, text));
  }
  return value;
}

int64_t rows_of(const io::SafetensorsFile& file, const char* tensor) {
  const io::TensorInfo& info = file.info(tensor);
  if (info.shape.size() != 2) throw Error(ErrorCode::format, fmt::format("{} is no matrix", tensor));
  if (info.shape[0] < 1 || info.shape[0] > kMostWidth)
    throw Error(ErrorCode::format,
                fmt::format("{} has {} rows, 1 to {} can be", tensor, info.shape[0], kMostWidth));
  return info.shape[0];
}

ControllerConfig config_of(const io::SafetensorsFile& file) {
  const auto it = file.metadata().find("format");
  if (it == file.metadata().end() || it->second != kFormat) {
    throw Error(ErrorCode::format,
                fmt::format("no routing controller: its format is \"{}\", \"{}\" was expected",
                            it == file.metadata().end() ? "" : it->second, kFormat));
  }
  ControllerConfig c;
  const auto read = [&](const char* key, const char* tensor) {
    const int64_t rows = rows_of(file, tensor), stated = integer(file, key, rows);
    if (stated != rows) {
      throw Error(ErrorCode::format,
                  fmt::format("{} is {} by the metadata and {} by {}", key, stated, rows, tensor));
    }
    return rows;
  };
  c.layers = read("num_layers", "mlp.4.weight");
  c.embed_dim = read("embed_dim", "resolution_embed.proj.2.weight");
  c.hidden_dim = read("hidden_dim", "mlp.0.weight");
  if (c.layers > kMostLayers) {
    throw Error(ErrorCode::format, fmt::format("num_layers is {}, at most {} can be", c.layers, kMostLayers));
  }
  return c;
}

void check_model(const io::SafetensorsFile& file, const ControllerConfig& config,
                 const BackboneLayout& expected) {
  constexpr const char* kThese = "the decisions of this controller";
  const size_t layers = expected.replaceable().size();
  if (config.layers != static_cast<int64_t>(layers)) {
    refuse_model(kThese, "num_layers (layers that may be replaced)", std::to_string(config.layers),
                 std::to_string(layers));
  }
  const auto it = file.metadata().find("model");
  if (it != file.metadata().end())  // else converted from elsewhere
    check_made_for(kThese, io::parse_json(it->second, "metadata \"model\""), expected);
}

}  // namespace

void ControllerConfig::check() const {
  const auto within = [](const char* what, int64_t value, int64_t most) {
    if (value < 1 || value > most) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("a controller with {} {}: expected 1 to {}", what, value, most));
    }
  };
  within("num_layers", layers, kMostLayers);
  within("embed_dim", embed_dim, kMostWidth);
  within("hidden_dim", hidden_dim, kMostWidth);
}

ControllerNet::ControllerNet(const ControllerConfig& config) : config_(config) {
  config_.check();
  const int64_t e = scalar_embedding_width(config.embed_dim), d = config.embed_dim, h = config.hidden_dim;
  resolution_in_ = {2 * e, d};
  resolution_out_ = {d, d};
  in_ = {2 * e + d, h};
  hidden_ = {h, h};
  out_ = {h, config.layers};
}

Tensor ControllerNet::resolution(std::span<const RouteInput> inputs) const {
  Device& device = in_.weight.device();
  const int64_t d = config_.embed_dim;
  const Tensor size =
      op::concat({embed(
                      device, inputs, [](const RouteInput& i) { return static_cast<double>(i.width); }, d),
                  embed(
                      device, inputs, [](const RouteInput& i) { return static_cast<double>(i.height); }, d)},
                 1);
  return resolution_out_(resolution_in_(size, op::Activation::silu));
}

Tensor ControllerNet::forward(std::span<const RouteInput> inputs) const {
  Device& device = in_.weight.device();
  const int64_t d = config_.embed_dim;
  const Tensor x = op::concat({embed(
                                   device, inputs, [](const RouteInput& i) { return i.sigma; }, d),
                               embed(
                                   device, inputs, [](const RouteInput& i) { return i.cfg; }, d),
                               resolution(inputs)},
                              1);
  return out_(hidden_(in_(x, op::Activation::silu), op::Activation::silu));
}

InitRule controller_init(const ControllerConfig& config) {
  std::map<std::string, float> bounds;
  ControllerNet shapes(config);
  int64_t fan_in = 1;
  for (const Param& p : parameters(shapes)) {
    if (p.shape.rank() == 2) fan_in = p.shape[1];  // the weight comes before its bias
    bounds[p.name] = static_cast<float>(1 / std::sqrt(static_cast<double>(fan_in)));
  }
  return [bounds](const Param& p) { return Init{Init::Kind::uniform, bounds.at(p.name)}; };
}

std::shared_ptr<ControllerNet> load_controller(Device& device, const std::string& path,
                                               const BackboneLayout& expected) {
  const ErrorContext context(path);
  const io::SafetensorsFile file(path);
  const ControllerConfig config = config_of(file);
  check_model(file, config, expected);
  auto net = std::make_shared<ControllerNet>(config);
  io::NameTable names;
  names.ignore = {"optimizer.*"};
  load(parameters(*net), io::NamedTensors(file, names), device);
  return net;
}

void check_controller(const std::string& path, const ControllerConfig& config,
                      const BackboneLayout& expected) {
  const io::SafetensorsFile file(path);
  const ControllerConfig found = config_of(file);
  check_model(file, found, expected);
  const auto same = [](const char* what, int64_t here, int64_t want) {
    if (here != want)
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("{} is {} in the file and {} here", what, here, want));
  };
  same("num_layers", found.layers, config.layers);
  same("embed_dim", found.embed_dim, config.embed_dim);
  same("hidden_dim", found.hidden_dim, config.hidden_dim);
}

void append_controller(ControllerNet& net, const BackboneLayout& model, std::vector<io::TensorData>& tensors,
                       std::map<std::string, std::string>& metadata) {
  for (const Param& p : parameters(net)) {
    tensors.push_back(io::tensor_data(p.name, {p.shape.begin(), p.shape.end()}, p.tensor->to_host()));
  }
  const ControllerConfig& c = net.config();
  metadata["format"] = kFormat;
  metadata["num_layers"] = std::to_string(c.layers);
  metadata["embed_dim"] = std::to_string(c.embed_dim);
  metadata["hidden_dim"] = std::to_string(c.hidden_dim);
  metadata["model"] = made_for(model).dump();
}

void save_controller(const std::string& path, ControllerNet& net, const BackboneLayout& model,
                     const std::map<std::string, std::string>& more) {
  std::vector<io::TensorData> tensors;
  std::map<std::string, std::string> metadata = more;
  append_controller(net, model, tensors, metadata);
  io::write_safetensors(path, tensors, metadata);
}

ControllerRouter::ControllerRouter(std::shared_ptr<const ControllerNet> net, const PolicyOptions& policy,
                                   std::vector<uint8_t> eligible)
    : net_(std::move(net)), policy_(policy), eligible_(std::move(eligible)) {
  if (static_cast<int64_t>(eligible_.size()) != net_->config().layers) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("a controller of {} layers for {}", net_->config().layers, eligible_.size()));
  }
}

std::vector<RouteDecision> ControllerRouter::plan(const std::vector<RouteInput>& steps, uint64_t seed) {
  if (steps.empty()) return {};
  const std::vector<float> logits = net_->forward(steps).to_host();
  if (policy_.kind == PolicyKind::ranked) return decide_ranked(logits, eligible_, policy_.share);
  std::vector<RouteDecision> out;
  for (size_t n = 0; n < steps.size(); ++n) {
    out.push_back(
        decide(std::span(logits).subspan(n * eligible_.size(), eligible_.size()), eligible_, policy_,
               [&](uint32_t layer) { return policy_uniform(seed, static_cast<uint32_t>(n), layer); }));
  }
  return out;
}

}  // namespace vkflux
