#include "bench/break_even.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <iterator>
#include <memory>

#include "autograd/ops.h"
#include "bench/cases.h"
#include "vk/error.h"

namespace vkflux::bench {
namespace {

constexpr int64_t kMostTokens = int64_t{1} << 26;
constexpr double kFarthest = 64;  // extrapolation, as a multiple of the last count

Measured timed(Device& device, const Function& fn, const Inputs& inputs, const Cost& cost, PeakProbe& probe,
               const MeasureOptions& options) {
  Case c;
  c.name = "attention";
  c.make = [&] { return forward_of(inputs, fn); };
  const Row row = measure(device, c, probe, options);
  return {cost.flops, cost.bytes, row.bytes, row.p10_ms, row.median_ms};
}

Inputs tokens(Device& device, const AttentionSetting& s, int64_t image) {
  const Shape shape{s.batch, s.heads, s.text + image, s.head_dim};
  return {noise(device, shape), noise(device, shape), noise(device, shape)};
}

}  // namespace

HkrOptions StudentSetup::options() const {
  HkrOptions o;
  o.landmarks.max = landmark_max;
  return o;
}

std::string StudentSetup::str() const {
  return fmt::format("{} layers F{} W{}, {}", config.layers, config.feature_dim, config.width(),
                     landmark_max > 0 ? fmt::format("cap {}", landmark_max) : "no cap");
}

HkrConfig parse_student(const std::string& text, int64_t head_dim) {
  HkrConfig c;
  c.head_dim = head_dim;
  int64_t* const numbers[] = {&c.layers, &c.feature_dim, &c.hidden};
  const char *at = text.data(), *end = at + text.size();
  bool right = true;
  for (size_t i = 0; right && i < std::size(numbers); ++i) {
    if (i > 0) right = at < end && *at++ == ':';
    const auto [next, error] = std::from_chars(at, end, *numbers[i]);
    right = right && error == std::errc();
    at = next;
  }
  if (!right || at != end) {
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format("--student '{}' isn't layers:features:width, three numbers such as 2:64:128", text));
  }
  c.check();
  return c;
}

Measured measure_full(Device& device, const AttentionSetting& s, int64_t image, PeakProbe& probe,
                      const MeasureOptions& options) {
  const Function fn = [](const Inputs& i) { return op::attention(i[0], i[1], i[2]); };
  return timed(device, fn, tokens(device, s, image), FullAttention().cost(s.shape(image)), probe, options);
}

Measured measure_student(Device& device, const StudentSetup& student, const AttentionSetting& s,
                         int64_t image, PeakProbe& probe, const MeasureOptions& options) {
  const auto layer = std::make_shared<HkrLayer>(student.config, student.options());
  const std::vector<Param> params = parameters(*layer);
  allocate(params, device);
  initialise(params, hkr_init(student.config), 1);
  const Function fn = [layer, text = s.text](const Inputs& i) {
    return layer->forward({i[0], i[1], i[2], {}, {text, {}, 0.5, 1.0}}).out;
  };
  return timed(device, fn, tokens(device, s, image),
               hkr_cost(student.config, student.options(), s.shape(image)), probe, options);
}

int64_t break_even_flops(const StudentSetup& student, const AttentionSetting& s) {
  const auto cheaper = [&](int64_t image) {
    const AttentionShape shape = s.shape(image);
    return hkr_cost(student.config, student.options(), shape).flops < FullAttention().cost(shape).flops;
  };
  int64_t high = 1;
  while (high < kMostTokens && !cheaper(high)) high *= 2;
  if (!cheaper(high)) return 0;
  int64_t low = high / 2;  // not cheaper here, or 0
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (cheaper(middle) ? high : low) = middle;
  }
  return high;
}

const char* name(BreakEven::Kind kind) {
  switch (kind) {
    case BreakEven::Kind::interpolated:
      return "interpolated";
    case BreakEven::Kind::extrapolated:
      return "extrapolated";
    case BreakEven::Kind::below:
      return "below";
    case BreakEven::Kind::none:
      return "none";
  }
  return "";
}

BreakEven break_even_time(const std::vector<int64_t>& image, const std::vector<double>& ratios) {
  const size_t n = image.size();
  if (n == 0) return {};
  // The last crossing counts: past it the student stays faster.
  size_t first_faster = n;
  while (first_faster > 0 && ratios[first_faster - 1] >= 1) --first_faster;
  if (first_faster == 0) return {BreakEven::Kind::below, static_cast<double>(image[0])};
  const bool inside = first_faster < n;
  if (!inside && n < 2) return {};
  const size_t b = inside ? first_faster : n - 1, a = b - 1;
  const double x0 = std::log(static_cast<double>(image[a])), x1 = std::log(static_cast<double>(image[b]));
  const double y0 = std::log(ratios[a]), y1 = std::log(ratios[b]);
  const double slope = (y1 - y0) / (x1 - x0);
  if (!(slope > 0)) return {};
  const double crossing = std::exp(x1 - y1 / slope);
  if (inside) return {BreakEven::Kind::interpolated, crossing};
  if (crossing > kFarthest * static_cast<double>(image[n - 1])) return {};
  return {BreakEven::Kind::extrapolated, crossing};
}

}  // namespace vkflux::bench
