#include "train/distill/settings.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>

#include "train/distill/replay.h"

namespace vkflux {
namespace {

// Calls f(name, field) for every field, so that reading and writing can't drift apart.
template <class Settings, class F>
void each_field(Settings& s, const F& f) {
  f("steps", s.steps);
  f("training_preview_ttr", s.preview);
  f("feature_dim", s.feature_dim);
  f("alpha_init", s.alpha_init);
  f("alpha_max", s.alpha_max);
  f("gamma", s.gamma);
  f("landmark_fraction", s.landmark_fraction);
  f("landmark_min", s.sizes.landmark_min);
  f("landmark_max", s.sizes.landmark_max);
  f("text_tokens_guess", s.text_tokens_guess);
  f("training_query_token_cap", s.sizes.query_cap);
  f("query_chunk_size", s.sizes.query_chunk);
  f("key_chunk_size", s.sizes.key_chunk);
  f("learning_rate", s.learning_rate);
  f("alpha_lr_multiplier", s.alpha_lr_multiplier);
  f("phi_lr_multiplier", s.phi_lr_multiplier);
  f("grad_clip_norm", s.grad_clip_norm);
  f("huber_beta", s.huber_beta);
  f("train_steps_per_call", s.train_steps_per_call);
  f("replay_buffer_size", s.replay_buffer_size);
  f("replay_max_bytes", s.replay_max_bytes);
  f("replay_storage_dtype", s.replay_storage_dtype);
  f("readiness_threshold", s.readiness.threshold);
  f("readiness_min_updates", s.readiness.min_updates);
  f("layer_start", s.layer_start);
  f("layer_end", s.layer_end);
  f("min_swap_layers", s.min_swap_layers);
  f("max_swap_layers", s.max_swap_layers);
  f("max_safe_inference_loss", s.max_safe_inference_loss);
  f("enable_memory_reserve", s.enable_memory_reserve);
  f("cfg_scale", s.cfg_scale);
  f("comet_log_every", s.log_every);
}

void at_least(int64_t& value, int64_t least) {
  value = std::max(value, least);
}
// NaN becomes the least.
void at_least(double& value, double least) {
  if (!(value >= least)) value = least;
}
void within(double& value, double least, double most) {
  at_least(value, least);
  value = std::min(value, most);
}

}  // namespace

void check_feature_dim(int64_t feature_dim, FeatureDimRule rule) {
  if (rule == FeatureDimRule::ours) {
    if (feature_dim >= 32 && feature_dim <= 8192 && feature_dim % 32 == 0) return;
    throw Error(ErrorCode::invalid_argument,
                fmt::format("feature_dim is {}; a multiple of 32 from 32 to 8192 is needed", feature_dim));
  }
  if (feature_dim < 128) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("feature_dim is {}; the reference needs at least 128", feature_dim));
  }
  if (feature_dim % 256 != 0) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("feature_dim is {}; the reference needs a multiple of 256", feature_dim));
  }
}

void DistillSettings::sanitise() {
  at_least(steps, 0);
  at_least(sizes.query_cap, 1);
  at_least(sizes.query_chunk, 1);
  at_least(sizes.key_chunk, 1);
  at_least(sizes.landmark_min, 1);
  at_least(sizes.landmark_max, 0);
  within(landmark_fraction, 0, 1);
  at_least(text_tokens_guess, 0);
  within(alpha_max, 0, 1);
  at_least(alpha_lr_multiplier, 0.0);
  at_least(phi_lr_multiplier, 0.0);
  at_least(grad_clip_norm, 0.0);
  at_least(huber_beta, 1e-6);
  at_least(train_steps_per_call, 1);
  at_least(replay_buffer_size, 1);
  at_least(readiness.min_updates, 0);
  at_least(min_swap_layers, 0);
  at_least(log_every, 1);
  if (!std::isfinite(cfg_scale)) cfg_scale = 1;
  if (!vkflux::replay_dtype(replay_storage_dtype)) {
    spdlog::warn("replay samples can't be stored as '{}' (float16, bfloat16 or float32): float16 is used",
                 replay_storage_dtype);
    replay_storage_dtype = "float16";
  }
}

bool DistillSettings::selects_layer(int64_t single_block) const {
  return (layer_start < 0 || single_block >= layer_start) && (layer_end < 0 || single_block <= layer_end);
}

io::FileDType DistillSettings::replay_dtype() const {
  return vkflux::replay_dtype(replay_storage_dtype).value_or(io::FileDType::f16);
}

HkrOptions DistillSettings::hkr_options() const {
  HkrOptions o;
  o.landmarks.fraction = landmark_fraction;
  o.landmarks.min = sizes.landmark_min;
  o.landmarks.max = sizes.landmark_max;
  o.landmarks.text_tokens_guess = text_tokens_guess;
  o.query_chunk = sizes.query_chunk;
  o.key_chunk = sizes.key_chunk;
  o.alpha_max = static_cast<float>(alpha_max);
  o.gamma = static_cast<float>(gamma);
  return o;
}

io::Json DistillSettings::to_json() const {
  io::Json object = io::Json::object();
  each_field(*this, [&](const char* name, const auto& field) { object[name] = field; });
  return object;
}

void DistillSettings::merge(const io::Json& object, const std::string& origin) {
  DistillSettings read = *this;
  each_field(read, [&](const char* name, auto& field) {
    field = io::get_or(object, name, field, origin);
    if constexpr (std::is_floating_point_v<std::remove_cvref_t<decltype(field)>>) {
      // A file may hold NaN; sanitise() knows what that means for the guidance alone.
      if (!std::isfinite(field) && &field != &read.cfg_scale)
        throw Error(ErrorCode::format, fmt::format("{}: \"{}\" is {}", origin, name, field));
    }
  });
  read.sanitise();
  *this = read;
}

}  // namespace vkflux
