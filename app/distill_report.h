// The page about a distillation run: plots over updates and a table of layers, in one file without links.
#pragma once

#include <string>

#include "model/io/json.h"

namespace vkflux {

/// summary: what `vkflux distill` writes to summary.json. metrics: the lines of metrics.jsonl (lines that are
/// no JSON are left out).
std::string distill_report_html(const io::Json& summary, const std::string& metrics);

}  // namespace vkflux
