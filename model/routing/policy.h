// From a controller's logits to decisions, as pure functions of (logit, options, uniform number).
// A high logit means full attention, a low one the student.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "model/routing/router.h"

namespace vkflux {

double logistic(double x);  // 1 / (1 + e^-x)
double logit(double p);     // ln(p / (1 - p))

enum class PolicyKind {
  ranked,      // of a run's calls a share goes to students, those that need full attention least first
  stochastic,  // full attention with the adjusted probability, drawn for every step and layer
  threshold    // full attention where the probability is above the threshold
};
/// "ranked", "stochastic" (also sample, sampling, bernoulli, gumbel) or "threshold", in any case; error
/// invalid_argument lists them.
PolicyKind parse_policy(const std::string& text);

/// What is added to a logit before its sign decides.
enum class ActionNoise {
  logistic,  // exactly Bernoulli(logistic(logit))
  gumbel     // one Gumbel variate, as the reference: P = 1 - exp(-exp(logit)), biased to full attention
};
/// "logistic" or "gumbel".
ActionNoise parse_action_noise(const std::string& text);
const char* name(ActionNoise noise);
/// Probability of full attention under this noise.
double full_probability(double logit, ActionNoise noise);

struct PolicyOptions {
  PolicyKind kind = PolicyKind::stochastic;
  double threshold = 0.5, temperature = 1;
  ActionNoise noise = ActionNoise::logistic;
  double share = 0.5;  // of the ranked policy
};

/// 0.1 + 0.8 x with x in [0, 1]: higher is faster.
double quality_threshold(double quality_speed);
/// A policy at a setting of the knob, 0 (full attention) to 1 (fastest): the ranked one's share is the
/// setting itself, the others' threshold is quality_threshold() of it, as the reference has it.
PolicyOptions policy_at(PolicyKind kind, double quality_speed, double temperature);
/// The stochastic policy's probability of full attention: p moved along the logit axis so that `threshold`
/// becomes 1/2. p is clamped to [1e-6, 1 - 1e-6], threshold to [1e-4, 1 - 1e-4], temperature to at least
/// 1e-3; at threshold 1/2 and temperature 1 it is p itself.
double adjusted_probability(double p, double threshold, double temperature);
/// Whether the noise made of u in [0, 1] (clamped to [1e-6, 1 - 1e-6]) lifts the logit above zero.
bool draw_full(double logit, double u, ActionNoise noise);

/// ln of the probability of what was decided, p clamped to [1e-7, 1 - 1e-7].
double log_probability(bool full, double p);
/// Entropy of one decision in nats: -(p ln(p + 1e-8) + (1 - p) ln(1 - p + 1e-8)).
double decision_entropy(double p);

/// Uniform in (0, 1): a function of (seed, step, layer) alone.
double policy_uniform(uint64_t seed, uint32_t step, uint32_t layer);

/// One step's decisions of the stochastic and the threshold policy. Layers that aren't eligible (0) stay on
/// full attention; uniform(layer) is called for the eligible ones of a stochastic policy.
RouteDecision decide(std::span<const float> logits, std::span<const uint8_t> eligible,
                     const PolicyOptions& options, const std::function<double(uint32_t)>& uniform);
/// The ranked policy's decisions about all steps of a run, from logits [steps, layers]: of the calls of
/// eligible layers the nearest number to `share` go to students, the lowest logits first and of equal ones
/// the earlier. A larger share keeps every student of a smaller one. threshold: the largest probability that
/// went to a student.
std::vector<RouteDecision> decide_ranked(std::span<const float> logits, std::span<const uint8_t> eligible,
                                         double share);

}  // namespace vkflux
