// Golden files: inputs, weights and the outputs and gradients of a reference, checked against our own ops and
// models.
//
// Names in a file: in.X inputs, w.X weights, out.X outputs, mid.X intermediates, grad.X and grad.in.X
// gradients of sum(out * in.loss_cotangent); P_sample.X is flat[::stride][:2048] of a large P.X (stride =
// max(1, numel / 2048)), P_stat.X its [sum, sum of squares, max abs].
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "app/verify/options.h"
#include "autograd/tape.h"
#include "autograd/tensor.h"
#include "model/io/safetensors.h"
#include "model/module.h"

namespace vkflux::verify {

struct Check {
  std::string tensor;
  double error = 0, tolerance = 0;
  bool absolute = false, passed = false;
  std::string note;  // why it failed, when that isn't the error's size
};

struct Report {
  std::string file, kind, error;  // error: the case could not be run
  std::vector<Check> checks;
  bool passed() const;
};

class Case {
 public:
  Case(Device& device, const std::string& path);

  Device& device() { return device_; }
  const std::string& kind() const { return kind_; }
  const nlohmann::json& config() const { return config_; }
  const io::SafetensorsFile& file() const { return file_; }

  /// "in." + name on the device as f32, whatever its stored type, watched when the file has its gradient.
  Tensor in(const std::string& name);
  bool has_in(const std::string& name) const { return file_.has("in." + name); }
  /// "in." + name as a key mask: u8 [batch, keys], of any stored type (not 0: keep) and any shape that
  /// broadcasts to that; undefined when the file hasn't it. Error format for masks of another kind.
  Tensor key_mask(const std::string& name, int64_t batch, int64_t keys);
  /// Values of any tensor, under its name in the file.
  std::vector<double> numbers(const std::string& name) const { return file_.read_f64(name); }
  /// "w." + name (from weights_file when the file says so), watched likewise.
  Tensor weight(const std::string& name);
  bool has_weight(const std::string& name) const { return weights().has("w." + name); }
  /// Makes the module's parameters the file's weights, in the module's shapes; prefix: what the file puts
  /// before our names. A parameter that the file hasn't and whose name ends with `may_miss` is zero.
  template <class Module>
  void use(Module& module, const std::string& prefix = "", const std::string& may_miss = "") {
    for (const Param& p : parameters(module, prefix)) {
      const bool missing = !may_miss.empty() && !has_weight(p.name) && p.name.ends_with(may_miss);
      *p.tensor = missing ? Tensor::zeros(device_, p.shape) : weight(p.name, p.shape);
    }
  }
  /// Asks for the gradient with respect to a leaf if the file has it under this name ("grad.x"): for weights
  /// that several sub-cases use (an alias() of weight() each).
  void watch(const std::string& gradient, const Tensor& leaf);
  /// All weights whose name starts with the prefix, without it.
  std::vector<std::string> weight_names(const std::string& prefix = "") const;
  Shape weight_shape(const std::string& name) const;

  void out(const std::string& name, const Tensor& value) { got_["out." + name] = value.to_host(); }
  void out(const std::string& name, std::vector<float> value) { got_["out." + name] = std::move(value); }
  void mid(const std::string& name, const Tensor& value) { got_["mid." + name] = value.to_host(); }
  void mid(const std::string& name, std::vector<float> value) { got_["mid." + name] = std::move(value); }
  /// A gradient that the product's own training step computed.
  void grad(const std::string& name, const Tensor& value) { got_["grad." + name] = value.to_host(); }
  /// Backward from those of the outputs whose cotangents "in." + name the file has (ones are never assumed);
  /// records all gradients.
  void backward(const std::vector<std::pair<Tensor, std::string>>& outputs);
  Tape& tape() { return tape_; }

  /// Replaces the default tolerances (outputs 2e-4, gradients 1e-3, each at least ten times the reference's
  /// own float32 error) for tensors whose name in the file, or without "_sample" and "_stat", starts with the
  /// prefix (the longest wins); absolute: of the difference itself.
  void tolerance(const std::string& prefix, double value, bool absolute = false);
  /// A check that is computed by the case itself.
  void check(Check c) { extra_.push_back(std::move(c)); }

  Report compare() const;
  /// What was computed, under the golden's names.
  void dump(const std::string& folder) const;

 private:
  const io::SafetensorsFile& weights() const { return weights_ ? *weights_ : file_; }
  Tensor load(const io::SafetensorsFile& file, const std::string& name);
  Tensor weight(const std::string& name, const Shape& shape);
  /// Zeros for the gradient of a leaf that no output depends on; nothing when there is no such leaf.
  std::optional<std::vector<float>> unreached(const std::string& gradient) const;
  Check compare_one(const std::string& name) const;

  Device& device_;
  io::SafetensorsFile file_;
  std::unique_ptr<io::SafetensorsFile> weights_;
  std::string kind_;
  nlohmann::json config_, ref_err_;
  double worst_outputs_ = 0, worst_grads_ = 0;
  Tape tape_;
  std::vector<std::pair<std::string, Tensor>> watched_;  // gradient name -> leaf
  std::map<std::string, Tensor> loaded_;
  bool went_back_ = false;
  std::map<std::string, std::vector<float>> got_;
  std::vector<Check> extra_;
  struct Tolerance {
    double value;
    bool absolute;
  };
  std::map<std::string, Tolerance> tolerances_;
};

/// Runs one golden file (.safetensors or .json). An unknown kind is a failed report, never a skip.
Report run_file(Device& device, const std::string& path, const std::string& dump_folder);

using CaseFn = void (*)(Case&);
/// The handler of a kind (the longest prefix wins), or null.
CaseFn find_case(const std::string& kind);
/// Tables in JSON, by the same rule.
using TableFn = void (*)(Device& device, const nlohmann::json& file, Report& report);
TableFn find_table(const std::string& kind);

// app/verify/*_cases.cpp
void run_ops(Case& c);
void run_adamw(Case& c);
void run_flux1_block(Case& c);
void run_flux1_full(Case& c);
void run_flux1_denoise(Case& c);
void run_flux1_ids(Case& c);
void run_flux1_modules(Case& c);
void run_flux1_rope(Case& c);
void run_flux2_full(Case& c);
void run_flux2_denoise(Case& c);
void run_flux2_ids(Case& c);
void run_flux2_rope(Case& c);
void run_vae(Case& c);
void run_text_encoder(Case& c);
void run_ttr_kernel(Case& c);
void run_ttr_landmark_branch(Case& c);
void run_ttr_layer(Case& c);
void run_ttr_scalar_embedding(Case& c);
void run_ttr_teacher_attention(Case& c);
void run_ttr_controller(Case& c);
void run_ttr_policy(Case& c);
void run_ttr_threshold(Case& c);
void run_ttr_reinforce(Case& c);
void run_ttr_sigma_policy(Case& c);
void run_ttr_reward_loss(Case& c);
void run_ttr_reward_tables(Device& device, const nlohmann::json& file, Report& report);
void run_ttr_distill(Case& c);
void run_flux1_schedule(Device& device, const nlohmann::json& file, Report& report);
void run_flux2_schedule(Device& device, const nlohmann::json& file, Report& report);
void run_ttr_landmarks(Device& device, const nlohmann::json& file, Report& report);
void run_ttr_readiness(Device& device, const nlohmann::json& file, Report& report);
void run_ttr_routing(Device& device, const nlohmann::json& file, Report& report);
void run_ttr_runtime_tables(Device& device, const nlohmann::json& file, Report& report);
void run_ttr_sweep_utils(Device& device, const nlohmann::json& file, Report& report);
void run_ttr_comet_keys(Device& device, const nlohmann::json& file, Report& report);

}  // namespace vkflux::verify
