// All hyper-parameters of online distillation, with the reference's defaults and its clamping of what can't
// be.
#pragma once

#include <cstdint>
#include <string>

#include "model/attention/hkr/hkr.h"
#include "model/attention/hkr/readiness.h"
#include "model/io/json.h"
#include "model/io/safetensors.h"
#include "train/distill/degrade.h"

namespace vkflux {

/// Two laws for the width of the feature maps.
enum class FeatureDimRule {
  reference,  // at least 128 and a multiple of 256
  ours,       // any multiple of 32 from 32 to 8192
};
/// Error invalid_argument when the law doesn't admit it.
void check_feature_dim(int64_t feature_dim, FeatureDimRule rule);

struct DistillSettings {
  int64_t steps = 512;  // updates, summed over all layers
  bool preview = true;  // ready layers already answer during training

  // The student.
  int64_t feature_dim = 256;
  double alpha_init = 0.1, alpha_max = 0.2, gamma = 2.0;
  double landmark_fraction = 0.08;
  int64_t text_tokens_guess = 77;
  TrainingSizes sizes;  // query cap, chunks, landmark limits: what running out of memory reduces

  // Optimisation.
  double learning_rate = 1e-4;
  double alpha_lr_multiplier = 5, phi_lr_multiplier = 1;
  double grad_clip_norm = 1;  // 0: off
  double huber_beta = 0.05;
  int64_t train_steps_per_call = 1;

  // Replay.
  int64_t replay_buffer_size = 8;                // samples per layer
  uint64_t replay_max_bytes = 768ull << 20;      // over all layers; 0: unlimited
  std::string replay_storage_dtype = "float16";  // or bfloat16, float32

  // Which layers, and when they may serve.
  ReadinessCriteria readiness;
  int64_t layer_start = -1, layer_end = -1;  // of the replaceable, both inclusive; negative: no bound
  int64_t min_swap_layers = 1, max_swap_layers = -1;  // trained per step; negative: all
  double max_safe_inference_loss = 0.5;               // 0 or less: no such guard
  bool enable_memory_reserve = false;

  double cfg_scale = 1;  // where the host doesn't say
  int64_t log_every = 10;

  /// Clamps every field to what it may be; warns about a replay type it doesn't know and takes float16.
  void sanitise();

  bool selects_layer(int64_t single_block) const;
  io::FileDType replay_dtype() const;
  /// Options of a layer with these settings.
  HkrOptions hkr_options() const;

  /// Fields under the names of the checkpoint.
  io::Json to_json() const;
  /// Takes the fields that the object has, keeps the others, sanitises. Error format for a wrong type.
  void merge(const io::Json& object, const std::string& origin);
};

}  // namespace vkflux
