// The students of a transformer's single blocks: in memory, in their checkpoint file, and as strategies in
// an AttentionBank.
//
// File: safetensors. Tensors "layers.single:<i>.<name as in HkrLayer::visit>"; metadata "format" =
// "flux2_ttr_v2", "alpha_format" = "logit", and "ttr" = a JSON object with the fields of chapter 5 of the
// specification (+ "model": what the students were distilled for). Training adds tensors "optimizer.*" and
// "replay.*" that inference ignores.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/hkr/hkr.h"
#include "model/hkr/readiness.h"
#include "model/io/json.h"
#include "model/io/safetensors.h"

namespace vkflux {

/// The transformer that students belong to. Loading refuses another one and names both values.
struct StudentModel {
  std::string family = "flux1";
  int64_t head_dim = 0, heads = 0;
  int64_t double_blocks = 0, single_blocks = 0;
};
class Flux1;
StudentModel student_model(const Flux1& transformer);

struct Student {
  std::shared_ptr<HkrLayer> layer;
  Readiness readiness;
  double last_loss = 0;  // NaN: none yet
};

struct Students {
  StudentModel model;
  HkrConfig config;
  HkrOptions options;
  std::map<int, std::shared_ptr<Student>> layers;  // by single block index
  io::Json fields;                                 // every other field of the file, kept as it is

  /// Indices of the ready ones.
  std::vector<int> ready() const;
};

/// The logit that a stored alpha means: files not marked "logit" may hold the probability itself.
float migrated_alpha(float stored, const std::string& alpha_format);
/// "single:7"
std::string layer_key(int index);

/// Reads the students of a file. Errors: format (another format, feature_dim, damaged), invalid_argument when
/// they were distilled for another transformer than `expected`.
Students load_students(Device& device, const std::string& path, const StudentModel& expected);
/// What a file holds of students, for a writer that adds tensors of its own: weights as `dtype`.
void append_students(const Students& students, io::FileDType dtype, std::vector<io::TensorData>& tensors,
                     std::map<std::string, std::string>& metadata);
/// Writes a file for inference only, atomically.
void save_students(const std::string& path, const Students& students, io::FileDType dtype);

/// The strategy of one student. refusal() says why while it isn't ready.
class HkrAttention final : public Attention {
 public:
  explicit HkrAttention(std::shared_ptr<Student> student) : student_(std::move(student)) {}
  const char* name() const override { return "hkr"; }
  Tensor forward(const AttentionCall& call) override;
  std::string refusal(const AttentionCall& call) const override;
  /// Landmarks of a masked call are chosen on the host.
  bool recordable(const AttentionCall& call) const override {
    return call.step.scalars.defined() && !call.tokens.key_mask.defined();
  }
  uint64_t scratch(const AttentionShape& shape) const override;
  Cost cost(const AttentionShape& shape) const override;

 private:
  std::shared_ptr<Student> student_;
};

/// Gives the bank of a transformer every student as strategy AttentionKind::hkr of its layer
/// (double_blocks + index).
void install(const Students& students, AttentionBank& bank);

}  // namespace vkflux
