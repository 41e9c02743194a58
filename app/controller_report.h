// One self-contained HTML page about the training of a routing controller.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace vkflux {

struct ControllerReport {
  std::string title;
  std::vector<std::pair<std::string, std::string>> facts;  // name and value
  /// Metrics by step, without their prefix.
  std::vector<std::pair<int64_t, std::map<std::string, double>>> rows;
  double target_share = 0;               // of the student
  std::vector<double> sigmas;            // of the sampling steps
  std::vector<std::vector<float>> full;  // [steps][layers], probability of full attention
  std::vector<uint8_t> eligible;         // [layers]
};

/// The metrics that a run wrote, in the order of their steps; lines that can't be read are left out.
std::vector<std::pair<int64_t, std::map<std::string, double>>> read_metrics(const std::string& jsonl);

std::string controller_report_html(const ControllerReport& report);

}  // namespace vkflux
