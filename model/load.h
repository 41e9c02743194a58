// Parameters from and to checkpoint files.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "model/io/names.h"
#include "model/module.h"
#include "model/weight_storage.h"

namespace vkflux {

/// Names and shapes of a checkpoint, for inferring a config.
std::map<std::string, Shape> shapes_of(const io::NamedTensors& file);

/// Checks that file and parameters agree (names and shapes, error format lists the faults), then gives every
/// parameter a tensor with the file's values, stored as storage_of() says. A value that isn't finite is an
/// error.
void load(const std::vector<Param>& params, const io::NamedTensors& file, Device& device,
          DType matrices = DType::f32, const StorageRules& rules = {});

/// Error format lists what the file lacks, has in another shape, or has too much for the parameters.
void check(const std::vector<Param>& params, const io::NamedTensors& file);

/// Sizes of the parts of a parameter that the foreign layout splits along rows; empty: equal parts.
using RowSplit = std::function<std::vector<int64_t>(const Param&)>;
/// Writes the parameters in the table's foreign layout: matrices as `matrices`, vectors as F32.
void save(const std::vector<Param>& params, const std::string& path, const io::NameTable& table,
          io::FileDType matrices, const RowSplit& rows = {});

}  // namespace vkflux
