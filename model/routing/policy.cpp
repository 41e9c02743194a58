#include "model/routing/policy.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>

#include "model/philox.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr double kPolicyClamp = 1e-6, kRecordClamp = 1e-7, kThresholdClamp = 1e-4, kTemperatureFloor = 1e-3,
                 kEntropyEps = 1e-8;
constexpr uint32_t kPolicyStream = 0x524f5554;

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

double clamp_open(double p, double margin) {
  return std::clamp(p, margin, 1 - margin);
}

}  // namespace

double logistic(double x) {
  return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x));
}

double logit(double p) {
  return std::log(p) - std::log1p(-p);
}

PolicyKind parse_policy(const std::string& text) {
  constexpr std::array kStochastic{"stochastic", "sample", "sampling", "bernoulli", "gumbel"};
  const std::string word = lower(text);
  if (std::find(kStochastic.begin(), kStochastic.end(), word) != kStochastic.end())
    return PolicyKind::stochastic;
  if (word == "threshold") return PolicyKind::threshold;
  if (word == "ranked") return PolicyKind::ranked;
  throw Error(ErrorCode::invalid_argument,
              fmt::format("policy '{}': expected ranked, stochastic or threshold", text));
}

ActionNoise parse_action_noise(const std::string& text) {
  const std::string word = lower(text);
  if (word == "logistic") return ActionNoise::logistic;
  if (word == "gumbel") return ActionNoise::gumbel;
  throw Error(ErrorCode::invalid_argument,
              fmt::format("action noise '{}': expected logistic or gumbel", text));
}

const char* name(ActionNoise noise) {
  return noise == ActionNoise::gumbel ? "gumbel" : "logistic";
}

double full_probability(double logit, ActionNoise noise) {
  return noise == ActionNoise::gumbel ? -std::expm1(-std::exp(logit)) : logistic(logit);
}

double quality_threshold(double quality_speed) {
  return 0.1 + 0.8 * std::clamp(quality_speed, 0.0, 1.0);
}

PolicyOptions policy_at(PolicyKind kind, double quality_speed, double temperature) {
  PolicyOptions o;
  o.kind = kind;
  o.share = std::clamp(quality_speed, 0.0, 1.0);
  if (kind != PolicyKind::ranked) o.threshold = quality_threshold(quality_speed);
  o.temperature = temperature;
  return o;
}

double adjusted_probability(double p, double threshold, double temperature) {
  return logistic((logit(clamp_open(p, kPolicyClamp)) - logit(clamp_open(threshold, kThresholdClamp))) /
                  std::max(kTemperatureFloor, temperature));
}

bool draw_full(double logit, double u, ActionNoise noise) {
  u = clamp_open(u, kPolicyClamp);
  const double added = noise == ActionNoise::gumbel ? -std::log(-std::log(u)) : std::log1p(-u) - std::log(u);
  return logit + added > 0;
}

double log_probability(bool full, double p) {
  p = clamp_open(p, kRecordClamp);
  return full ? std::log(p) : std::log1p(-p);
}

double decision_entropy(double p) {
  return -(p * std::log(p + kEntropyEps) + (1 - p) * std::log(1 - p + kEntropyEps));
}

double policy_uniform(uint64_t seed, uint32_t step, uint32_t layer) {
  const PhiloxBlock block = philox4x32({layer, step, 0, kPolicyStream},
                                       {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return block[0] * 0x1p-32 + 0x1p-33;
}

RouteDecision decide(std::span<const float> logits, std::span<const uint8_t> eligible,
                     const PolicyOptions& options, const std::function<double(uint32_t)>& uniform) {
  if (logits.size() != eligible.size()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} logits for {} layers", logits.size(), eligible.size()));
  }
  RouteDecision d;
  d.student.assign(logits.size(), 0);
  d.threshold = options.threshold;
  const bool plain = options.threshold == 0.5 && options.temperature == 1;
  for (size_t l = 0; l < logits.size(); ++l) {
    const double p = logistic(static_cast<double>(logits[l]));
    d.probability.push_back(static_cast<float>(p));
    if (!eligible[l]) continue;
    bool full = true;
    if (options.kind == PolicyKind::threshold) {
      full = p > options.threshold;
    } else {
      const double x =
          plain ? static_cast<double>(logits[l])
                : logit(clamp_open(adjusted_probability(p, options.threshold, options.temperature), 0x1p-53));
      full = draw_full(x, uniform(static_cast<uint32_t>(l)), options.noise);
    }
    d.student[l] = !full;
  }
  return d;
}

std::vector<RouteDecision> decide_ranked(std::span<const float> logits, std::span<const uint8_t> eligible,
                                         double share) {
  const size_t layers = eligible.size();
  if (layers == 0 || logits.size() % layers != 0) {
    throw Error(ErrorCode::invalid_argument, fmt::format("{} logits for {} layers", logits.size(), layers));
  }
  std::vector<RouteDecision> out(logits.size() / layers);
  std::vector<size_t> calls;
  for (size_t i = 0; i < logits.size(); ++i) {
    RouteDecision& d = out[i / layers];
    d.student.push_back(0);
    d.probability.push_back(static_cast<float>(logistic(static_cast<double>(logits[i]))));
    if (eligible[i % layers]) calls.push_back(i);
  }
  std::stable_sort(calls.begin(), calls.end(), [&](size_t a, size_t b) { return logits[a] < logits[b]; });
  calls.resize(static_cast<size_t>(std::lround(share * static_cast<double>(calls.size()))));
  double threshold = 0;
  for (const size_t i : calls) {
    out[i / layers].student[i % layers] = 1;
    threshold = std::max(threshold, static_cast<double>(out[i / layers].probability[i % layers]));
  }
  for (RouteDecision& d : out) d.threshold = threshold;
  return out;
}

}  // namespace vkflux
