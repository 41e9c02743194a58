// The FLUX.1 transformer in plain host code, for one picture: what the device's forward passes are compared
// with. Written from the formulas, sharing nothing with the kernels or with model/.
#pragma once

#include <string>
#include <vector>

#include "bench/reference.h"
#include "model/flux/transformer.h"
#include "model/module.h"

namespace vkflux::bench {

class HostFlux {
 public:
  /// What it is the reference of.
  using Config = Flux1Config;
  using Model = Flux1;

  /// Parameters are read from the device when they are needed. rope: [T + I, D/2, 2].
  HostFlux(const Flux1Config& config, std::vector<Param> params, Values rope, int64_t text);

  struct Streams {
    Values txt, img;  // [T, H], [I, H]
  };
  /// Blocks whose parameters have names starting with `prefix`. Rows of tokens (text first) that aren't in
  /// `wanted` come out as they went in; wanted empty: all tokens.
  Streams double_block(const std::string& prefix, const Streams& x, const Values& silu_vec,
                       std::vector<int64_t> wanted = {}) const;
  Values single_block(const std::string& prefix, const Values& x, const Values& silu_vec,
                      std::vector<int64_t> wanted = {}) const;
  /// Velocity [I, channels] of a whole transformer without guidance embedder.
  Values forward(const Values& img, const Values& txt, const Values& y, double t) const;

 private:
  const Tensor& parameter(const std::string& name) const;
  /// Rows [first, first + count) of the weight; count -1: all.
  Values linear(const std::string& name, const Values& x, int64_t first = 0, int64_t count = -1) const;
  Values embed(const std::string& name, const Values& x) const;
  /// layer_norm(x) (1 + scale) + shift
  Values modulated(const Values& x, const float* shift, const float* scale) const;
  /// RMS norm with the scale, rotation by the token's angles. tokens: of the rows of x.
  void norm_and_rotate(Values& x, const std::string& scale, const std::vector<int64_t>& tokens) const;
  Values attend(const Values& q, const Values& k, const Values& v) const;
  /// Queries of wanted rows, keys and values of all rows of one stream, whose first token is `first`.
  struct Qkv {
    Values q, k, v;
  };
  Qkv project(const std::string& linear_name, const std::string& norm, const Values& a,
              const std::vector<int64_t>& wanted, int64_t first) const;
  Values finish(const std::string& stream, const Values& x, const Values& o, const Values& mod) const;

  Flux1Config c_;
  std::vector<Param> params_;
  Values rope_;
  int64_t text_;
};

}  // namespace vkflux::bench
