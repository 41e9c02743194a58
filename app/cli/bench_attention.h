// `vkflux bench attention`: students of attention against full attention, by configuration and token count.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "app/cli/cli.h"
#include "bench/measure.h"

namespace vkflux::cli {

struct AttentionBenchOptions {
  std::vector<std::string> students{"3:256:512", "2:128:128", "2:64:128", "2:32:64"};
  std::vector<int64_t> landmark_max{0, 512};
  std::vector<int64_t> tokens{256, 1024, 2304};  // of the image
  int64_t text = 77, heads = 2, head_dim = 128;
};

void add_attention_options(CLI::App& command, AttentionBenchOptions& options);
int bench_attention(const Common& common, AttentionBenchOptions options,
                    const bench::MeasureOptions& measure);

}  // namespace vkflux::cli
