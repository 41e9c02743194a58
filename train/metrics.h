// Metric sinks. A failing sink warns once and never stops training.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace vkflux {

using Metrics = std::vector<std::pair<std::string, double>>;

class MetricSink {
 public:
  virtual ~MetricSink() = default;
  virtual void write(int64_t step, const Metrics& metrics) = 0;
};

/// One JSON object a line, appended; after a resume at step s, lines of later steps are cut off first, so
/// that a file never tells two stories. Non-finite values are written as null.
std::unique_ptr<MetricSink> jsonl_sink(const std::string& path, int64_t resume_step);

/// A TensorBoard event file (scalars) in `directory`; a resumed run starts a new file, as TensorBoard
/// expects.
std::unique_ptr<MetricSink> tensorboard_sink(const std::string& directory, int64_t resume_step);

/// CRC-32C (Castagnoli), as the event files' records need it.
uint32_t crc32c(std::string_view data);

}  // namespace vkflux
