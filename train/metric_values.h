// What may go into a metric sink or an experiment's parameters, and when.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "model/io/json.h"
#include "train/metrics.h"

namespace vkflux {

/// Finite numbers, booleans as 0 and 1, texts that are finite numbers; nothing for all else.
std::optional<double> sanitise_metric(const io::Json& value);
/// "prefix/name" of every usable value of an object, in its order; no prefix: the bare names.
Metrics prefixed_metrics(std::string_view prefix, const io::Json& values);

/// Whether step `step`, counted from 1, is logged: every `every` steps, the last of `total` (0: unknown), and
/// the first when wanted.
bool should_log(int64_t step, int64_t every, int64_t total, bool first);

/// Without white space around it; "default" when nothing is left.
std::string metric_namespace(std::string_view text);

/// Nested objects as one object with dotted names, lists as texts with commas. API keys are left out.
io::Json flatten_parameters(std::string_view prefix, const io::Json& object);

}  // namespace vkflux
