// Samplers. A step of each is a weighted sum of the latent, the model's prediction, what earlier steps
// estimated of the clean picture, and fresh noise; the weights follow from the noise levels alone, so all of
// them are known, and checked, before the first step.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "autograd/tensor.h"

namespace vkflux {

enum class Sampler { euler, ancestral, renoise, heun, dpmpp, unipc };

struct SolverOptions {
  Sampler sampler = Sampler::euler;
  // Of dpmpp and unipc, as diffusers' DPMSolverMultistepScheduler and UniPCMultistepScheduler have them:
  int order = 2;                          // dpmpp: 1 to 3; unipc: 1 to 4
  bool sde = false;                       // dpmpp with fresh noise: algorithm_type sde-dpmsolver++
  bool heun_form = false;                 // dpmpp: solver_type heun in place of midpoint
  bool bh1 = false;                       // unipc: solver_type bh1 in place of bh2
  bool lower_order_final = true;          // lower orders in the last steps
  bool euler_at_final = false;            // dpmpp
  std::vector<int64_t> uncorrected = {};  // unipc: steps after which there is no correction
};

struct SamplerRow {
  const char *name, *label, *title;  // label: as other programs' pictures name it
  SolverOptions options;
  bool own_grid = true;  // draws on the model's own schedule; false: on even times, whatever the model says
  std::vector<std::string> aliases = {};  // by which other programs know it
};
/// All of them, in the order of their listing.
std::span<const SamplerRow> samplers();
/// By name or alias, in any case. Error invalid_argument lists the names.
const SamplerRow& sampler_row(const std::string& text);
/// The row that fits best, for what people read.
const char* name(const SolverOptions& options);

class Solver {
 public:
  /// The model's prediction, noise - clean, for a latent at levels[i].
  using Predict = std::function<Tensor(const Tensor& x, int64_t i)>;
  /// Fresh noise of the latent's shape for a step.
  using Noise = std::function<Tensor(int64_t step)>;
  /// What later steps need of earlier ones.
  struct State {
    int64_t begun = 0;           // the first step
    std::vector<Tensor> cleans;  // estimates of the clean latent, the newest first
    Tensor before;               // unipc: the corrected latent before the last step
  };

  /// Steps from levels[i] to levels[i + 1], from `start` on. Error invalid_argument where a step has no
  /// finite weights.
  Solver(SolverOptions options, std::vector<double> levels, int64_t start = 0);

  /// The prediction that a step uses: one pass of the model, two of heun except for the last step. Changes
  /// nothing, so that it can be asked again.
  Tensor direction(int64_t step, const Tensor& x, const Predict& predict) const;
  /// x at levels[step] -> x at levels[step + 1]. Steps come in order.
  Tensor advance(int64_t step, const Tensor& x, const Tensor& direction, const Noise& noise);
  /// Some step takes fresh noise.
  bool stochastic() const;
  /// Passes of the model in a step.
  int64_t passes(int64_t step) const;

  const State& state() const { return state_; }
  /// Goes on after a step that another solver made with the same options and levels.
  void restore(State state) { state_ = std::move(state); }
  /// Estimates of the clean latent that state() holds at most.
  size_t memory() const;

 private:
  /// x' = x * x + v * v + sum(cleans[j] * clean_j) + noise * fresh noise
  struct Weights {
    double x = 0, v = 0, noise = 0;
    std::vector<double> cleans;  // the newest, that of this step, first
  };
  Weights euler(int64_t step) const;
  Weights ancestral(int64_t step) const;
  Weights renoise(int64_t step) const;
  Weights dpmpp(int64_t step, int64_t made) const;
  Weights unipc(int64_t step, int order) const;
  /// Of the latent before the last step and the estimates; empty x: none.
  Weights correction(int64_t step, int order) const;
  int unipc_order(int64_t step) const;
  void check(const Weights& w, int64_t step) const;

  SolverOptions options_;
  std::vector<double> levels_;
  int64_t start_;
  std::vector<Weights> weights_, corrections_;  // by step - start
  State state_;
};

}  // namespace vkflux
