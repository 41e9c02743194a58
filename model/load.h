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
/// parameter a tensor with the file's values, stored as storage_of() says. What the file has in that type
/// goes to the device as it is. A value that isn't finite is an error.
void load(const std::vector<Param>& params, const io::NamedTensors& file, Device& device,
          WantedType matrices = DType::f32, const StorageRules& rules = {});

/// Whether a parameter's bytes in `dtype` come from the file as they are or by a cast: not where they are to
/// be encoded anew.
bool reads_directly(const io::NamedTensors& file, const Param& p, DType dtype);
/// Bytes [at, at + out.size()) of such a parameter as the device holds it, from any thread. Error format
/// where a value isn't finite.
void read_weight(const io::NamedTensors& file, const Param& p, DType dtype, uint64_t at,
                 std::span<std::byte> out);

/// File and parameters agree; Error format lists the faults.
void check(const std::vector<Param>& params, const io::NamedTensors& file);
/// The same as load() for some of the parameters that were checked.
void load_checked(const std::vector<Param>& params, const io::NamedTensors& file, Device& device,
                  WantedType matrices, const StorageRules& rules);

/// Bytes that a parameter takes on the device.
uint64_t stored_bytes(DType dtype, const Shape& shape);
/// A tensor of the file's values, whichever makes its bytes.
Tensor load_tensor(const io::NamedTensors& file, const Param& p, Device& device, DType dtype,
                   MemoryClass cls = MemoryClass::weights);

/// Error format lists what the file lacks, has in another shape, or has too much for the parameters.
void check(const std::vector<Param>& params, const io::NamedTensors& file);

/// Sizes of the parts of a parameter that the foreign layout splits along rows; empty: equal parts.
using RowSplit = std::function<std::vector<int64_t>(const Param&)>;
/// Writes the parameters in the table's foreign layout: matrices as `matrices`, vectors as F32; and `more`
/// tensors that are no parameters.
void save(const std::vector<Param>& params, const std::string& path, const io::NameTable& table,
          io::FileDType matrices, const RowSplit& rows = {}, std::vector<io::TensorData> more = {});

}  // namespace vkflux
