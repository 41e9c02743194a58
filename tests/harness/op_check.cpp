#include "tests/harness/op_check.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "autograd/tape.h"
#include "tests/harness/gpu.h"

namespace vkflux::test {
namespace {

struct Run {
  std::vector<std::vector<float>> outputs, grads;
};

Run run_on_device(const std::vector<Host>& inputs, const std::vector<Host>& cotangents, const DeviceFn& fn) {
  std::vector<Tensor> tensors;
  Tape tape;
  for (const Host& h : inputs) {
    tensors.push_back(upload(h));
    if (h.grad) tape.watch(tensors.back());
  }
  std::vector<Tensor> outputs;
  {
    const auto scope = tape.record();
    outputs = fn(tensors);
  }
  Run r;
  std::vector<std::pair<Tensor, Tensor>> seeds;
  for (size_t i = 0; i < outputs.size(); ++i) {
    r.outputs.push_back(outputs[i].to_host());
    EXPECT_EQ(outputs[i].shape().str(), cotangents[i].shape.str());
    if (tape.active(outputs[i])) seeds.emplace_back(outputs[i], upload(cotangents[i]));
  }
  Grads grads;
  if (!seeds.empty()) tape.backward(seeds, grads);
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Tensor g = grads.of(tensors[i]);
    r.grads.push_back(inputs[i].grad && g.defined() ? g.to_host() : std::vector<float>());
  }
  return r;
}

double loss(const std::vector<Host>& outputs, const std::vector<Host>& cotangents) {
  double sum = 0;
  for (size_t i = 0; i < outputs.size(); ++i) {
    for (size_t j = 0; j < outputs[i].data.size(); ++j) sum += outputs[i][j] * cotangents[i][j];
  }
  return sum;
}

double max_abs(const std::vector<double>& v) {
  double m = 0;
  for (double x : v) m = std::max(m, std::fabs(x));
  return m;
}

}  // namespace

Host random(const Shape& shape, uint64_t seed, double scale) {
  std::mt19937_64 rng(seed * 7919 + 17);
  Host h{shape, {}, true};
  h.data.resize(static_cast<size_t>(shape.numel()));
  for (double& x : h.data) {
    double s = 0;  // the sum of twelve uniforms is close to normal, and the same on every platform
    for (int i = 0; i < 12; ++i) s += static_cast<double>(rng() >> 11) * 0x1p-53;
    x = static_cast<double>(static_cast<float>((s - 6) * scale));
  }
  return h;
}

Tensor upload(const Host& h) {
  const std::vector<float> f(h.data.begin(), h.data.end());
  return Tensor::from(device(), std::span<const float>(f), h.shape);
}

double error_of(const std::vector<float>& got, const std::vector<double>& want) {
  if (got.size() != want.size()) return INFINITY;
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double e = std::fabs(static_cast<double>(got[i]) - want[i]);
    if (!(e <= worst)) worst = std::isnan(e) ? INFINITY : e;
  }
  const double scale = max_abs(want);
  return scale > 0 ? worst / scale : worst;
}

void check_op(const std::string& name, const std::vector<Host>& inputs, const DeviceFn& device_fn,
              const HostFn& host_fn, const CheckOptions& options) {
  const std::vector<Host> want = host_fn(inputs);
  std::vector<Host> cotangents;
  for (size_t i = 0; i < want.size(); ++i) cotangents.push_back(random(want[i].shape, 1000 + i));
  const Run got = run_on_device(inputs, cotangents, device_fn);
  const Run again = run_on_device(inputs, cotangents, device_fn);
  ASSERT_EQ(got.outputs.size(), want.size()) << name;
  for (size_t i = 0; i < want.size(); ++i) {
    const double e = error_of(got.outputs[i], want[i].data);
    EXPECT_TRUE(e <= options.tolerance || e * max_abs(want[i].data) <= options.absolute)
        << name << ": output " << i << " is off by " << e;
    EXPECT_TRUE(got.outputs[i] == again.outputs[i])
        << name << ": output " << i << " differs between two runs";
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i].grad) continue;
    ASSERT_EQ(got.grads[i].size(), inputs[i].data.size()) << name << ": no gradient for input " << i;
    EXPECT_TRUE(got.grads[i] == again.grads[i]) << name << ": gradient " << i << " differs between two runs";
    double scale = 0;
    for (float g : got.grads[i]) {
      EXPECT_TRUE(std::isfinite(g)) << name << ": gradient " << i;
      scale = std::max(scale, std::fabs(static_cast<double>(g)));
    }
    const size_t n = inputs[i].data.size(),
                 probes = std::min<size_t>(n, static_cast<size_t>(options.max_probes));
    for (size_t p = 0; p < probes; ++p) {
      const size_t j = probes == n ? p : (p * (n - 1)) / std::max<size_t>(probes - 1, 1);
      std::vector<Host> moved = inputs;
      const double h = 1e-5 * std::max(1.0, std::fabs(inputs[i][j]));
      moved[i][j] = inputs[i][j] + h;
      const double up = loss(host_fn(moved), cotangents);
      moved[i][j] = inputs[i][j] - h;
      const double down = loss(host_fn(moved), cotangents);
      const double d = (up - down) / (2 * h);
      const double e = std::fabs(d - static_cast<double>(got.grads[i][j]));
      EXPECT_TRUE(e <= options.grad_tolerance * std::max(scale, std::fabs(d)) || e <= 1e-5)
          << name << ": gradient of input " << i << " at " << j << " is " << got.grads[i][j]
          << ", differences give " << d;
    }
  }
}

}  // namespace vkflux::test
