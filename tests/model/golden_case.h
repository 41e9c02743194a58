// A case file (inputs in.*, weights w.*, outputs out.*, intermediates mid.*, gradients grad.*) and how values
// are compared with it: max|got - want| / max|want| per tensor.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "autograd/tape.h"
#include "model/io/json.h"
#include "model/load.h"
#include "tests/harness/gpu.h"

namespace vkflux::test {

constexpr double kOutputTolerance = 2e-4, kGradientTolerance = 1e-3;

inline void expect_close(const std::string& what, const std::vector<float>& got,
                         const std::vector<float>& want, double tolerance) {
  ASSERT_EQ(got.size(), want.size()) << what;
  double error = 0, scale = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double d = std::abs(static_cast<double>(got[i]) - want[i]);
    error = std::isfinite(d) ? std::max(error, d) : INFINITY;
    scale = std::max(scale, std::abs(static_cast<double>(want[i])));
  }
  if (scale == 0) {
    EXPECT_LE(error, 1e-5) << what << " should be zero";
  } else {
    EXPECT_LE(error / scale, tolerance) << what;
  }
}

class GoldenCase {
 public:
  explicit GoldenCase(const std::string& path) : checkpoint_(path) {}
  static GoldenCase data(const std::string& name) {
    return GoldenCase(std::string(VKFLUX_SOURCE_DIR) + "/tests/data/" + name);
  }

  /// The reference's config.
  io::Json config() const { return io::parse_json(checkpoint_.metadata().at("config"), "config"); }
  const std::string& metadata(const std::string& key) const { return checkpoint_.metadata().at(key); }
  bool has(const std::string& name) const { return checkpoint_.has(name); }
  /// How many tensors have names that start with prefix.
  size_t count(const std::string& prefix) const {
    const auto& all = checkpoint_.tensors();
    return static_cast<size_t>(
        std::count_if(all.begin(), all.end(), [&](const auto& t) { return t.first.starts_with(prefix); }));
  }
  std::vector<float> values(const std::string& name) const { return checkpoint_.read_f32(name); }
  Tensor tensor(const std::string& name) const {
    const auto& info = checkpoint_.info(name);
    const std::vector<float> v = values(name);
    return Tensor::from(device(), std::span<const float>(v), Shape(std::span<const int64_t>(info.shape)));
  }
  std::vector<std::vector<int32_t>> ids(const std::string& name) const {
    const auto& info = checkpoint_.info(name);
    std::vector<int32_t> flat(static_cast<size_t>(info.numel()));
    checkpoint_.read(info, 0, std::as_writable_bytes(std::span(flat)));
    const auto length = static_cast<ptrdiff_t>(info.shape.back());
    std::vector<std::vector<int32_t>> rows;
    for (auto at = flat.begin(); at != flat.end(); at += length) rows.emplace_back(at, at + length);
    return rows;
  }
  /// The weights under our names; `table` says how the file's names (behind "w.") map to them.
  io::NamedTensors weights(io::NameTable table) const {
    table.prefixes = {"w."};
    return io::NamedTensors(checkpoint_, table);
  }

  void check(const std::string& name, const Tensor& got, double tolerance = kOutputTolerance) const {
    ASSERT_TRUE(got.defined()) << name;
    expect_close(name, got.to_host(), values(name), tolerance);
  }
  void check_gradients(const std::vector<Param>& params, const Grads& grads) const {
    for (const Param& p : params) check("grad." + p.name, grads.of(*p.tensor), kGradientTolerance);
  }

 private:
  io::SafetensorsFile checkpoint_;
};

}  // namespace vkflux::test
