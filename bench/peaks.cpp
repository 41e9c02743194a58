#include <algorithm>
#include <chrono>

#include "autograd/ops.h"
#include "autograd/run.h"
#include "bench/measure.h"

namespace vkflux::bench {
namespace {

constexpr int kFirstProbes = 20;
// Of one measurement: long enough that submitting and waiting no longer count, short enough that on a busy
// machine some of them go undisturbed.
constexpr double kLongEnoughMs = 5;
constexpr uint32_t kLocal = 64, kMostRounds = 1u << 16;
constexpr double kFlopsPerRound = 384;

double time_ms(Device& device, const std::function<void()>& work) {
  device.stream().sync();
  const auto start = std::chrono::steady_clock::now();
  work();
  device.stream().sync();
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
  return took.count();
}

}  // namespace

PeakProbe::PeakProbe(Device& device) : device_(device) {
  const bool cpu = device.device_class() == DeviceClass::cpu;
  lanes_ = Tensor::empty(device, {int64_t{cpu ? 256 : 16384} * kLocal, 4});
  const uint64_t wanted = cpu ? 96ull << 20 : 512ull << 20;
  const uint64_t bytes = std::min(wanted, device.caps().max_storage_buffer_range) / 4096 * 4096;
  from_ = Tensor::zeros(device, {static_cast<int64_t>(bytes / 4)});
  to_ = Tensor::zeros(device, {static_cast<int64_t>(bytes / 4)});
  ms_of_flops();  // compiles the kernel
  while (rounds_ < kMostRounds && ms_of_flops() < kLongEnoughMs) rounds_ *= 2;
  for (int i = 0; i < kFirstProbes; ++i) now();
}

double PeakProbe::ms_of_flops() {
  const auto invocations = static_cast<double>(lanes_.dim(0));
  return time_ms(device_, [&] {
    // The fixed point 1 keeps every value in the normal range.
    run(device_, spec::PeakFlops{.LOCAL = kLocal}, {lanes_}, args::PeakFlopsArgs{rounds_, 0.999f, 0.001f},
        {u32(lanes_.dim(0) / kLocal)},
        {invocations * kFlopsPerRound * rounds_, static_cast<double>(lanes_.bytes())});
  });
}

Peaks PeakProbe::now() {
  const auto size = static_cast<double>(from_.bytes());
  const double flops = static_cast<double>(lanes_.dim(0)) * kFlopsPerRound * rounds_;
  const double computed = ms_of_flops();
  const double added = time_ms(device_, [&] { op::accumulate(to_, from_); });
  const double copied = time_ms(device_, [&] { device_.stream().copy(to_.range(), from_.range()); });
  const Peaks peaks{flops / computed * 1e-6, std::max(3 * size / added, 2 * size / copied) * 1e-6};
  best_ = {std::max(best_.gflops, peaks.gflops), std::max(best_.gbs, peaks.gbs)};
  return peaks;
}

}  // namespace vkflux::bench
