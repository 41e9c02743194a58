#include "model/pipeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "model/load.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr uint64_t kKeepBytes = 2ull << 30;
constexpr int64_t kMaxTextTokens = 4096;

io::Json read_config(const std::string& dir, const std::string& part, const char* file = "config.json") {
  return io::read_json(dir + "/" + part + "/" + file);
}

bool exists(const std::string& path) {
  std::error_code ec;
  return std::filesystem::exists(path, ec);
}

int64_t positive(const io::Json& json, const char* key, int64_t fallback, const std::string& origin) {
  const auto v = io::get_or<int64_t>(json, key, fallback, origin);
  if (v < 1 || v > 1 << 20) throw Error(ErrorCode::format, fmt::format("{}: \"{}\" is {}", origin, key, v));
  return v;
}

/// Opens a part's checkpoint and hands its tensors, under our names, to fn.
template <class F>
auto with_tensors(const std::string& dir, const char* part, const io::NameTable& table, F fn) {
  const ErrorContext context(part);
  const auto file = io::open_tensors(dir + "/" + part);
  return fn(io::NamedTensors(*file, table));
}

uint64_t file_bytes(const std::string& dir) {
  uint64_t total = 0;
  for (const char* part : {"transformer", "vae", "text_encoder", "text_encoder_2"}) {
    const auto file = io::open_tensors(dir + "/" + part);
    for (const auto& [name, info] : file->tensors()) total += info.bytes();
  }
  return total;
}

}  // namespace

Pipeline::Pipeline(Device& device, std::string dir, const PipelineOptions& options)
    : device_(device), dir_(std::move(dir)), options_(options) {}

std::unique_ptr<Pipeline> Pipeline::load(Device& device, const std::string& dir,
                                         const PipelineOptions& options) {
  const ErrorContext context(dir);
  std::unique_ptr<Pipeline> p(new Pipeline(device, dir, options));
  p->read_index();
  p->read_configs();
  p->read_tokenizers();
  p->check_parts();
  p->keep_ = options.keep_parts ? *options.keep_parts : file_bytes(dir) <= kKeepBytes;
  return p;
}

void Pipeline::read_index() {
  const std::string origin = "model_index.json";
  const io::Json index = io::read_json(dir_ + "/" + origin);
  const auto type = io::get_or<std::string>(index, "_class_name", "FluxPipeline", origin);
  if (!type.starts_with("Flux") || type.starts_with("Flux2")) {
    throw Error(ErrorCode::unsupported, fmt::format("{}: pipeline {}, expected FluxPipeline", origin, type));
  }
  with_tensors(dir_, "transformer", io::flux1_names(),
               [&](const io::NamedTensors& t) { flux_ = infer_flux1_config(shapes_of(t)); });
  if (!flux_.guidance) {
    defaults_.steps = 4;
    defaults_.txt_tokens = 256;
  }
  const auto it = index.find("vkflux");
  if (it == index.end()) return;
  defaults_.steps = positive(*it, "steps", defaults_.steps, origin);
  defaults_.cfg = io::get_or<float>(*it, "cfg", defaults_.cfg, origin);
  defaults_.guidance = io::get_or<float>(*it, "guidance", defaults_.guidance, origin);
  if (!std::isfinite(defaults_.cfg) || !std::isfinite(defaults_.guidance)) {
    throw Error(ErrorCode::format, origin + ": cfg and guidance must be finite");
  }
  has_txt_tokens_ = it->contains("txt_tokens");
  defaults_.txt_tokens = positive(*it, "txt_tokens", defaults_.txt_tokens, origin);
  if (it->contains("size") && (*it)["size"].is_array()) {
    const auto size = io::get<std::vector<int64_t>>(*it, "size", origin);
    if (size.size() != 2 || size[0] < 1 || size[1] < 1 || std::max(size[0], size[1]) > 1 << 16) {
      throw Error(ErrorCode::format, origin + ": \"size\" must be a number or [width, height]");
    }
    defaults_.width = size[0];
    defaults_.height = size[1];
  } else {
    defaults_.width = defaults_.height = positive(*it, "size", defaults_.width, origin);
  }
}

void Pipeline::read_configs() {
  apply_flux1_json(flux_, read_config(dir_, "transformer"));
  with_tensors(dir_, "vae", io::vae_names(autoencoder_levels(*io::open_tensors(dir_ + "/vae"))),
               [&](const io::NamedTensors& t) { vae_ = infer_autoencoder_config(shapes_of(t)); });
  apply_autoencoder_json(vae_, read_config(dir_, "vae"));
  with_tensors(dir_, "text_encoder", io::clip_names(),
               [&](const io::NamedTensors& t) { clip_config_ = infer_clip_config(shapes_of(t)); });
  apply_clip_json(clip_config_, read_config(dir_, "text_encoder"));
  with_tensors(dir_, "text_encoder_2", io::t5_names(),
               [&](const io::NamedTensors& t) { t5_config_ = infer_t5_config(shapes_of(t)); });
  apply_t5_json(t5_config_, read_config(dir_, "text_encoder_2"));
  schedule_ = Schedule::from_json(read_config(dir_, "scheduler", "scheduler_config.json"));
}

void Pipeline::read_tokenizers() {
  const std::string first = dir_ + "/tokenizer", second = dir_ + "/tokenizer_2";
  // Both encoders may share one SentencePiece model.
  clip_tokenizer_ = exists(first + "/spiece.model") ? load_t5_tokenizer(first) : load_clip_tokenizer(first);
  t5_tokenizer_ = load_t5_tokenizer(second);
  const std::string config = second + "/tokenizer_config.json";
  if (!has_txt_tokens_ && exists(config)) {
    const auto longest = io::get_or<double>(io::read_json(config), "model_max_length", 512, config);
    if (longest >= 1) {
      defaults_.txt_tokens = std::min(defaults_.txt_tokens, static_cast<int64_t>(std::min(longest, 1e6)));
    }
  }
  if (defaults_.txt_tokens > kMaxTextTokens) {
    throw Error(ErrorCode::format,
                fmt::format("{} text tokens: at most {}", defaults_.txt_tokens, kMaxTextTokens));
  }
}

void Pipeline::check_parts() const {
  const auto same = [](const char* what, int64_t a, const char* other, int64_t b) {
    if (a != b) throw Error(ErrorCode::format, fmt::format("{} is {}, but {} is {}", what, a, other, b));
  };
  same("the transformer's context width", flux_.context_in_dim, "text_encoder_2's width", t5_config_.width);
  same("the transformer's vector width", flux_.vec_in_dim, "text_encoder's width", clip_config_.width);
  same("the transformer's channels", flux_.out_channels, "four times the autoencoder's",
       4 * vae_.latent_channels);
  if (flux_.in_channels != flux_.out_channels) {
    throw Error(ErrorCode::unsupported,
                fmt::format("this transformer reads {} channels per token: it needs a control or mask image, "
                            "which text to image doesn't give",
                            flux_.in_channels));
  }
  const auto fits = [](const char* name, const Tokenizer& t, int64_t vocab) {
    if (t.vocab_size() > vocab) {
      throw Error(ErrorCode::format,
                  fmt::format("{} has {} tokens, its encoder {}", name, t.vocab_size(), vocab));
    }
  };
  fits("tokenizer", *clip_tokenizer_, clip_config_.vocab);
  fits("tokenizer_2", *t5_tokenizer_, t5_config_.vocab);
  same("the tokenizer's end token", clip_tokenizer_->eos_id(), "text_encoder's", clip_config_.eos);
}

void Pipeline::load_weights(const std::vector<Param>& params, const io::NamedTensors& file,
                            const StorageRules& rules) {
  vkflux::load(params, file, device_, options_.weights, rules);
  const std::string misfit = misfits(rules, params, options_.weights);
  if (options_.remark && !misfit.empty()) options_.remark(file.path() + ": " + misfit);
}

std::shared_ptr<Flux1> Pipeline::transformer() {
  if (transformer_) return transformer_;
  auto model = std::make_shared<Flux1>(flux_);
  with_tensors(dir_, "transformer", io::flux1_names(),
               [&](const io::NamedTensors& t) { load_weights(parameters(*model), t, flux1_storage()); });
  if (students_) install(*students_, model->attention());
  if (keep_) transformer_ = model;
  return model;
}

std::shared_ptr<AutoencoderKL> Pipeline::autoencoder() {
  if (autoencoder_) return autoencoder_;
  auto model = std::make_shared<AutoencoderKL>(vae_);
  with_tensors(dir_, "vae", io::vae_names(vae_.levels()),
               [&](const io::NamedTensors& t) { vkflux::load(parameters(*model), t, device_); });
  if (keep_) autoencoder_ = model;
  return model;
}

std::shared_ptr<ClipText> Pipeline::clip() {
  if (clip_) return clip_;
  auto model = std::make_shared<ClipText>(clip_config_);
  with_tensors(dir_, "text_encoder", io::clip_names(),
               [&](const io::NamedTensors& t) { load_weights(parameters(*model), t, clip_storage()); });
  if (keep_) clip_ = model;
  return model;
}

std::shared_ptr<T5Encoder> Pipeline::t5() {
  if (t5_) return t5_;
  auto model = std::make_shared<T5Encoder>(t5_config_);
  with_tensors(dir_, "text_encoder_2", io::t5_names(),
               [&](const io::NamedTensors& t) { load_weights(parameters(*model), t, t5_storage()); });
  if (keep_) t5_ = model;
  return model;
}

FluxCondition Pipeline::encode(const std::vector<std::string>& prompts) {
  TokenIds clip_ids, t5_ids;
  for (const std::string& prompt : prompts) {
    clip_ids.push_back(clip_tokenizer_->encode(prompt, static_cast<int>(clip_config_.positions)));
    t5_ids.push_back(t5_tokenizer_->encode(prompt, static_cast<int>(defaults_.txt_tokens)));
  }
  FluxCondition c;
  c.y = clip()->forward(clip_ids).pooled;
  c.txt = t5()->forward(t5_ids);
  return c;
}

std::unique_ptr<GenerateJob> Pipeline::generate(GenerateRequest request) {
  return std::unique_ptr<GenerateJob>(new GenerateJob(*this, std::move(request)));
}

}  // namespace vkflux
