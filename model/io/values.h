// Numbers of a file in the types that devices hold.
#pragma once

#include <cstddef>
#include <span>

#include "autograd/tensor.h"
#include "model/io/tensor_source.h"

namespace vkflux::io {

/// The type in which a device holds a file's numbers as they are: fp8 and blocks packed. Of other types, and
/// of F64, f32.
DType device_type(FileDType stored);

/// `in` holds out.size() / size_of(to) numbers of a floating-point type, whole blocks; to: f32, f16 or bf16.
/// False when one of them isn't finite. Error format for integers.
bool convert(FileDType from, std::span<const std::byte> in, DType to, std::span<std::byte> out);

}  // namespace vkflux::io
