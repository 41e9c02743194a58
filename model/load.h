// Parameters from and to checkpoint files.
#pragma once

#include <functional>
#include <map>
#include <span>
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

/// File and parameters agree; Error format lists the faults.
void check(const std::vector<Param>& params, const io::NamedTensors& file);
/// The same as load() for some of the parameters that were checked.
void load_checked(const std::vector<Param>& params, const io::NamedTensors& file, Device& device,
                  DType matrices, const StorageRules& rules);

/// Bytes that a parameter takes on the device.
uint64_t stored_bytes(DType dtype, const Shape& shape);
/// Whether read_stored() gives them; else the device itself packs the values.
bool is_read_stored(const io::NamedTensors& file, const Param& p, DType dtype);
/// Bytes [at, at + out.size()) of what the device holds of the parameter, from any thread.
void read_stored(const io::NamedTensors& file, const Param& p, DType dtype, uint64_t at,
                 std::span<std::byte> out);
/// A tensor of the file's values, whichever makes its bytes.
Tensor load_tensor(const io::NamedTensors& file, const Param& p, Device& device, DType dtype,
                   MemoryClass cls = MemoryClass::weights);

/// Sizes of the parts of a parameter that the foreign layout splits along rows; empty: equal parts.
using RowSplit = std::function<std::vector<int64_t>(const Param&)>;
/// Writes the parameters in the table's foreign layout: matrices as `matrices`, vectors as F32.
void save(const std::vector<Param>& params, const std::string& path, const io::NameTable& table,
          io::FileDType matrices, const RowSplit& rows = {});

}  // namespace vkflux
