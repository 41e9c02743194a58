#include <algorithm>
#include <chrono>

#include "autograd/ops.h"
#include "autograd/run.h"
#include "bench/measure.h"

namespace vkflux::bench {
namespace {

constexpr int kRepeats = 20;
// Of one sample: long enough that submitting and waiting no longer count, short enough that on a busy machine
// some sample goes undisturbed.
constexpr double kLongEnoughMs = 5;

/// The shortest time of several.
double best_ms(Device& device, const std::function<void()>& work) {
  double best = 1e300;
  for (int i = 0; i < kRepeats; ++i) {
    device.stream().sync();
    const auto start = std::chrono::steady_clock::now();
    work();
    device.stream().sync();
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    best = std::min(best, took.count());
  }
  return best;
}

double peak_gflops(Device& device) {
  constexpr uint32_t kLocal = 64;
  constexpr double kFlopsPerRound = 384;
  const uint32_t groups = device.device_class() == DeviceClass::cpu ? 256 : 16384;
  const double invocations = static_cast<double>(groups) * kLocal;
  const Tensor y = Tensor::empty(device, {static_cast<int64_t>(invocations), 4});
  for (uint32_t rounds = 64;; rounds *= 2) {
    const double flops = invocations * kFlopsPerRound * rounds;
    // The fixed point 1 keeps every value in the normal range.
    const double ms = best_ms(device, [&] {
      run(device, {"peak_flops", "f32", {kLocal}}, {y}, args::PeakFlopsArgs{rounds, 0.999f, 0.001f}, {groups},
          {flops, static_cast<double>(y.bytes())});
    });
    if (ms > kLongEnoughMs || rounds >= (1u << 16)) return flops / ms * 1e-6;
  }
}

double peak_gbs(Device& device) {
  const uint64_t wanted = device.device_class() == DeviceClass::cpu ? 96ull << 20 : 512ull << 20;
  const uint64_t bytes = std::min(wanted, device.caps().max_storage_buffer_range) / 4096 * 4096;
  const Tensor x = Tensor::zeros(device, {static_cast<int64_t>(bytes / 4)});
  const Tensor y = Tensor::zeros(device, {static_cast<int64_t>(bytes / 4)});
  const double size = static_cast<double>(bytes);
  const double added = best_ms(device, [&] { op::accumulate(y, x); });
  const double copied = best_ms(device, [&] { device.stream().copy(y.range(), x.range()); });
  return std::max(3 * size / added, 2 * size / copied) * 1e-6;
}

}  // namespace

Peaks measure_peaks(Device& device) {
  return {peak_gflops(device), peak_gbs(device)};
}

}  // namespace vkflux::bench
