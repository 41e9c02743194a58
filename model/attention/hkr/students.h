// The students of a transformer's layers: in memory, in their checkpoint file, and as strategies in an
// AttentionBank.
//
// File: safetensors. Tensors "layers.<layer_key>.<name as in HkrLayer::visit>"; metadata "format" =
// "flux2_ttr_v2", "alpha_format" = "logit", and "ttr" = a JSON object with settings, each layer's readiness,
// and "model": what the students were distilled for. Training adds tensors "optimizer.*" and "replay.*" that
// inference ignores.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/attention/by_layer.h"
#include "model/attention/hkr/hkr.h"
#include "model/attention/hkr/readiness.h"
#include "model/backbone.h"
#include "model/io/json.h"
#include "model/io/safetensors.h"

namespace vkflux {

struct Student {
  std::shared_ptr<HkrLayer> layer;
  Readiness readiness;
  double last_loss = 0;  // NaN: none yet

  /// Why it must not serve, for people; empty: it may. max_safe_loss: see Students.
  std::string refusal(double max_safe_loss) const;
};

struct Students {
  BackboneLayout model;  // that they belong to; loading refuses another one and names both values
  HkrConfig config;
  HkrOptions options;
  /// A student whose last loss in training was larger doesn't serve; 0 or less: no such guard.
  double max_safe_loss = 0.5;
  ByLayer<std::shared_ptr<Student>> layers;
  io::Json fields;  // every other field of the file, kept as it is

  /// The layers that may be replaced, in the model's order, that have a student (a ready one).
  std::vector<int> distilled() const;
  std::vector<int> ready() const;
  /// The ready ones whose last loss was safe, so that they will serve when asked.
  std::vector<int> serving() const;
};

/// The logit that a stored alpha means: files not marked "logit" may hold the probability itself.
float migrated_alpha(float stored, const std::string& alpha_format);

/// Reads the students of a file. Errors: format (another format, feature_dim, damaged), invalid_argument when
/// they were distilled for another transformer than `expected`.
Students load_students(Device& device, const std::string& path, const BackboneLayout& expected);
/// What a file holds of students, for a writer that adds tensors of its own: weights as `dtype`.
void append_students(const Students& students, io::FileDType dtype, std::vector<io::TensorData>& tensors,
                     std::map<std::string, std::string>& metadata);
/// Writes a file for inference only, atomically.
void save_students(const std::string& path, const Students& students, io::FileDType dtype);

/// The strategy of one student.
class HkrAttention final : public Attention {
 public:
  /// max_safe_loss: see Students.
  HkrAttention(std::shared_ptr<Student> student, double max_safe_loss)
      : student_(std::move(student)), max_safe_loss_(max_safe_loss) {}
  Tensor forward(const AttentionCall& call) override;
  /// While it isn't ready, or its last loss wasn't safe.
  std::string refusal(const AttentionShape& shape) const override;
  /// Landmarks of a masked call are chosen on the host.
  bool recordable(const TokenLayout& tokens, const StepInfo& step) const override;
  std::vector<float> step_numbers(const StepInfo& step) const override;
  Cost cost(const AttentionShape& shape) const override;

 private:
  std::shared_ptr<Student> student_;
  double max_safe_loss_;
};

/// Puts the students into the bank of their transformer, in place of others that it had.
void install(const Students& students, AttentionBank& bank);

}  // namespace vkflux
